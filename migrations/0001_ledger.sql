-- The ledger: users, tasks, their pages, schedules, the change feed and the owners' counters.

CREATE TABLE users (
    id            uuid        PRIMARY KEY,
    name          text        NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 128),
    kind          text        NOT NULL CHECK (kind IN ('person', 'namespace')),
    role          text        NOT NULL CHECK (role IN ('admin', 'member')),
    password_hash text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    disabled_at   timestamptz
);

CREATE TABLE refresh_tokens (
    hash       bytea       PRIMARY KEY,
    family     uuid        NOT NULL,
    user_id    uuid        NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);
CREATE INDEX refresh_tokens_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_expires ON refresh_tokens (expires_at);

CREATE TABLE api_keys (
    id           uuid        PRIMARY KEY,
    user_id      uuid        NOT NULL REFERENCES users ON DELETE CASCADE,
    name         text        NOT NULL,
    prefix       text        NOT NULL,
    hash         bytea       NOT NULL UNIQUE,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    last_used_at timestamptz,
    revoked_at   timestamptz
);
CREATE INDEX api_keys_user ON api_keys (user_id, created_at DESC);

-- A moment as RFC 3339 in UTC, as the API and the change feed write it.
CREATE FUNCTION rfc3339(moment timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE RETURNS NULL ON NULL INPUT
RETURN to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');

-- One row is one run of one spec. The id is a UUIDv7, so that a month of tasks is a range of ids.
CREATE TABLE tasks (
    id                 uuid        NOT NULL PRIMARY KEY,
    user_id            uuid        NOT NULL,
    name               text,
    status             text        NOT NULL DEFAULT 'pending'
                                   CHECK (status IN ('pending', 'running', 'succeeded', 'failed', 'canceled')),
    priority           smallint    NOT NULL DEFAULT 5 CHECK (priority BETWEEN 0 AND 9),
    created_at         timestamptz NOT NULL,
    due_at             timestamptz NOT NULL,
    started_at         timestamptz,
    finished_at        timestamptz,
    spec               jsonb       NOT NULL,
    spec_version       smallint    NOT NULL,
    host               text        NOT NULL,
    source_uid         text,
    spec_hash          text,
    attempts           integer     NOT NULL DEFAULT 0,
    max_attempts       smallint    NOT NULL,
    lease_token        uuid,
    lease_until        timestamptz,
    worker             text,
    cancel_requested   boolean     NOT NULL DEFAULT false,
    pages              integer     NOT NULL DEFAULT 0,
    records            bigint      NOT NULL DEFAULT 0,
    warnings           bigint      NOT NULL DEFAULT 0,
    compute_units_used bigint      NOT NULL DEFAULT 0,
    error_class        text,
    error_message      text
) PARTITION BY RANGE (id);

-- The guide's three indexes ("Index Strategy").
CREATE INDEX idx_tasks_user_created ON tasks (user_id, created_at DESC);
CREATE INDEX idx_tasks_status_priority ON tasks (status, priority, created_at);
CREATE INDEX idx_tasks_active ON tasks (created_at) WHERE status IN ('pending', 'running');
-- What the refill and the sweeper look for.
CREATE INDEX tasks_pending ON tasks (id) WHERE status = 'pending';
CREATE INDEX tasks_leases ON tasks (lease_until) WHERE status = 'running';
CREATE INDEX tasks_source ON tasks (source_uid, id DESC) WHERE source_uid IS NOT NULL;

-- One row is one fetched page with its records: the unit of commit.
CREATE TABLE pages (
    task_id      uuid        NOT NULL,
    number       integer     NOT NULL CHECK (number >= 1),
    url          text        NOT NULL,
    next_url     text,
    fetched_at   timestamptz NOT NULL DEFAULT now(),
    record_count integer     NOT NULL,
    warnings     integer     NOT NULL DEFAULT 0,
    compressed   boolean     NOT NULL,
    records      bytea       NOT NULL,
    PRIMARY KEY (task_id, number)
) PARTITION BY RANGE (task_id);

CREATE TABLE idempotency_keys (
    user_id    uuid        NOT NULL,
    key        text        NOT NULL,
    body_hash  bytea       NOT NULL,
    task_id    uuid        NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, key)
);
CREATE INDEX idempotency_keys_expires ON idempotency_keys (expires_at);

-- One row is one ScrapeTask as its operator last wrote it.
CREATE TABLE scrape_tasks (
    uid         text        PRIMARY KEY,
    user_id     uuid        NOT NULL,
    name        text        NOT NULL,
    spec        jsonb       NOT NULL,
    spec_hash   text        NOT NULL,
    priority    smallint    NOT NULL,
    suspend     boolean     NOT NULL,
    cron        text,
    time_zone   text,
    next_run_at timestamptz,
    updated_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX scrape_tasks_next ON scrape_tasks (next_run_at) WHERE next_run_at IS NOT NULL AND NOT suspend;

-- A tick of a schedule happens once: its key is the proof.
CREATE TABLE schedule_ticks (
    uid     text        NOT NULL,
    tick    timestamptz NOT NULL,
    task_id uuid        NOT NULL,
    PRIMARY KEY (uid, tick)
);

-- Runs of ScrapeTasks that were accepted, started or finished. A reader's cursor is the transaction, and it takes only those below the
-- oldest open one: a transaction that commits late is never skipped.
CREATE TABLE changes (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid        xid8        NOT NULL DEFAULT pg_current_xact_id(),
    uid        text        NOT NULL,
    task_id    uuid        NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX changes_xid ON changes (xid);
CREATE INDEX changes_changed ON changes (changed_at);

-- Counters of owners: writers insert deltas, the keeper folds them.
CREATE TABLE owner_counters (
    user_id       uuid   PRIMARY KEY,
    total         bigint NOT NULL DEFAULT 0,
    succeeded     bigint NOT NULL DEFAULT 0,
    failed        bigint NOT NULL DEFAULT 0,
    canceled      bigint NOT NULL DEFAULT 0,
    records       bigint NOT NULL DEFAULT 0,
    pages         bigint NOT NULL DEFAULT 0,
    compute_units bigint NOT NULL DEFAULT 0
);
CREATE TABLE owner_counter_deltas (
    id            bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id       uuid     NOT NULL,
    total         integer  NOT NULL DEFAULT 0,
    succeeded     integer  NOT NULL DEFAULT 0,
    failed        integer  NOT NULL DEFAULT 0,
    canceled      integer  NOT NULL DEFAULT 0,
    records       bigint   NOT NULL DEFAULT 0,
    pages         integer  NOT NULL DEFAULT 0,
    compute_units bigint   NOT NULL DEFAULT 0
);
CREATE INDEX owner_counter_deltas_user ON owner_counter_deltas (user_id);

-- Who is the active keeper; the epoch fences one that was thought dead.
CREATE TABLE keeper_lease (
    singleton  boolean     PRIMARY KEY DEFAULT true CHECK (singleton),
    holder     text        NOT NULL,
    epoch      bigint      NOT NULL,
    expires_at timestamptz NOT NULL
);
