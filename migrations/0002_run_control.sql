-- A run can be paused, and one that failed be taken up again where it stopped.
ALTER TABLE tasks ADD COLUMN paused boolean NOT NULL DEFAULT false;
ALTER TABLE tasks ADD COLUMN replays integer NOT NULL DEFAULT 0;
-- What was used before the last replay: the limit of a run counts from there.
ALTER TABLE tasks ADD COLUMN compute_units_before bigint NOT NULL DEFAULT 0;
-- The dead letters of an owner, by cause.
CREATE INDEX tasks_failed ON tasks (user_id, error_class, id DESC) WHERE status = 'failed';
