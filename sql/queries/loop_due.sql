-- name: LoopHasDue :one
-- LoopHasDue says whether anything of a loop is due, in any of its parts.
SELECT EXISTS (
    SELECT
    FROM loop_due
    WHERE loop_due.loop = @loop
        AND loop_due.oldest_due_at IS NOT NULL
) AS has_due;
