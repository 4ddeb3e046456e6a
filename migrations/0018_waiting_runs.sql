-- Only the look at the waiting runs of ScrapeTasks and schedules reads what waits by id; a task that an API client made need not be in it.
CREATE INDEX tasks_source_pending ON tasks (id) WHERE source_uid IS NOT NULL AND status = 'pending';
DROP INDEX tasks_pending;
