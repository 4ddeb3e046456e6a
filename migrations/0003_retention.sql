-- How long a finished run is kept: each run's own time, and of each ScrapeTask the newest runs.
ALTER TABLE tasks ADD COLUMN ttl_seconds bigint CHECK (ttl_seconds >= 0);
ALTER TABLE tasks ADD COLUMN expires_at timestamptz;
CREATE INDEX tasks_expiring ON tasks (expires_at) WHERE expires_at IS NOT NULL;

-- A trigger, as programs of the version before finish runs too while an upgrade is under way.
CREATE FUNCTION set_expiry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.expires_at := NEW.finished_at + make_interval(secs => NEW.ttl_seconds);
    RETURN NEW;
END
$$;
CREATE TRIGGER tasks_expiry BEFORE INSERT OR UPDATE OF finished_at, ttl_seconds ON tasks
    FOR EACH ROW WHEN (NEW.ttl_seconds IS NOT NULL) EXECUTE FUNCTION set_expiry();

ALTER TABLE scrape_tasks ADD COLUMN ttl_seconds bigint;
ALTER TABLE scrape_tasks ADD COLUMN keep_succeeded integer;
ALTER TABLE scrape_tasks ADD COLUMN keep_failed integer;
-- What ran last, for when that run is gone: a one-shot whose results were removed does not run again.
ALTER TABLE scrape_tasks ADD COLUMN ran_spec_hash text;
UPDATE scrape_tasks s SET ran_spec_hash = (SELECT spec_hash FROM tasks t WHERE t.source_uid = s.uid ORDER BY id DESC LIMIT 1);
