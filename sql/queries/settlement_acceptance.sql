-- name: SettlementAcceptanceInsert :one
-- SettlementAcceptanceInsert accepts a failure of a player, a programme (empty codes:
-- of any), or both. No row: there is no such player or programme.
INSERT INTO settlement_acceptance (accepted_by, expires_at, failure_code, max_credits, player_id, programme_id, reason)
SELECT @accepted_by, @expires_at, @failure_code, sqlc.narg('max_credits')::integer, player.id, programme.id, @reason
FROM (SELECT @player::text AS player, @programme::text AS programme) AS given
LEFT JOIN player ON player.code = given.player
LEFT JOIN programme ON programme.code = given.programme
WHERE (given.player = '' OR player.id IS NOT NULL)
    AND (given.programme = '' OR programme.id IS NOT NULL)
RETURNING id;

-- name: SettlementAcceptanceList :many
-- SettlementAcceptanceList returns the acceptances that are in force, the oldest first.
SELECT
    acceptance.id,
    acceptance.accepted_at,
    acceptance.accepted_by,
    acceptance.expires_at,
    acceptance.failure_code,
    coalesce(acceptance.max_credits, 0)::integer AS max_credits,
    coalesce(player.code, '')::text AS player,
    coalesce(programme.code, '')::text AS programme,
    acceptance.reason
FROM settlement_acceptance AS acceptance
LEFT JOIN player ON player.id = acceptance.player_id
LEFT JOIN programme ON programme.id = acceptance.programme_id
WHERE acceptance.revoked_at IS NULL
    AND acceptance.expires_at > clock_timestamp()
ORDER BY acceptance.id;

-- name: SettlementAcceptanceRevoke :execrows
-- SettlementAcceptanceRevoke ends an acceptance, once.
UPDATE settlement_acceptance
SET
    revoke_reason = @revoke_reason::text,
    revoked_at = clock_timestamp(),
    revoked_by = @revoked_by::text
WHERE id = @id
    AND revoked_at IS NULL;

-- name: SettlementAcceptanceCover :one
-- SettlementAcceptanceCover says which acceptances cover all failed credits of a run,
-- and whose they are. The run is not covered where a credit has none, or where one of a
-- programme would cover more credits than it allows. That of a player comes first.
WITH failed AS (
    SELECT covering.id, covering.accepted_by, covering.max_credits
    FROM settlement_run AS run
    JOIN settlement_period AS period ON period.id = run.period_id
    JOIN settlement_run_items AS item ON item.run_id = run.id
    LEFT JOIN LATERAL (
        SELECT acceptance.id, acceptance.accepted_by, acceptance.max_credits
        FROM settlement_acceptance AS acceptance
        WHERE acceptance.failure_code = item.failure_code
            AND acceptance.revoked_at IS NULL
            AND acceptance.expires_at > clock_timestamp()
            AND (acceptance.player_id IS NULL OR acceptance.player_id = item.player_id)
            AND (acceptance.programme_id IS NULL OR acceptance.programme_id = period.programme_id)
        ORDER BY acceptance.player_id IS NULL, acceptance.max_credits DESC, acceptance.id
        LIMIT 1
    ) AS covering ON true
    WHERE run.id = @run_id
        AND item.delivery = 'failed'
),
used AS (
    SELECT failed.id, failed.accepted_by, count(*) <= coalesce(min(failed.max_credits), count(*)) AS is_allowed
    FROM failed
    GROUP BY failed.id, failed.accepted_by
)
SELECT
    coalesce(array_agg(used.id ORDER BY used.id) FILTER (WHERE used.id IS NOT NULL), '{}')::bigint[] AS ids,
    coalesce(string_agg(DISTINCT used.accepted_by, ', '), '')::text AS accepted_by,
    coalesce(bool_and(used.id IS NOT NULL AND used.is_allowed), false)::boolean AS is_covered
FROM used;
