-- Why:   a good answer of the broker ends only failures that the broker caused. Others of
--        one process, such as outcomes that were not stored, must last until it succeeds.
-- Locks: ACCESS EXCLUSIVE on loop_progress for an instant.
-- Undo:  drops the column.

-- +goose Up
SET LOCAL lock_timeout = '2s';
ALTER TABLE loop_progress ADD COLUMN failed_by_broker boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN loop_progress.failed_by_broker IS 'The broker caused the last failure that counts in consecutive_failures.';

-- +goose Down
SET LOCAL lock_timeout = '2s';
ALTER TABLE loop_progress DROP COLUMN failed_by_broker;
