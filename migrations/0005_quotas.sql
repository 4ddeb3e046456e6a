-- What an owner may use, where an administrator said so; NULL is the platform's default.
CREATE TABLE owner_quotas (
    user_id       uuid        PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    running       integer     CHECK (running >= 0),
    queued        bigint      CHECK (queued >= 0),
    pages_per_day bigint      CHECK (pages_per_day >= 0),
    updated_at    timestamptz NOT NULL DEFAULT now()
);
-- Pages of an owner by day (UTC), counted when a run ends.
CREATE TABLE owner_days (
    user_id uuid   NOT NULL,
    day     date   NOT NULL,
    pages   bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, day)
);
CREATE INDEX owner_days_day ON owner_days (day, pages);
-- Owners whose tasks are not begun until then, as they have read a day's pages; the keeper writes it.
CREATE TABLE owner_holds (
    user_id uuid        PRIMARY KEY,
    used    bigint      NOT NULL,
    most    bigint      NOT NULL,
    until   timestamptz NOT NULL
);
