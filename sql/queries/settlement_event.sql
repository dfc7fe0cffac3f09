-- name: SettlementEventInsert :exec
-- SettlementEventInsert adds to the history of a run.
INSERT INTO settlement_event (actor, detail, kind, reason, run_id)
VALUES (@actor, @detail, @kind, nullif(@reason::text, ''), @run_id);

-- name: SettlementEventList :many
-- SettlementEventList returns the history of a run, in order.
SELECT
    event.actor,
    event.at,
    event.detail,
    event.kind,
    coalesce(event.reason, '')::text AS reason
FROM settlement_event AS event
WHERE event.run_id = @run_id
ORDER BY event.id;

-- name: SettlementEventLastReason :one
-- SettlementEventLastReason returns the reason of the newest event of a kind in
-- the history of a run; empty for none.
SELECT coalesce((
    SELECT event.reason
    FROM settlement_event AS event
    WHERE event.run_id = @run_id
        AND event.kind = @kind
    ORDER BY event.id DESC
    LIMIT 1
), '')::text AS reason;
