-- The sweeper reads the few tasks that run; an index of lease_until would be written with every page and every renewed lease, and keep
-- those from being heap-only updates. By owner, as the limits count them.
CREATE INDEX tasks_running ON tasks (user_id) WHERE status = 'running';
DROP INDEX tasks_leases;

-- New months are made so by the keeper.
DO $$
DECLARE
    month regclass;
BEGIN
    FOR month IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'tasks'::regclass LOOP
        EXECUTE format('ALTER TABLE %s SET (fillfactor = 85)', month);
    END LOOP;
END
$$;

-- Most owners have no webhook: then the end of a run does nothing about them.
CREATE FUNCTION has_webhooks(owner uuid) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM webhooks w WHERE w.user_id = owner AND w.disabled_at IS NULL);
END
$$;
DROP TRIGGER tasks_webhooks ON tasks;
CREATE TRIGGER tasks_webhooks AFTER UPDATE OF finished_at ON tasks
    FOR EACH ROW WHEN (NEW.finished_at IS NOT NULL AND OLD.finished_at IS NULL AND has_webhooks(NEW.user_id))
    EXECUTE FUNCTION tell_webhooks();
