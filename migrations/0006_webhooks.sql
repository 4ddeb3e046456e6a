-- Where owners want to hear of the end of their runs, and what is still to be told them.
CREATE TABLE webhooks (
    id          uuid        PRIMARY KEY,
    user_id     uuid        NOT NULL,
    url         text        NOT NULL,
    events      text[]      NOT NULL,
    -- Encrypted by the API, which says before it which key it was: kid:base64.
    secret      text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz
);
CREATE INDEX webhooks_user ON webhooks (user_id);

CREATE TABLE webhook_deliveries (
    id           uuid        PRIMARY KEY,
    webhook_id   uuid        NOT NULL REFERENCES webhooks ON DELETE CASCADE,
    task_id      uuid        NOT NULL,
    event        text        NOT NULL,
    body         jsonb       NOT NULL,
    status       text        NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'failed')),
    attempts     integer     NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL DEFAULT now(),
    due_at       timestamptz NOT NULL DEFAULT now(),
    gives_up_at  timestamptz NOT NULL DEFAULT now() + interval '24 hours',
    ended_at     timestamptz,
    answer       text
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (due_at) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_webhook ON webhook_deliveries (webhook_id, created_at DESC);
CREATE INDEX webhook_deliveries_created ON webhook_deliveries (created_at);

-- The outbox is written with the end of the run, in the same transaction, whoever ends it: worker, sweeper, or a client who cancels.
CREATE FUNCTION tell_webhooks() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    what text := CASE WHEN NEW.status = 'failed' THEN 'task.failed' ELSE 'task.finished' END;
BEGIN
    INSERT INTO webhook_deliveries (id, webhook_id, task_id, event, body)
    SELECT gen_random_uuid(), w.id, NEW.id, what, jsonb_build_object(
        'type', what, 'timestamp', rfc3339(NEW.finished_at), 'data', jsonb_strip_nulls(jsonb_build_object(
            'id', NEW.id, 'name', NEW.name, 'status', NEW.status, 'pages', NEW.pages, 'records', NEW.records,
            'created_at', rfc3339(NEW.created_at), 'started_at', rfc3339(NEW.started_at), 'finished_at', rfc3339(NEW.finished_at),
            'error', CASE WHEN NEW.error_class IS NOT NULL
                THEN jsonb_build_object('class', NEW.error_class, 'message', NEW.error_message) END)))
    FROM webhooks w WHERE w.user_id = NEW.user_id AND w.disabled_at IS NULL AND what = ANY (w.events);
    RETURN NULL;
END
$$;
CREATE TRIGGER tasks_webhooks AFTER UPDATE OF finished_at ON tasks
    FOR EACH ROW WHEN (NEW.finished_at IS NOT NULL AND OLD.finished_at IS NULL) EXECUTE FUNCTION tell_webhooks();
