-- Crawls: a run whose pages are claimed, leased and tried again each by itself.

-- One row is one page (or sitemap, or robots.txt) that a crawl has found. Its id begins with the run's moment, so that it lies in the run's
-- month; the rest is a hash of run, kind and URL, so that a URL is there once; its version is 8, by which it is told from a task's.
CREATE TABLE crawl_pages (
    id            uuid        NOT NULL PRIMARY KEY,
    task_id       uuid        NOT NULL,
    kind          text        NOT NULL CHECK (kind IN ('page', 'sitemap', 'robots')),
    url           text        NOT NULL,
    host          text        NOT NULL,
    depth         smallint    NOT NULL,
    status        text        NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'running', 'done', 'failed', 'skipped')),
    due_at        timestamptz NOT NULL DEFAULT now(),
    attempts      integer     NOT NULL DEFAULT 0,
    lease_token   uuid,
    lease_until   timestamptz,
    worker        text,
    records       integer     NOT NULL DEFAULT 0,
    ended_at      timestamptz,
    error_class   text,
    error_message text
) PARTITION BY RANGE (id);
-- What refill, sweeper and lists look for; all of them within a run, which is a range of ids.
CREATE INDEX crawl_pages_pending ON crawl_pages (id) WHERE status = 'pending';
CREATE INDEX crawl_pages_leases ON crawl_pages (lease_until) WHERE status = 'running';
CREATE INDEX crawl_pages_ended ON crawl_pages (status, id) WHERE status IN ('failed', 'skipped');
CREATE INDEX crawl_pages_maps ON crawl_pages (id) WHERE kind <> 'page';

-- Where the pages of a run begin and end among all ids.
CREATE FUNCTION crawl_first(task uuid) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURNS NULL ON NULL INPUT
RETURN (left(task::text, 14) || '0000-0000-000000000000')::uuid;
CREATE FUNCTION crawl_last(task uuid) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURNS NULL ON NULL INPUT
RETURN (left(task::text, 14) || 'ffff-ffff-ffffffffffff')::uuid;

-- A run whose crawl has begun is running without a lease; its pages have theirs. NULL before that, and in every other run.
-- Pages (and sitemaps) that wait or run; the run ends with the last of them.
ALTER TABLE tasks ADD COLUMN crawl_open integer;
-- Pages found, which maxPages bounds; those that failed; those that were not to be read.
ALTER TABLE tasks ADD COLUMN crawl_found integer;
ALTER TABLE tasks ADD COLUMN crawl_failed integer;
ALTER TABLE tasks ADD COLUMN crawl_skipped integer;
-- What its pages cost, in millionths of a compute unit: each of them is far less than one.
ALTER TABLE tasks ADD COLUMN crawl_micros bigint;
-- What is said when it ends without a record; NULL where that is well.
ALTER TABLE tasks ADD COLUMN crawl_nothing text;
-- When its operator last heard of its progress.
ALTER TABLE tasks ADD COLUMN crawl_told_at timestamptz;
