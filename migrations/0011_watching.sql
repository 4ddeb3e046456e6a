-- What pages filled, what changed between runs, and what drifted.
-- Of how many items of the page (first) each field of the spec was found in how many, in its order.
ALTER TABLE pages ADD COLUMN fill integer[];
-- The site said that the page is as it was, and its records are those of a former run.
ALTER TABLE pages ADD COLUMN not_modified boolean NOT NULL DEFAULT false;
-- There is a report on the run.
ALTER TABLE tasks ADD COLUMN reported boolean NOT NULL DEFAULT false;

-- One row is what a run that read every page is compared by, with which run, and what came of it.
CREATE TABLE run_reports (
    task_id       uuid        NOT NULL PRIMARY KEY,
    -- Runs of one series are compared: those of a ScrapeTask or schedule by its uid, others by owner and spec.
    series        text        NOT NULL,
    -- What extracts; drift is told among runs that extract the same.
    shape         text        NOT NULL,
    made_at       timestamptz NOT NULL DEFAULT now(),
    succeeded     boolean     NOT NULL DEFAULT false,
    records       bigint      NOT NULL,
    fill          jsonb       NOT NULL,
    -- What drifted; NULL while there is too little to tell.
    drift         jsonb,
    -- What records are told from each other by; NULL where they are not compared.
    watch_key     text,
    changes_only  boolean     NOT NULL DEFAULT false,
    compared_with uuid,
    new           bigint      NOT NULL DEFAULT 0,
    changed       bigint      NOT NULL DEFAULT 0,
    gone          bigint      NOT NULL DEFAULT 0,
    same          bigint      NOT NULL DEFAULT 0,
    duplicates    bigint      NOT NULL DEFAULT 0,
    keyless       bigint      NOT NULL DEFAULT 0,
    too_many      boolean     NOT NULL DEFAULT false
) PARTITION BY RANGE (task_id);
CREATE INDEX run_reports_series ON run_reports (series, task_id DESC);

-- One row is one record of a watched run, by its key; or one that is gone, which lies in the run before.
CREATE TABLE watch_records (
    task_id      uuid     NOT NULL,
    key_hash     uuid     NOT NULL,
    record_hash  uuid     NOT NULL,
    -- 0 the same, 1 new, 2 changed, 3 gone.
    kind         smallint NOT NULL,
    page         integer  NOT NULL,
    place        integer  NOT NULL,
    before_page  integer,
    before_place integer,
    PRIMARY KEY (task_id, key_hash)
) PARTITION BY RANGE (task_id);
CREATE INDEX watch_records_changes ON watch_records (task_id, kind, page, place) WHERE kind <> 0;

-- For runs that are under way: the months that there are already.
DO $$
DECLARE
    month record;
BEGIN
    FOR month IN SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bounds FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                 WHERE i.inhparent = 'tasks'::regclass LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF run_reports %s', replace(month.relname, 'tasks_', 'run_reports_'), month.bounds);
        EXECUTE format('CREATE TABLE %I PARTITION OF watch_records %s', replace(month.relname, 'tasks_', 'watch_records_'), month.bounds);
    END LOOP;
END
$$;

-- With the end of a run that has a report: whether it may be compared with, and what webhooks are told. In its transaction, whoever ends it.
CREATE FUNCTION end_report() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE run_reports SET succeeded = (NEW.status = 'succeeded') WHERE task_id = NEW.id;
    INSERT INTO webhook_deliveries (id, webhook_id, task_id, event, body)
    SELECT gen_random_uuid(), w.id, NEW.id, told.what, jsonb_build_object(
        'type', told.what, 'timestamp', rfc3339(NEW.finished_at), 'data', jsonb_strip_nulls(jsonb_build_object(
            'id', NEW.id, 'name', NEW.name, 'status', NEW.status, 'records', NEW.records, 'finished_at', rfc3339(NEW.finished_at),
            'changes', CASE WHEN told.what = 'task.changed' THEN jsonb_build_object(
                'new', r.new, 'changed', r.changed, 'gone', r.gone, 'same', r.same, 'baseline', r.compared_with IS NULL) END,
            'drift', CASE WHEN told.what = 'task.drifted' THEN r.drift END)))
    FROM run_reports r
        CROSS JOIN LATERAL (VALUES
            ('task.changed', NEW.status = 'succeeded' AND r.new + r.changed + r.gone > 0),
            ('task.drifted', NEW.status IN ('succeeded', 'failed') AND jsonb_array_length(coalesce(r.drift, '[]')) > 0)) AS told (what, so)
        JOIN webhooks w ON w.user_id = NEW.user_id AND w.disabled_at IS NULL AND told.what = ANY (w.events)
    WHERE r.task_id = NEW.id AND told.so;
    RETURN NULL;
END
$$;
CREATE TRIGGER tasks_reports AFTER UPDATE OF finished_at ON tasks
    FOR EACH ROW WHEN (NEW.reported AND NEW.finished_at IS NOT NULL AND OLD.finished_at IS NULL) EXECUTE FUNCTION end_report();

-- By which of its answers a site can tell that a page is as it was (RFC 9110, section 8.8), and in which run its records lie.
CREATE TABLE page_validators (
    user_id       uuid        NOT NULL,
    -- Of the page's URL and everything that the request and the reading depend on.
    key           uuid        NOT NULL,
    -- Where the page came from in the end.
    url           text        NOT NULL,
    etag          text,
    last_modified text,
    task_id       uuid        NOT NULL,
    page          integer     NOT NULL,
    expires_at    timestamptz NOT NULL,
    PRIMARY KEY (user_id, key)
);
CREATE INDEX page_validators_expires ON page_validators (expires_at);
