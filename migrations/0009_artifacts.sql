-- What a run keeps beside its records: screenshots, PDFs and copies of pages. An artifact's row is written by the transaction that commits
-- its page, so the two are seen together or not at all.
CREATE TABLE artifacts (
    -- A UUIDv7: in a run's order of taking.
    id         uuid        NOT NULL,
    task_id    uuid        NOT NULL,
    page       integer     NOT NULL CHECK (page >= 1),
    user_id    uuid        NOT NULL,
    name       text        NOT NULL CHECK (length(name) BETWEEN 1 AND 128),
    media_type text        NOT NULL,
    -- Bytes of its content, as it is served.
    size       bigint      NOT NULL CHECK (size >= 0),
    sha256     bytea       NOT NULL,
    -- The key in the object store; NULL where the content lies in artifact_chunks.
    object     text,
    -- Whether each chunk is compressed by zstd.
    compressed boolean     NOT NULL,
    -- Why there is no content.
    left_out   text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (task_id, id)
) PARTITION BY RANGE (task_id);

-- The contents that lie in the database: chunk n holds the bytes from n * 512 KiB on.
CREATE TABLE artifact_chunks (
    task_id  uuid    NOT NULL,
    artifact uuid    NOT NULL,
    number   integer NOT NULL CHECK (number >= 0),
    bytes    bytea   NOT NULL,
    PRIMARY KEY (task_id, artifact, number)
) PARTITION BY RANGE (task_id);
-- Images are compressed already, and texts are compressed before they come here.
ALTER TABLE artifact_chunks ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- The months that there are; the keeper makes the further ones.
DO $$
DECLARE
    month record;
BEGIN
    FOR month IN
        SELECT substr(c.relname, length('tasks_') + 1) AS suffix, pg_get_expr(c.relpartbound, c.oid) AS bounds
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'tasks'::regclass
    LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF artifacts %s', 'artifacts_' || month.suffix, month.bounds);
        EXECUTE format('CREATE TABLE %I PARTITION OF artifact_chunks %s', 'artifact_chunks_' || month.suffix, month.bounds);
    END LOOP;
END
$$;

-- Contents that are being written. What is not an artifact an hour later belongs to a writer who is gone, and is removed.
CREATE TABLE artifact_uploads (
    id       uuid        PRIMARY KEY,
    task_id  uuid        NOT NULL,
    user_id  uuid        NOT NULL,
    size     bigint      NOT NULL,
    object   text,
    begun_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX artifact_uploads_begun ON artifact_uploads (begun_at);

-- Bytes of an owner's artifacts, those that are being written included.
CREATE TABLE artifact_usage (
    user_id uuid   PRIMARY KEY,
    bytes   bigint NOT NULL
);
ALTER TABLE owner_quotas ADD COLUMN artifact_bytes bigint CHECK (artifact_bytes >= 0);

-- Objects that nothing refers to any more: the keeper removes them from the object store, and tries again until it could.
CREATE TABLE artifact_removals (
    object   text        PRIMARY KEY,
    attempts integer     NOT NULL DEFAULT 0,
    due_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX artifact_removals_due ON artifact_removals (due_at);

-- Artifacts go with their pages, and contents with their artifacts, whoever removes them.
CREATE FUNCTION remove_artifacts_of_pages() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM artifacts a USING (SELECT DISTINCT task_id FROM gone) g
    WHERE a.task_id = g.task_id AND NOT EXISTS (SELECT FROM pages p WHERE p.task_id = a.task_id AND p.number = a.page);
    RETURN NULL;
END
$$;
CREATE TRIGGER pages_artifacts AFTER DELETE ON pages
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION remove_artifacts_of_pages();

CREATE FUNCTION remove_contents_of_artifacts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM gone) THEN
        RETURN NULL;
    END IF;
    DELETE FROM artifact_chunks c USING gone WHERE c.task_id = gone.task_id AND c.artifact = gone.id;
    INSERT INTO artifact_removals (object) SELECT object FROM gone WHERE object IS NOT NULL ON CONFLICT DO NOTHING;
    UPDATE artifact_usage u SET bytes = greatest(u.bytes - freed.bytes, 0)
    FROM (SELECT user_id, sum(size) AS bytes FROM gone WHERE left_out IS NULL GROUP BY user_id ORDER BY user_id) freed
    WHERE u.user_id = freed.user_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER artifacts_contents AFTER DELETE ON artifacts
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION remove_contents_of_artifacts();
