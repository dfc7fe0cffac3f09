-- name: SettlementItemInsert :copyfrom
-- SettlementItemInsert adds what a calculation found.
INSERT INTO settlement_item (
    amount_minor, basis_minor, capped_minor, currency, delivery, disposition, gross_minor, inputs,
    period_id, player_id, rate_ppm, reason, run_id, tier_from, tier_value
) VALUES (
    @amount_minor, @basis_minor, @capped_minor, @currency, @delivery, @disposition, @gross_minor, @inputs,
    @period_id, @player_id, @rate_ppm, @reason, @run_id, @tier_from, @tier_value
);

-- name: SettlementItemPlanClaim :exec
-- SettlementItemPlanClaim lets the planner read items in the order of their
-- index (setting is off), or as it likes (on), to the end of the transaction. The
-- items of a run are new to its statistics: it would take them for few, and read
-- and sort all that are left for each chunk.
SELECT
    set_config('enable_bitmapscan', @setting::text, true),
    set_config('enable_seqscan', @setting, true),
    set_config('enable_sort', @setting, true);

-- name: SettlementItemClaim :many
-- SettlementItemClaim returns the next undelivered items of a run with what a
-- credit needs, in order of players. The run must be locked, which keeps the
-- items to its holder.
SELECT
    item.id,
    item.adj,
    item.amount_minor,
    item.currency,
    -- A subquery, so that it is an index lookup per item: a join would read all
    -- players for each chunk.
    coalesce((SELECT player.code FROM player WHERE player.id = item.player_id), '')::text AS player,
    item.player_id
FROM settlement_item AS item
WHERE item.run_id = @run_id
    AND item.player_id > @after_player_id
    AND item.delivery IN ('pending', 'failed')
    AND item.voided_at IS NULL
ORDER BY item.player_id
LIMIT @max_items::int;

-- name: SettlementItemCredit :many
-- SettlementItemCredit marks undelivered items as credited and returns one row:
-- how many they were, and their sum.
WITH credited AS (
    UPDATE settlement_item AS item
    SET
        attempts = item.attempts + 1,
        credited_at = clock_timestamp(),
        delivery = 'credited',
        failure_class = NULL,
        failure_code = NULL
    WHERE item.id = ANY(@ids::bigint[])
        AND item.delivery IN ('pending', 'failed')
    RETURNING item.amount_minor
)
SELECT
    count(*) AS num_credited,
    coalesce(sum(credited.amount_minor), 0)::bigint AS credited_minor
FROM credited;

-- name: SettlementItemRefuse :exec
-- SettlementItemRefuse marks items as failed or withheld, each with its code and
-- class; an empty class means none.
WITH given AS (
    SELECT
        unnest(@ids::bigint[]) AS id,
        unnest(@deliveries::text[]) AS delivery,
        unnest(@classes::text[]) AS failure_class,
        unnest(@codes::text[]) AS failure_code
)
UPDATE settlement_item
SET
    attempts = settlement_item.attempts + 1,
    delivery = given.delivery,
    failure_class = nullif(given.failure_class, ''),
    failure_code = given.failure_code
FROM given
WHERE settlement_item.id = given.id;

-- name: SettlementItemFailPending :execrows
-- SettlementItemFailPending marks what no attempt got to as failed.
UPDATE settlement_item
SET
    delivery = 'failed',
    failure_class = 'transient',
    failure_code = @failure_code::text
WHERE run_id = @run_id
    AND delivery = 'pending';

-- name: SettlementItemVoid :exec
-- SettlementItemVoid gives up the claims of a run that ended before it paid.
UPDATE settlement_item AS item
SET voided_at = clock_timestamp()
WHERE item.run_id = @run_id
    AND item.voided_at IS NULL
    AND NOT EXISTS (
        SELECT
        FROM settlement_run AS run
        WHERE run.id = item.run_id
            AND run.started_at IS NOT NULL
    );

-- name: SettlementItemCount :one
-- SettlementItemCount counts the items of a run by what became of them.
SELECT
    count(*) FILTER (WHERE item.delivery = 'credited') AS num_credited,
    count(*) FILTER (WHERE item.disposition = 'eligible') AS num_eligible,
    count(*) FILTER (WHERE item.delivery = 'failed') AS num_failed,
    count(*) FILTER (WHERE item.delivery = 'failed' AND item.failure_class NOT IN ('permanent', 'poison')) AS num_failed_for_now,
    count(*) FILTER (WHERE item.delivery = 'pending') AS num_pending,
    count(*) FILTER (WHERE item.delivery = 'withheld') AS num_withheld
FROM settlement_item AS item
WHERE item.run_id = @run_id;

-- name: SettlementItemReasons :many
-- SettlementItemReasons counts the items of a run by disposition, delivery and
-- reason, the largest groups first.
SELECT
    item.disposition,
    coalesce(item.delivery, '')::text AS delivery,
    coalesce(item.reason, item.failure_code, '')::text AS reason,
    coalesce(item.failure_class, '')::text AS failure_class,
    count(*) AS num_items,
    sum(item.amount_minor)::bigint AS amount_minor
FROM settlement_item AS item
WHERE item.run_id = @run_id
GROUP BY 1, 2, 3, 4
ORDER BY num_items DESC, 1, 2, 3, 4
LIMIT @max_groups::int;

-- name: SettlementAttemptInsert :exec
-- SettlementAttemptInsert records what came of trying to credit items.
INSERT INTO settlement_attempt (item_id, run_id, attempt, failure_class, failure_code, job_id, result)
SELECT
    unnest(@item_ids::bigint[]),
    @run_id,
    @attempt,
    nullif(unnest(@classes::text[]), ''),
    nullif(unnest(@codes::text[]), ''),
    @job_id,
    unnest(@results::text[]);
