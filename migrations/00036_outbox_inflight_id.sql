-- Why:   an event and its gap marker share a place: of the two, the one that was alone in
--        flight when its worker died is to be told from the other.
-- Locks: ACCESS EXCLUSIVE on outbox_shard for an instant.
-- Undo:  the one with the lower id is taken for it again.

-- +goose Up
SET LOCAL lock_timeout = '2s';
ALTER TABLE outbox_shard ADD COLUMN inflight_id bigint;
COMMENT ON COLUMN outbox_shard.inflight_id IS 'The event that was in flight last alone; it counts while inflight_num is 1.';

-- +goose Down
SET LOCAL lock_timeout = '2s';
ALTER TABLE outbox_shard DROP COLUMN inflight_id;
