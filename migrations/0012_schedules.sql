-- What a tick does while a run is under way, how late it may start one, and what was missed. Schedules that users of the API made stand
-- beside those of ScrapeTasks; their uid is the API's.
ALTER TABLE scrape_tasks ADD COLUMN concurrency_policy text NOT NULL DEFAULT 'Forbid'
    CHECK (concurrency_policy IN ('Allow', 'Forbid', 'Replace'));
ALTER TABLE scrape_tasks ADD COLUMN starting_deadline_seconds bigint CHECK (starting_deadline_seconds > 0);
ALTER TABLE scrape_tasks ADD COLUMN missed_ticks bigint NOT NULL DEFAULT 0;
ALTER TABLE scrape_tasks ADD COLUMN last_missed_at timestamptz;
ALTER TABLE scrape_tasks ADD COLUMN from_api boolean NOT NULL DEFAULT false;
ALTER TABLE scrape_tasks ADD COLUMN on_change text NOT NULL DEFAULT 'Replace' CHECK (on_change IN ('Replace', 'Forbid'));
CREATE INDEX scrape_tasks_user ON scrape_tasks (user_id, uid);
-- Whether a run of a schedule is under way.
CREATE INDEX tasks_source_open ON tasks (source_uid) WHERE source_uid IS NOT NULL AND status IN ('pending', 'running');
-- Why runs of ScrapeTasks wait, as the keeper saw it last: what lasts is told to the operator.
CREATE TABLE run_waits (
    task_id  uuid        PRIMARY KEY,
    uid      text        NOT NULL,
    reason   text        NOT NULL,
    -- What the run had done when it began to wait: one that went on meanwhile waits anew.
    progress bigint      NOT NULL,
    since    timestamptz NOT NULL DEFAULT now(),
    told     text
);
