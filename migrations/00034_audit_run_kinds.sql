-- Why:   the audit knows retries and adjustments, and budgets.
-- Locks: ACCESS EXCLUSIVE on six views for an instant; no table is locked.
-- Undo:  puts back the views that know regular runs alone.

-- +goose Up
CREATE OR REPLACE VIEW audit_settlement_origin AS
SELECT subject, detail
FROM (
    SELECT
        ('run ' || item.run_id || ', item ' || item.id)::text AS subject,
        concat_ws('; ',
            CASE WHEN run.id IS NULL THEN 'its run does not exist' END,
            CASE WHEN item.period_id <> run.period_id THEN format('period is %s, its run''s is %s', item.period_id, run.period_id) END,
            CASE WHEN item.currency <> run.currency THEN format('currency is %s, its run''s is %s', item.currency, run.currency) END,
            CASE WHEN item.adj <> 0 AND run.kind = 'regular' THEN format('adj is %s, a regular run''s is 0', item.adj) END,
            CASE WHEN run.kind = 'retry' THEN 'is a retry''s, which has no items of its own' END,
            CASE WHEN player.id IS NULL THEN format('its player %s does not exist', item.player_id) END,
            CASE WHEN item.currency <> player.currency THEN format('currency is %s, its player''s is %s', item.currency, player.currency) END
        )::text AS detail
    FROM settlement_item AS item
    LEFT JOIN settlement_run AS run ON run.id = item.run_id
    LEFT JOIN player ON player.id = item.player_id
    UNION ALL
    SELECT
        ('run ' || run.id)::text,
        concat_ws('; ',
            CASE WHEN parent.parent_id IS NOT NULL THEN 'is the retry of a retry' END,
            CASE
                WHEN row(parent.period_id, parent.version_id) IS DISTINCT FROM row(run.period_id, run.version_id) AND run.parent_id IS NOT NULL
                THEN 'is of another period or other terms than the run that it retries'
            END,
            CASE WHEN programme.id IS NULL THEN 'its period or programme does not exist' END,
            CASE WHEN run.currency <> programme.currency THEN format('currency is %s, its programme''s is %s', run.currency, programme.currency) END,
            CASE WHEN version.programme_id IS DISTINCT FROM programme.id THEN 'its terms are not a version of its programme' END,
            CASE WHEN version.id IS NOT NULL AND version.approved_at IS NULL THEN 'nobody approved its terms' END,
            CASE WHEN budget.programme_id <> programme.id THEN 'the terms whose budget had room for it are not a version of its programme' END,
            CASE WHEN coalesce(budget.approved_at, 'infinity') > run.approved_at AND budget.id IS NOT NULL THEN 'was approved before the terms whose budget had room for it' END,
            CASE
                WHEN budget.effective_from > (period.starts_at AT TIME ZONE programme.time_zone)::date
                THEN 'its period starts before the terms are effective whose budget had room for it'
            END
        )::text
    FROM settlement_run AS run
    LEFT JOIN programme_version AS budget ON budget.id = run.budget_version_id
    LEFT JOIN settlement_run AS parent ON parent.id = run.parent_id
    LEFT JOIN settlement_period AS period ON period.id = run.period_id
    LEFT JOIN programme ON programme.id = period.programme_id
    LEFT JOIN programme_version AS version ON version.id = run.version_id
) AS checked
WHERE detail <> '';
COMMENT ON VIEW audit_settlement_origin IS 'Every item is of its run''s period and currency and of a player who has that currency, every run applies approved terms of its programme and was approved under the budget of such terms, and a retry has no items but its parent''s.';

CREATE OR REPLACE VIEW audit_settlement_amount AS
WITH tier AS (
    SELECT
        version.id AS version_id,
        (tier.doc ->> 'from')::bigint AS from_value,
        lead((tier.doc ->> 'from')::bigint) OVER (PARTITION BY version.id ORDER BY (tier.doc ->> 'from')::bigint) AS until_value,
        (tier.doc ->> 'rate_ppm')::integer AS rate_ppm
    FROM programme_version AS version
    CROSS JOIN LATERAL jsonb_array_elements(CASE WHEN jsonb_typeof(version.rules -> 'tiers') = 'array' THEN version.rules -> 'tiers' END) AS tier (doc)
), band AS (
    SELECT
        tier.*,
        -- What the bands below make in full, exact.
        coalesce(sum((tier.until_value::numeric - tier.from_value) * tier.rate_ppm) OVER (
            PARTITION BY tier.version_id ORDER BY tier.from_value ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ), 0) AS below_micro
    FROM tier
), judged AS (
    SELECT
        item.*,
        least(item.gross_minor, (version.rules ->> 'cap')::bigint) AS due_capped,
        CASE
            WHEN version.rules ->> 'shape' IS DISTINCT FROM 'graduated' THEN div(greatest(item.basis_minor, 0) * item.rate_ppm, 1000000)
            -- All bands together are rounded once.
            WHEN item.basis_minor > 0 THEN coalesce(div(band.below_micro + (item.basis_minor - band.from_value) * band.rate_ppm, 1000000), 0)
            ELSE 0
        END AS due_gross,
        CASE WHEN item.basis_minor > 0 THEN coalesce(band.rate_ppm, 0) ELSE 0 END AS due_rate,
        CASE WHEN item.basis_minor > 0 THEN band.from_value END AS due_tier_from,
        CASE version.rules ->> 'tier_by' WHEN 'basis' THEN floor(item.basis_minor) WHEN 'vip' THEN item.tier_value END AS due_tier_value,
        coalesce(before.least_minor, 0) AS least_entitled,
        coalesce(before.most_minor, 0) AS most_entitled,
        coalesce(before.num_claims, 0) AS num_claims,
        coalesce(version.rules ->> 'shape', 'none') AS shape,
        coalesce(version.rules ->> 'tier_by', 'none') AS tier_by
    FROM settlement_item AS item
    JOIN settlement_run AS run ON run.id = item.run_id
    JOIN programme_version AS version ON version.id = run.version_id
    -- What earlier runs had granted. Whether somebody from whom a credit was withheld
    -- since then counted at that moment, cannot be known any more.
    LEFT JOIN LATERAL (
        SELECT
            count(*) AS num_claims,
            sum(earlier.amount_minor) FILTER (WHERE earlier.delivery <> 'withheld') AS least_minor,
            sum(earlier.amount_minor) FILTER (WHERE earlier.delivery <> 'withheld' OR withheld.at > run.created_at) AS most_minor
        FROM settlement_item AS earlier
        LEFT JOIN settlement_attempt AS withheld ON withheld.item_id = earlier.id
            AND withheld.result = 'withheld'
        WHERE earlier.period_id = item.period_id
            AND earlier.player_id = item.player_id
            AND earlier.currency = item.currency
            AND earlier.run_id < item.run_id
            AND earlier.disposition = 'eligible'
            AND earlier.voided_at IS NULL
            -- Inside, so that the items of other runs need not be looked for.
            AND run.kind = 'adjustment'
    ) AS before ON true
    LEFT JOIN band ON band.version_id = version.id
        AND band.from_value <= item.tier_value
        AND (band.until_value IS NULL OR band.until_value > item.tier_value)
)
SELECT subject, detail
FROM (
    SELECT
        ('run ' || run_id || ', item ' || id)::text AS subject,
        concat_ws('; ',
            CASE WHEN shape NOT IN ('graduated', 'slab') THEN format('terms are of shape %s, which this audit does not know', shape) END,
            -- Bands are parts of the basis.
            CASE WHEN shape = 'graduated' AND tier_by <> 'basis' THEN format('terms are of shape graduated by %s, which this audit does not know', tier_by) END,
            CASE WHEN tier_value IS DISTINCT FROM due_tier_value THEN format('tier value is %s, its terms make %s', tier_value, coalesce(due_tier_value::text, 'none')) END,
            CASE WHEN tier_from IS DISTINCT FROM due_tier_from THEN format('tier is %s, its tier value reaches %s', coalesce(tier_from::text, 'none'), coalesce(due_tier_from::text, 'none')) END,
            CASE WHEN rate_ppm <> due_rate THEN format('rate is %s, its tier makes %s', rate_ppm, due_rate) END,
            CASE WHEN gross_minor <> due_gross THEN format('gross is %s, its basis and %s make %s', gross_minor, CASE shape WHEN 'graduated' THEN 'bands' ELSE 'rate' END, due_gross) END,
            CASE WHEN capped_minor <> due_capped THEN format('capped is %s, its gross and the cap make %s', capped_minor, due_capped) END,
            CASE WHEN entitled_minor NOT BETWEEN least_entitled AND most_entitled THEN format('entitled is %s, earlier items make %s', entitled_minor, least_entitled) END,
            CASE WHEN disposition <> 'excluded' AND voided_at IS NULL AND adj <> num_claims THEN format('adj is %s, it comes after %s claims', adj, num_claims) END,
            CASE
                WHEN disposition = 'excluded' AND amount_minor <> 0 THEN format('amount is %s, but it is excluded', amount_minor)
                WHEN disposition <> 'excluded' AND amount_minor <> capped_minor - entitled_minor THEN format('amount is %s, what is capped makes %s', amount_minor, capped_minor - entitled_minor)
            END
        )::text AS detail
    FROM judged
) AS checked
WHERE detail <> '';
COMMENT ON VIEW audit_settlement_amount IS 'Every item''s tier, rate, gross, capped and paid amounts follow from its stored basis and its terms, by slab or by band, less what earlier runs of its period had granted.';

CREATE OR REPLACE VIEW audit_settlement_reason AS
SELECT
    ('run ' || judged.run_id || ', item ' || judged.id)::text AS subject,
    format('reason is %s, it should be %s', coalesce(judged.reason, 'none'), coalesce(judged.due_reason, 'none'))::text AS detail
FROM (
    SELECT
        item.id,
        item.reason,
        item.run_id,
        CASE
            WHEN item.inputs ->> 'status' IS NULL THEN 'unknown without a status'
            WHEN item.inputs ->> 'status' IN ('self_excluded', 'closed') THEN item.inputs ->> 'status'
            WHEN item.basis_minor <= 0 THEN CASE version.rules ->> 'kind'
                WHEN 'rebate' THEN 'no_turnover'
                WHEN 'cashback' THEN 'winner'
                WHEN 'lossback' THEN 'winner'
                ELSE 'unknown of such a kind'
            END
            WHEN item.tier_from IS NULL THEN 'no_tier'
            WHEN item.capped_minor < greatest((version.rules ->> 'min_payout')::bigint, 1) THEN 'below_min'
            WHEN run.kind = 'adjustment' AND item.capped_minor <= item.entitled_minor THEN 'overpaid'
            -- What was on its way at that moment may have arrived since.
            WHEN item.reason IS NOT DISTINCT FROM 'earlier_undelivered' AND EXISTS (
                SELECT
                FROM settlement_item AS earlier
                WHERE earlier.period_id = item.period_id
                    AND earlier.player_id = item.player_id
                    AND earlier.currency = item.currency
                    AND earlier.run_id < item.run_id
                    AND earlier.disposition = 'eligible'
                    AND earlier.voided_at IS NULL
                    AND (earlier.credited_at IS NULL OR earlier.credited_at > run.created_at)
            ) THEN item.reason
        END AS due_reason
    FROM settlement_item AS item
    JOIN settlement_run AS run ON run.id = item.run_id
    JOIN programme_version AS version ON version.id = run.version_id
) AS judged
WHERE judged.reason IS DISTINCT FROM judged.due_reason;
COMMENT ON VIEW audit_settlement_reason IS 'Every item is excluded for the first reason of its kind of terms that applies to it, and eligible if none does.';

CREATE OR REPLACE VIEW audit_settlement_outcome AS
WITH tried AS (
    SELECT
        attempt.item_id,
        max(attempt.run_id) AS last_run_id,
        min(attempt.run_id) FILTER (WHERE attempt.result <> 'failed') AS settled_by
    FROM settlement_attempt AS attempt
    GROUP BY attempt.item_id
), concern AS (
    -- The items of a run as they stood at its end: a later retry found them failed.
    SELECT
        run.id AS run_id,
        item.id,
        item.amount_minor,
        CASE WHEN tried.last_run_id > run.id THEN 'failed' ELSE item.delivery END AS delivery,
        item.disposition,
        item.voided_at
    FROM settlement_run AS run
    JOIN settlement_item AS item ON item.run_id = coalesce(run.parent_id, run.id)
    LEFT JOIN tried ON tried.item_id = item.id
    WHERE run.parent_id IS NULL
        OR (item.disposition = 'eligible' AND (tried.settled_by IS NULL OR tried.settled_by >= run.id))
), counted AS (
    SELECT
        run.id AS run_id,
        coalesce(sum(item.amount_minor) FILTER (WHERE item.delivery = 'credited'), 0) AS credited_minor,
        coalesce(sum(item.amount_minor) FILTER (WHERE item.disposition = 'eligible'), 0) AS eligible_minor,
        coalesce(sum(item.amount_minor) FILTER (WHERE item.delivery = 'failed'), 0) AS failed_minor,
        count(*) FILTER (WHERE item.disposition = 'eligible' AND item.voided_at IS NULL) AS num_claims,
        count(*) FILTER (WHERE item.delivery = 'credited') AS num_credited,
        count(*) FILTER (WHERE item.disposition = 'eligible') AS num_eligible,
        count(*) FILTER (WHERE item.delivery = 'failed') AS num_failed,
        count(item.id) AS num_items,
        count(*) FILTER (WHERE item.delivery = 'pending') AS num_pending,
        count(item.voided_at) AS num_voided,
        count(*) FILTER (WHERE item.delivery = 'withheld') AS num_withheld
    FROM settlement_run AS run
    LEFT JOIN concern AS item ON item.run_id = run.id
    GROUP BY run.id
), judged AS (
    SELECT
        counted.*,
        run.parent_id,
        run.state,
        coalesce(run.outcome, 'none') AS outcome,
        run.started_at IS NOT NULL AND run.state IN ('delivering', 'done', 'aborted') AS has_delivered,
        run.calculated_at IS NOT NULL OR run.state = 'done' AS is_calculated,
        coalesce(run.inputs_at >= period.ends_at, false) AS is_proven,
        row(run.num_evaluated, run.num_eligible, run.num_excluded, run.eligible_minor::numeric) AS calculation,
        row(counted.num_items, counted.num_eligible, counted.num_items - counted.num_eligible, counted.eligible_minor) AS due_calculation,
        row(run.num_credited, run.credited_minor::numeric, run.num_failed, run.failed_minor::numeric, run.num_withheld, run.num_pending) AS delivery,
        row(counted.num_credited, counted.credited_minor, counted.num_failed, counted.failed_minor, counted.num_withheld, counted.num_pending) AS due_delivery,
        CASE
            WHEN run.state <> 'done' THEN 'none'
            WHEN counted.num_eligible = 0 THEN 'no_eligible'
            WHEN counted.num_eligible = counted.num_withheld THEN 'all_withheld'
            WHEN counted.num_credited = 0 THEN 'none_delivered'
            WHEN counted.num_eligible = counted.num_withheld + counted.num_credited THEN 'all_delivered'
            ELSE 'partial'
        END AS due_outcome
    FROM counted
    JOIN settlement_run AS run ON run.id = counted.run_id
    LEFT JOIN settlement_period AS period ON period.id = run.period_id
)
SELECT subject, detail
FROM (
    SELECT
        ('run ' || run_id)::text AS subject,
        concat_ws('; ',
            CASE WHEN is_calculated AND calculation IS DISTINCT FROM due_calculation THEN format('evaluated, eligible, excluded, eligible amount are %s, of its items %s', calculation, due_calculation) END,
            CASE WHEN state = 'done' AND delivery IS DISTINCT FROM due_delivery THEN format('credited, its amount, failed, its amount, withheld, pending are %s, of its items %s', delivery, due_delivery) END,
            CASE WHEN state = 'done' AND num_pending > 0 THEN format('is done with %s pending items', num_pending) END,
            CASE WHEN outcome <> due_outcome THEN format('state is %s and outcome %s, its items make it %s', state, outcome, due_outcome) END,
            CASE WHEN is_calculated AND NOT is_proven THEN 'no watermark proves that its inputs reach to the end of its period' END,
            CASE WHEN num_credited > 0 AND NOT has_delivered THEN format('%s items are credited, but its delivery never began', num_credited) END,
            CASE WHEN state = 'aborted' AND NOT has_delivered AND num_claims > 0 AND parent_id IS NULL THEN format('was aborted before its delivery, but %s items are not voided', num_claims) END,
            CASE WHEN num_voided > 0 AND (state <> 'aborted' OR num_credited > 0) THEN format('%s items are voided, but it is %s and %s are credited', num_voided, state, num_credited) END
        )::text AS detail
    FROM judged
) AS checked
WHERE detail <> '';
COMMENT ON VIEW audit_settlement_outcome IS 'A run''s counts, amounts and outcome are those of its items and rest on proven inputs; what it credited, it credited in its delivery, and what it voided, it never paid. A retry is measured by what its parent had left, and a parent by what it had delivered itself.';

CREATE OR REPLACE VIEW audit_settlement_entitled_once AS
SELECT
    concat_ws('/', programme.code, coalesce(period.key, claim.period_id::text), coalesce(player.code, claim.player_id::text), claim.currency)::text AS subject,
    concat_ws('; ',
        CASE WHEN claim.num_items > claim.num_adjs THEN format('%s eligible items for %s adj', claim.num_items, claim.num_adjs) END,
        CASE WHEN claim.num_undelivered > 1 THEN format('%s undelivered items', claim.num_undelivered) END
    )::text AS detail
FROM (
    SELECT
        item.period_id,
        item.player_id,
        item.currency,
        count(DISTINCT item.adj) AS num_adjs,
        count(*) AS num_items,
        count(*) FILTER (WHERE item.delivery IN ('pending', 'failed')) AS num_undelivered
    FROM settlement_item AS item
    WHERE item.disposition = 'eligible'
        AND item.voided_at IS NULL
    GROUP BY item.period_id, item.player_id, item.currency
    HAVING count(*) > count(DISTINCT item.adj)
        OR count(*) FILTER (WHERE item.delivery IN ('pending', 'failed')) > 1
) AS claim
LEFT JOIN settlement_period AS period ON period.id = claim.period_id
LEFT JOIN programme ON programme.id = period.programme_id
LEFT JOIN player ON player.id = claim.player_id
UNION ALL
SELECT
    concat_ws('/', claim.programme, coalesce(player.code, claim.player_id::text)),
    format('claims on %s periods of a programme that pays a player once', claim.num_periods)
FROM (
    SELECT
        programme.code AS programme,
        item.player_id,
        count(DISTINCT item.period_id) AS num_periods
    FROM programme
    JOIN settlement_period AS period ON period.programme_id = programme.id
    JOIN settlement_item AS item ON item.period_id = period.id
        AND item.disposition = 'eligible'
        AND item.voided_at IS NULL
    WHERE programme.kind = 'lossback'
    GROUP BY programme.id, item.player_id
    HAVING count(DISTINCT item.period_id) > 1
) AS claim
LEFT JOIN player ON player.id = claim.player_id;
COMMENT ON VIEW audit_settlement_entitled_once IS 'A player has one claim per period, currency and adj, and at most one of them is undelivered; of a lossback, claims on one period.';

CREATE VIEW audit_settlement_budget AS
WITH spent AS (
    SELECT
        run.id AS run_id,
        run.approved_at,
        period.programme_id,
        period.starts_at,
        coalesce(credited.sum_minor, 0) AS credited_minor,
        version.rules
    FROM settlement_run AS run
    JOIN settlement_period AS period ON period.id = run.period_id
    -- Before there were retries, that of its own terms was asked.
    JOIN programme_version AS version ON version.id = coalesce(run.budget_version_id, run.version_id)
    LEFT JOIN (
        SELECT attempt.run_id, sum(item.amount_minor) AS sum_minor
        FROM settlement_attempt AS attempt
        JOIN settlement_item AS item ON item.id = attempt.item_id
        WHERE attempt.result = 'credited'
        GROUP BY attempt.run_id
    ) AS credited ON credited.run_id = run.id
    WHERE run.approved_at IS NOT NULL
), limited AS (
    SELECT
        spent.*,
        spent.rules ->> 'time_zone' AS zone,
        CASE spent.rules -> 'budget' ->> 'window' WHEN 'daily' THEN 'day' WHEN 'weekly' THEN 'week' WHEN 'monthly' THEN 'month' END AS span,
        (spent.rules -> 'budget' ->> 'limit')::numeric AS limit_minor
    FROM spent
    WHERE jsonb_typeof(spent.rules -> 'budget') = 'object'
        AND spent.credited_minor > 0
)
SELECT
    ('run ' || limited.run_id)::text AS subject,
    CASE
        WHEN limited.span IS NULL THEN 'its terms have a budget whose window this audit does not know'
        ELSE format('it brought what was paid in the %s of its period to %s, its budget allows %s', limited.span, used.sum_minor, limited.limit_minor)
    END::text AS detail
FROM limited
LEFT JOIN (
    -- What each run brought its window to, those that were approved before it included.
    SELECT
        spent.run_id,
        shape.span,
        shape.zone,
        sum(spent.credited_minor) OVER (
            PARTITION BY shape.programme_id, shape.span, shape.zone, date_trunc(shape.span, spent.starts_at AT TIME ZONE shape.zone)
            ORDER BY spent.approved_at
        ) AS sum_minor
    FROM (SELECT DISTINCT programme_id, span, zone FROM limited WHERE span IS NOT NULL) AS shape
    JOIN spent ON spent.programme_id = shape.programme_id
) AS used ON used.run_id = limited.run_id
    AND used.span = limited.span
    AND used.zone = limited.zone
WHERE limited.span IS NULL
    OR used.sum_minor > limited.limit_minor;
COMMENT ON VIEW audit_settlement_budget IS 'No run brought what its programme paid in a window of its budget above the limit of the terms that it was approved under; the window is the one that holds the start of the run''s period.';

CREATE OR REPLACE VIEW audit_findings AS
SELECT 'audit_ledger_balanced'::text AS audit, subject, detail FROM audit_ledger_balanced
UNION ALL SELECT 'audit_wallet_balanced', subject, detail FROM audit_wallet_balanced
UNION ALL SELECT 'audit_wallet_floor', subject, detail FROM audit_wallet_floor
UNION ALL SELECT 'audit_settlement_origin', subject, detail FROM audit_settlement_origin
UNION ALL SELECT 'audit_settlement_entitled_once', subject, detail FROM audit_settlement_entitled_once
UNION ALL SELECT 'audit_settlement_basis', subject, detail FROM audit_settlement_basis
UNION ALL SELECT 'audit_settlement_amount', subject, detail FROM audit_settlement_amount
UNION ALL SELECT 'audit_settlement_reason', subject, detail FROM audit_settlement_reason
UNION ALL SELECT 'audit_settlement_totals', subject, detail FROM audit_settlement_totals
UNION ALL SELECT 'audit_settlement_reference', subject, detail FROM audit_settlement_reference
UNION ALL SELECT 'audit_settlement_event', subject, detail FROM audit_settlement_event
UNION ALL SELECT 'audit_settlement_attempt', subject, detail FROM audit_settlement_attempt
UNION ALL SELECT 'audit_settlement_outcome', subject, detail FROM audit_settlement_outcome
UNION ALL SELECT 'audit_settlement_job_end', subject, detail FROM audit_settlement_job_end
UNION ALL SELECT 'audit_settlement_budget', subject, detail FROM audit_settlement_budget
UNION ALL SELECT 'audit_outbox_delivery', subject, detail FROM audit_outbox_delivery;

-- +goose Down
CREATE OR REPLACE VIEW audit_findings AS
SELECT 'audit_ledger_balanced'::text AS audit, subject, detail FROM audit_ledger_balanced
UNION ALL SELECT 'audit_wallet_balanced', subject, detail FROM audit_wallet_balanced
UNION ALL SELECT 'audit_wallet_floor', subject, detail FROM audit_wallet_floor
UNION ALL SELECT 'audit_settlement_origin', subject, detail FROM audit_settlement_origin
UNION ALL SELECT 'audit_settlement_entitled_once', subject, detail FROM audit_settlement_entitled_once
UNION ALL SELECT 'audit_settlement_basis', subject, detail FROM audit_settlement_basis
UNION ALL SELECT 'audit_settlement_amount', subject, detail FROM audit_settlement_amount
UNION ALL SELECT 'audit_settlement_reason', subject, detail FROM audit_settlement_reason
UNION ALL SELECT 'audit_settlement_totals', subject, detail FROM audit_settlement_totals
UNION ALL SELECT 'audit_settlement_reference', subject, detail FROM audit_settlement_reference
UNION ALL SELECT 'audit_settlement_event', subject, detail FROM audit_settlement_event
UNION ALL SELECT 'audit_settlement_attempt', subject, detail FROM audit_settlement_attempt
UNION ALL SELECT 'audit_settlement_outcome', subject, detail FROM audit_settlement_outcome
UNION ALL SELECT 'audit_settlement_job_end', subject, detail FROM audit_settlement_job_end
UNION ALL SELECT 'audit_outbox_delivery', subject, detail FROM audit_outbox_delivery;
DROP VIEW audit_settlement_budget;

CREATE OR REPLACE VIEW audit_settlement_entitled_once AS
SELECT
    concat_ws('/', programme.code, coalesce(period.key, claim.period_id::text), coalesce(player.code, claim.player_id::text), claim.currency)::text AS subject,
    concat_ws('; ',
        CASE WHEN claim.num_items > claim.num_adjs THEN format('%s eligible items for %s adj', claim.num_items, claim.num_adjs) END,
        CASE WHEN claim.num_undelivered > 1 THEN format('%s undelivered items', claim.num_undelivered) END
    )::text AS detail
FROM (
    SELECT
        item.period_id,
        item.player_id,
        item.currency,
        count(DISTINCT item.adj) AS num_adjs,
        count(*) AS num_items,
        count(*) FILTER (WHERE item.delivery IN ('pending', 'failed')) AS num_undelivered
    FROM settlement_item AS item
    WHERE item.disposition = 'eligible'
        AND item.voided_at IS NULL
    GROUP BY item.period_id, item.player_id, item.currency
    HAVING count(*) > count(DISTINCT item.adj)
        OR count(*) FILTER (WHERE item.delivery IN ('pending', 'failed')) > 1
) AS claim
LEFT JOIN settlement_period AS period ON period.id = claim.period_id
LEFT JOIN programme ON programme.id = period.programme_id
LEFT JOIN player ON player.id = claim.player_id;
COMMENT ON VIEW audit_settlement_entitled_once IS 'A player has one claim per period, currency and adj, and at most one of them is undelivered.';

CREATE OR REPLACE VIEW audit_settlement_outcome AS
WITH counted AS (
    SELECT
        run.id AS run_id,
        coalesce(sum(item.amount_minor) FILTER (WHERE item.delivery = 'credited'), 0) AS credited_minor,
        coalesce(sum(item.amount_minor) FILTER (WHERE item.disposition = 'eligible'), 0) AS eligible_minor,
        coalesce(sum(item.amount_minor) FILTER (WHERE item.delivery = 'failed'), 0) AS failed_minor,
        count(*) FILTER (WHERE item.disposition = 'eligible' AND item.voided_at IS NULL) AS num_claims,
        count(*) FILTER (WHERE item.delivery = 'credited') AS num_credited,
        count(*) FILTER (WHERE item.disposition = 'eligible') AS num_eligible,
        count(*) FILTER (WHERE item.delivery = 'failed') AS num_failed,
        count(item.id) AS num_items,
        count(*) FILTER (WHERE item.delivery = 'pending') AS num_pending,
        count(item.voided_at) AS num_voided,
        count(*) FILTER (WHERE item.delivery = 'withheld') AS num_withheld
    FROM settlement_run AS run
    LEFT JOIN settlement_item AS item ON item.run_id = run.id
    GROUP BY run.id
), judged AS (
    SELECT
        counted.*,
        run.state,
        coalesce(run.outcome, 'none') AS outcome,
        run.started_at IS NOT NULL AND run.state IN ('delivering', 'done', 'aborted') AS has_delivered,
        run.calculated_at IS NOT NULL OR run.state = 'done' AS is_calculated,
        coalesce(run.inputs_at >= period.ends_at, false) AS is_proven,
        row(run.num_evaluated, run.num_eligible, run.num_excluded, run.eligible_minor::numeric) AS calculation,
        row(counted.num_items, counted.num_eligible, counted.num_items - counted.num_eligible, counted.eligible_minor) AS due_calculation,
        row(run.num_credited, run.credited_minor::numeric, run.num_failed, run.failed_minor::numeric, run.num_withheld, run.num_pending) AS delivery,
        row(counted.num_credited, counted.credited_minor, counted.num_failed, counted.failed_minor, counted.num_withheld, counted.num_pending) AS due_delivery,
        CASE
            WHEN run.state <> 'done' THEN 'none'
            WHEN counted.num_eligible = 0 THEN 'no_eligible'
            WHEN counted.num_eligible = counted.num_withheld THEN 'all_withheld'
            WHEN counted.num_credited = 0 THEN 'none_delivered'
            WHEN counted.num_eligible = counted.num_withheld + counted.num_credited THEN 'all_delivered'
            ELSE 'partial'
        END AS due_outcome
    FROM counted
    JOIN settlement_run AS run ON run.id = counted.run_id
    LEFT JOIN settlement_period AS period ON period.id = run.period_id
)
SELECT subject, detail
FROM (
    SELECT
        ('run ' || run_id)::text AS subject,
        concat_ws('; ',
            CASE WHEN is_calculated AND calculation IS DISTINCT FROM due_calculation THEN format('evaluated, eligible, excluded, eligible amount are %s, of its items %s', calculation, due_calculation) END,
            CASE WHEN state = 'done' AND delivery IS DISTINCT FROM due_delivery THEN format('credited, its amount, failed, its amount, withheld, pending are %s, of its items %s', delivery, due_delivery) END,
            CASE WHEN state = 'done' AND num_pending > 0 THEN format('is done with %s pending items', num_pending) END,
            CASE WHEN outcome <> due_outcome THEN format('state is %s and outcome %s, its items make it %s', state, outcome, due_outcome) END,
            CASE WHEN is_calculated AND NOT is_proven THEN 'no watermark proves that its inputs reach to the end of its period' END,
            CASE WHEN num_credited > 0 AND NOT has_delivered THEN format('%s items are credited, but its delivery never began', num_credited) END,
            CASE WHEN state = 'aborted' AND NOT has_delivered AND num_claims > 0 THEN format('was aborted before its delivery, but %s items are not voided', num_claims) END,
            CASE WHEN num_voided > 0 AND (state <> 'aborted' OR num_credited > 0) THEN format('%s items are voided, but it is %s and %s are credited', num_voided, state, num_credited) END
        )::text AS detail
    FROM judged
) AS checked
WHERE detail <> '';
COMMENT ON VIEW audit_settlement_outcome IS 'A run''s counts, amounts and outcome are those of its items and rest on proven inputs; what it credited, it credited in its delivery, and what it voided, it never paid.';

CREATE OR REPLACE VIEW audit_settlement_reason AS
SELECT
    ('run ' || judged.run_id || ', item ' || judged.id)::text AS subject,
    format('reason is %s, it should be %s', coalesce(judged.reason, 'none'), coalesce(judged.due_reason, 'none'))::text AS detail
FROM (
    SELECT
        item.id,
        item.reason,
        item.run_id,
        CASE
            WHEN item.inputs ->> 'status' IS NULL THEN 'unknown without a status'
            WHEN item.inputs ->> 'status' IN ('self_excluded', 'closed') THEN item.inputs ->> 'status'
            WHEN item.basis_minor <= 0 THEN CASE version.rules ->> 'kind'
                WHEN 'rebate' THEN 'no_turnover'
                WHEN 'cashback' THEN 'winner'
                WHEN 'lossback' THEN 'winner'
                ELSE 'unknown of such a kind'
            END
            WHEN item.tier_from IS NULL THEN 'no_tier'
            WHEN item.capped_minor < greatest((version.rules ->> 'min_payout')::bigint, 1) THEN 'below_min'
            -- What an adjustment refuses depends on what had been paid by then.
            WHEN item.adj > 0 AND item.reason IN ('overpaid', 'earlier_undelivered') THEN item.reason
        END AS due_reason
    FROM settlement_item AS item
    JOIN settlement_run AS run ON run.id = item.run_id
    JOIN programme_version AS version ON version.id = run.version_id
) AS judged
WHERE judged.reason IS DISTINCT FROM judged.due_reason;
COMMENT ON VIEW audit_settlement_reason IS 'Every item is excluded for the first reason of its kind of terms that applies to it, and eligible if none does.';

CREATE OR REPLACE VIEW audit_settlement_amount AS
WITH tier AS (
    SELECT
        version.id AS version_id,
        (tier.doc ->> 'from')::bigint AS from_value,
        lead((tier.doc ->> 'from')::bigint) OVER (PARTITION BY version.id ORDER BY (tier.doc ->> 'from')::bigint) AS until_value,
        (tier.doc ->> 'rate_ppm')::integer AS rate_ppm
    FROM programme_version AS version
    CROSS JOIN LATERAL jsonb_array_elements(CASE WHEN jsonb_typeof(version.rules -> 'tiers') = 'array' THEN version.rules -> 'tiers' END) AS tier (doc)
), band AS (
    SELECT
        tier.*,
        -- What the bands below make in full, exact.
        coalesce(sum((tier.until_value::numeric - tier.from_value) * tier.rate_ppm) OVER (
            PARTITION BY tier.version_id ORDER BY tier.from_value ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ), 0) AS below_micro
    FROM tier
), judged AS (
    SELECT
        -- By name: another column is dropped by the migration before.
        item.id,
        item.run_id,
        item.amount_minor,
        item.capped_minor,
        item.disposition,
        item.gross_minor,
        item.rate_ppm,
        item.tier_from,
        item.tier_value,
        least(item.gross_minor, (version.rules ->> 'cap')::bigint) AS due_capped,
        CASE
            WHEN version.rules ->> 'shape' IS DISTINCT FROM 'graduated' THEN div(greatest(item.basis_minor, 0) * item.rate_ppm, 1000000)
            -- All bands together are rounded once.
            WHEN item.basis_minor > 0 THEN coalesce(div(band.below_micro + (item.basis_minor - band.from_value) * band.rate_ppm, 1000000), 0)
            ELSE 0
        END AS due_gross,
        CASE WHEN item.basis_minor > 0 THEN coalesce(band.rate_ppm, 0) ELSE 0 END AS due_rate,
        CASE WHEN item.basis_minor > 0 THEN band.from_value END AS due_tier_from,
        CASE version.rules ->> 'tier_by' WHEN 'basis' THEN floor(item.basis_minor) WHEN 'vip' THEN item.tier_value END AS due_tier_value,
        -- An adjustment pays the difference to what the player was entitled to before.
        CASE WHEN item.adj > 0 THEN (
            SELECT coalesce(sum(earlier.amount_minor), 0)
            FROM settlement_item AS earlier
            WHERE earlier.period_id = item.period_id
                AND earlier.player_id = item.player_id
                AND earlier.currency = item.currency
                AND earlier.adj < item.adj
                AND earlier.disposition = 'eligible'
                AND earlier.voided_at IS NULL
                AND earlier.delivery <> 'withheld'
        ) ELSE 0 END AS entitled_minor,
        coalesce(version.rules ->> 'shape', 'none') AS shape,
        coalesce(version.rules ->> 'tier_by', 'none') AS tier_by
    FROM settlement_item AS item
    JOIN settlement_run AS run ON run.id = item.run_id
    JOIN programme_version AS version ON version.id = run.version_id
    LEFT JOIN band ON band.version_id = version.id
        AND band.from_value <= item.tier_value
        AND (band.until_value IS NULL OR band.until_value > item.tier_value)
)
SELECT subject, detail
FROM (
    SELECT
        ('run ' || run_id || ', item ' || id)::text AS subject,
        concat_ws('; ',
            CASE WHEN shape NOT IN ('graduated', 'slab') THEN format('terms are of shape %s, which this audit does not know', shape) END,
            -- Bands are parts of the basis.
            CASE WHEN shape = 'graduated' AND tier_by <> 'basis' THEN format('terms are of shape graduated by %s, which this audit does not know', tier_by) END,
            CASE WHEN tier_value IS DISTINCT FROM due_tier_value THEN format('tier value is %s, its terms make %s', tier_value, coalesce(due_tier_value::text, 'none')) END,
            CASE WHEN tier_from IS DISTINCT FROM due_tier_from THEN format('tier is %s, its tier value reaches %s', coalesce(tier_from::text, 'none'), coalesce(due_tier_from::text, 'none')) END,
            CASE WHEN rate_ppm <> due_rate THEN format('rate is %s, its tier makes %s', rate_ppm, due_rate) END,
            CASE WHEN gross_minor <> due_gross THEN format('gross is %s, its basis and %s make %s', gross_minor, CASE shape WHEN 'graduated' THEN 'bands' ELSE 'rate' END, due_gross) END,
            CASE WHEN capped_minor <> due_capped THEN format('capped is %s, its gross and the cap make %s', capped_minor, due_capped) END,
            CASE
                WHEN disposition = 'excluded' AND amount_minor <> 0 THEN format('amount is %s, but it is excluded', amount_minor)
                WHEN disposition <> 'excluded' AND amount_minor <> capped_minor - entitled_minor THEN format('amount is %s, what is capped makes %s', amount_minor, capped_minor - entitled_minor)
            END
        )::text AS detail
    FROM judged
) AS checked
WHERE detail <> '';
COMMENT ON VIEW audit_settlement_amount IS 'Every item''s tier, rate, gross, capped and paid amounts follow from its stored basis and its terms, by slab or by band.';

CREATE OR REPLACE VIEW audit_settlement_origin AS
SELECT subject, detail
FROM (
    SELECT
        ('run ' || item.run_id || ', item ' || item.id)::text AS subject,
        concat_ws('; ',
            CASE WHEN run.id IS NULL THEN 'its run does not exist' END,
            CASE WHEN item.period_id <> run.period_id THEN format('period is %s, its run''s is %s', item.period_id, run.period_id) END,
            CASE WHEN item.currency <> run.currency THEN format('currency is %s, its run''s is %s', item.currency, run.currency) END,
            CASE WHEN item.adj <> 0 AND run.kind = 'regular' THEN format('adj is %s, a regular run''s is 0', item.adj) END,
            CASE WHEN player.id IS NULL THEN format('its player %s does not exist', item.player_id) END,
            CASE WHEN item.currency <> player.currency THEN format('currency is %s, its player''s is %s', item.currency, player.currency) END
        )::text AS detail
    FROM settlement_item AS item
    LEFT JOIN settlement_run AS run ON run.id = item.run_id
    LEFT JOIN player ON player.id = item.player_id
    UNION ALL
    SELECT
        ('run ' || run.id)::text,
        concat_ws('; ',
            CASE WHEN programme.id IS NULL THEN 'its period or programme does not exist' END,
            CASE WHEN run.currency <> programme.currency THEN format('currency is %s, its programme''s is %s', run.currency, programme.currency) END,
            CASE WHEN version.programme_id IS DISTINCT FROM programme.id THEN 'its terms are not a version of its programme' END,
            CASE WHEN version.id IS NOT NULL AND version.approved_at IS NULL THEN 'nobody approved its terms' END
        )::text
    FROM settlement_run AS run
    LEFT JOIN settlement_period AS period ON period.id = run.period_id
    LEFT JOIN programme ON programme.id = period.programme_id
    LEFT JOIN programme_version AS version ON version.id = run.version_id
) AS checked
WHERE detail <> '';
COMMENT ON VIEW audit_settlement_origin IS 'Every item is of its run''s period and currency and of a player who has that currency, and every run applies approved terms of its programme.';
