-- name: OutboxLoopHasDue :one
-- OutboxLoopHasDue says whether anything of a stream's loop is due, in any of its
-- shards.
SELECT EXISTS (
    SELECT
    FROM outbox_due AS due
    WHERE due.loop = @loop
        AND due.oldest_due_at IS NOT NULL
) AS has_due;
