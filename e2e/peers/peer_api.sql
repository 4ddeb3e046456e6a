-- The peer's tables, with the guide's indexes ("Index Strategy").
CREATE TABLE users (id uuid PRIMARY KEY, name text NOT NULL UNIQUE, password_hash text NOT NULL);
CREATE TABLE tasks (
    id                 uuid        PRIMARY KEY,
    user_id            uuid        NOT NULL,
    name               text,
    status             text        NOT NULL,
    priority           integer     NOT NULL,
    spec               json        NOT NULL,
    created_at         timestamp   NOT NULL DEFAULT now(),
    records            bigint      NOT NULL DEFAULT 0,
    pages              integer     NOT NULL DEFAULT 0,
    compute_units_used bigint      NOT NULL DEFAULT 0
);
CREATE INDEX idx_tasks_user_created ON tasks (user_id, created_at DESC);
CREATE INDEX idx_tasks_status_priority ON tasks (status, priority, created_at);
CREATE INDEX idx_tasks_active ON tasks (created_at) WHERE status IN ('pending', 'running');
