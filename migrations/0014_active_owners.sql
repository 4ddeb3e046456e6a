-- When an owner was here last: signed in, or had a task accepted. The guide counts those of the last 30 days. What was before this
-- migration is not known.
ALTER TABLE owner_counters ADD COLUMN active_at timestamptz;
ALTER TABLE owner_counter_deltas ADD COLUMN signed_in boolean NOT NULL DEFAULT false;
