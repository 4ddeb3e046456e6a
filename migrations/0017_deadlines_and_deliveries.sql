-- When a run that has begun is over by its maxDuration: while nobody reads it, it is the sweeper that ends it.
ALTER TABLE tasks ADD COLUMN deadline_at timestamptz;
CREATE INDEX tasks_deadline ON tasks (deadline_at) WHERE deadline_at IS NOT NULL AND status IN ('pending', 'running');

-- A trigger, as programs of the version before begin and replay runs too while an upgrade is under way. An interval reads a duration as the
-- spec writes it: 30s, 1h30m.
CREATE FUNCTION set_deadline() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.deadline_at := NEW.started_at + (NEW.spec ->> 'maxDuration')::interval;
    RETURN NEW;
END
$$;
CREATE TRIGGER tasks_deadline BEFORE UPDATE OF started_at ON tasks
    FOR EACH ROW WHEN (NEW.started_at IS DISTINCT FROM OLD.started_at AND NEW.spec ? 'maxDuration') EXECUTE FUNCTION set_deadline();
UPDATE tasks SET deadline_at = started_at + (spec ->> 'maxDuration')::interval
WHERE status IN ('pending', 'running') AND started_at IS NOT NULL AND spec ? 'maxDuration';

-- What is still to be told, by webhook: a round takes a few of each, whoever has how many.
CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (webhook_id, due_at) WHERE status = 'pending';

-- Pages as they are read: the day's quota counts them then, and the owner's figures with the end of the run.
ALTER TABLE owner_counter_deltas ADD COLUMN pages_read integer NOT NULL DEFAULT 0;

-- Why the tick that is due waits, where a quota holds it; NULL when it does not.
ALTER TABLE scrape_tasks ADD COLUMN held text;
CREATE INDEX scrape_tasks_held ON scrape_tasks (user_id) WHERE held IS NOT NULL;
