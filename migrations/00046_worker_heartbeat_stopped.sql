-- Why:   a process that stopped cleanly looked ready for 30 s, and alive for an hour.
-- Locks: ACCESS EXCLUSIVE on worker_heartbeat for an instant.
-- Undo:  drops the column; stopped processes look as if they had died.

-- +goose Up
SET LOCAL lock_timeout = '2s';
ALTER TABLE worker_heartbeat ADD COLUMN stopped_at timestamptz;
COMMENT ON COLUMN worker_heartbeat.stopped_at IS 'When the process stopped cleanly, which was its last beat; NULL while it lives, and for one that died.';
COMMENT ON COLUMN worker_heartbeat.started_at IS 'Names the start that the row belongs to: a process that finds another start here has lost its id.';
CREATE OR REPLACE VIEW worker_heartbeats AS
SELECT worker_id, seen_at, ready_at, reasons, queues, version, started_at, stopped_at
FROM worker_heartbeat;
COMMENT ON VIEW worker_heartbeats IS 'Each process: seen_at moves while it lives, ready_at only while it is ready, reasons say why not, stopped_at is set by a clean stop.';

-- +goose Down
SET LOCAL lock_timeout = '2s';
DROP VIEW worker_heartbeats;
CREATE VIEW worker_heartbeats AS
SELECT worker_id, seen_at, ready_at, reasons, queues, version, started_at
FROM worker_heartbeat;
COMMENT ON VIEW worker_heartbeats IS 'Each process: seen_at moves while it lives, ready_at only while it is ready, reasons say why not.';
COMMENT ON COLUMN worker_heartbeat.started_at IS NULL;
ALTER TABLE worker_heartbeat DROP COLUMN stopped_at;
