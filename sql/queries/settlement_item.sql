-- name: SettlementItemInsert :copyfrom
-- SettlementItemInsert adds what a calculation found.
INSERT INTO settlement_item (
    adj, amount_minor, basis_minor, capped_minor, currency, delivery, disposition, entitled_minor, gross_minor, inputs,
    period_id, player_id, rate_ppm, reason, run_id, tier_from, tier_value
) VALUES (
    @adj, @amount_minor, @basis_minor, @capped_minor, @currency, @delivery, @disposition, @entitled_minor, @gross_minor, @inputs,
    @period_id, @player_id, @rate_ppm, @reason, @run_id, @tier_from, @tier_value
);

-- name: SettlementItemKeepPlans :exec
-- SettlementItemKeepPlans lets the database keep plans to the end of the transaction.
-- Where each is to be made anew, so is that of the check that an item's run is there,
-- item by item, which takes longer than all else about it.
SELECT set_config('plan_cache_mode', 'auto', true);

-- name: SettlementItemCredit :one
-- SettlementItemCredit credits the next undelivered items of a run; see the SQL
-- function settlement_credit_chunk for the four numbers.
SELECT settlement_credit_chunk(
    @run_id::bigint, @attempt::integer, @job_id::bigint, @after_player_id::bigint, @max_items::integer, @skip_locked::boolean
)::bigint[] AS done;

-- name: SettlementItemRefuse :one
-- SettlementItemRefuse fails the next undelivered items of a run; see the SQL function
-- settlement_refuse_chunk.
SELECT settlement_refuse_chunk(
    @run_id::bigint, @attempt::integer, @job_id::bigint, @after_player_id::bigint, @max_items::integer, @failure_class::text, @failure_code::text
)::bigint[] AS done;

-- name: SettlementItemClaimable :one
-- SettlementItemClaimable counts the next undelivered items of a run, up to max_items.
SELECT coalesce(cardinality((settlement_claim(@run_id::bigint, @after_player_id::bigint, @max_items::integer)).item_ids), 0)::integer AS num_items;

-- name: SettlementItemFailPending :execrows
-- SettlementItemFailPending marks what no attempt got to as failed.
UPDATE settlement_item
SET
    delivery = 'failed',
    failure_class = 'transient',
    failure_code = @failure_code::text
WHERE run_id = (SELECT coalesce(run.parent_id, run.id) FROM settlement_run AS run WHERE run.id = @run_id)
    AND delivery = 'pending';

-- name: SettlementItemVoid :one
-- SettlementItemVoid gives up the claims of a run that ended before it paid, and returns
-- how many of them it did not come to change.
WITH claim AS MATERIALIZED (
    SELECT item.id
    FROM settlement_item AS item
    WHERE item.run_id = @run_id
        AND item.voided_at IS NULL
        AND NOT EXISTS (
            SELECT
            FROM settlement_run AS run
            WHERE run.id = item.run_id
                AND run.started_at IS NOT NULL
        )
), voided AS (
    UPDATE settlement_item AS item
    SET voided_at = clock_timestamp()
    FROM claim
    WHERE item.id = claim.id
    RETURNING item.id
)
SELECT ((SELECT count(*) FROM claim) - (SELECT count(*) FROM voided))::bigint AS num_kept;

-- name: SettlementItemCount :one
-- SettlementItemCount counts the items that a run is about by what became of them.
SELECT
    count(*) FILTER (WHERE item.delivery = 'credited') AS num_credited,
    count(*) FILTER (WHERE item.disposition = 'eligible') AS num_eligible,
    count(*) FILTER (WHERE item.delivery = 'failed') AS num_failed,
    count(*) FILTER (WHERE item.delivery = 'failed' AND item.failure_class NOT IN ('permanent', 'poison')) AS num_failed_for_now,
    count(*) FILTER (WHERE item.delivery = 'pending') AS num_pending,
    count(*) FILTER (WHERE item.delivery = 'withheld') AS num_withheld
FROM settlement_run_items AS item
WHERE item.run_id = @run_id;

-- name: SettlementItemReasons :many
-- SettlementItemReasons counts the items that a run is about by disposition, delivery
-- and reason, the largest groups first.
SELECT
    item.disposition,
    coalesce(item.delivery, '')::text AS delivery,
    coalesce(item.reason, item.failure_code, '')::text AS reason,
    coalesce(item.failure_class, '')::text AS failure_class,
    count(*) AS num_items,
    sum(item.amount_minor)::bigint AS amount_minor
FROM settlement_run_items AS item
WHERE item.run_id = @run_id
GROUP BY 1, 2, 3, 4
ORDER BY num_items DESC, 1, 2, 3, 4
LIMIT @max_groups::int;

-- name: SettlementItemUndelivered :many
-- SettlementItemUndelivered returns the largest amounts that a run owed and did not
-- pay, with how many there are in all.
SELECT
    player.code AS player,
    item.amount_minor,
    item.delivery::text AS delivery,
    coalesce(item.failure_code, item.reason, '')::text AS why,
    count(*) OVER () AS num_undelivered
FROM settlement_run_items AS item
JOIN player ON player.id = item.player_id
WHERE item.run_id = @run_id
    AND item.disposition = 'eligible'
    AND item.delivery IN ('failed', 'withheld')
ORDER BY item.amount_minor DESC, player.code
LIMIT @max_rows::int;

-- name: SettlementItemUnbooked :one
-- SettlementItemUnbooked counts what a run has credited and the ledger does not have so.
SELECT settlement_unbooked(@run_id::bigint)::bigint AS num_unbooked;

-- name: SettlementItemHoldsBack :one
-- SettlementItemHoldsBack tells whether an adjustment left somebody out for an
-- undelivered credit.
SELECT EXISTS (
    SELECT
    FROM settlement_item AS item
    WHERE item.run_id = @run_id
        AND item.reason = 'earlier_undelivered'
        AND item.voided_at IS NULL
);

-- name: SettlementItemExplain :many
-- SettlementItemExplain returns what the runs of a period found one player to be owed,
-- with the terms and inputs that it follows from.
SELECT
    item.adj,
    item.amount_minor,
    item.basis_minor,
    item.capped_minor,
    item.currency,
    coalesce(CASE WHEN item.voided_at IS NULL THEN item.delivery ELSE 'void' END, '')::text AS delivery,
    item.disposition,
    item.entitled_minor,
    coalesce(item.failure_code, '')::text AS failure_code,
    item.gross_minor,
    item.inputs,
    item.rate_ppm,
    coalesce(item.reason, '')::text AS reason,
    (CASE WHEN item.disposition = 'eligible' THEN settlement_reference(programme.code, period.key, player.code, item.currency, item.adj) ELSE '' END)::text AS reference,
    item.run_id,
    item.tier_from,
    item.tier_value,
    version.rules,
    version.version
FROM settlement_item AS item
JOIN settlement_run AS run ON run.id = item.run_id
JOIN settlement_period AS period ON period.id = item.period_id
JOIN programme ON programme.id = period.programme_id
JOIN programme_version AS version ON version.id = run.version_id
JOIN player ON player.id = item.player_id
WHERE programme.code = @code
    AND period.key = @key
    AND player.code = @player
ORDER BY item.run_id;
