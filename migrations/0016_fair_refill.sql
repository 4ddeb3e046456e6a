-- What waits, by owner and in the order in which it is to run: the refill takes of every owner a stretch, without looking through all that waits.
CREATE INDEX tasks_waiting ON tasks (user_id, (9 - priority), due_at, id) WHERE status = 'pending' AND NOT paused;
