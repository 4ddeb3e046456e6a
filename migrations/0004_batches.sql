-- One key stands for a whole batch of tasks.
ALTER TABLE idempotency_keys ADD COLUMN task_ids uuid[];
