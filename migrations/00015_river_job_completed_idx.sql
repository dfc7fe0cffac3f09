-- Why:   the freshness view asks for the newest completed job of each kind;
--        without this index it scans every job of a kind that stopped.
-- Locks: SHARE on river_job while it is built: seconds at most on a new
--        database. River's cleaner removes completed jobs after a
--        day; discarded and cancelled ones stay.
-- Undo:  drops the index; the view gets slow, not wrong.

-- +goose Up
-- Passes that could tell nothing are left out: they must not look like work.
CREATE INDEX river_job_completed_idx ON river_job (kind, attempted_at DESC)
    WHERE state = 'completed' AND (metadata #> '{output,neutral}') IS NULL;
COMMENT ON INDEX river_job_completed_idx IS 'Ours, not River''s: for worker_freshness.';

COMMENT ON TABLE river_job IS 'River: the jobs. Rows vanish some time after they end, so they are no evidence; see the tables of each domain for that.';
COMMENT ON TABLE river_leader IS 'River: which client holds the leadership.';
COMMENT ON TABLE river_migration IS 'River: unused here, goose keeps the record of its migrations.';
COMMENT ON TABLE river_notification IS 'River: notifications for databases without LISTEN.';
COMMENT ON TABLE river_queue IS 'River: the queues that were seen, and which are paused.';
COMMENT ON FUNCTION river_job_state_in_bitmask IS 'River: whether a job''s state counts for its uniqueness.';

-- +goose Down
DROP INDEX river_job_completed_idx;
