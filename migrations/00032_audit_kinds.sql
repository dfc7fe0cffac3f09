-- Why:   the audit works out again what is owed under every kind, basis and shape of
--        terms, not of a cashback of games by slabs alone.
-- Locks: ACCESS EXCLUSIVE on three views for an instant; no table is locked.
-- Undo:  puts back the views that know one basis and one shape. Items of others are
--        then findings.

-- +goose Up
CREATE OR REPLACE VIEW audit_settlement_basis AS
SELECT subject, detail
FROM (
    SELECT
        ('run ' || item.run_id || ', item ' || item.id)::text AS subject,
        CASE
            WHEN NOT terms.is_known THEN format('terms are a %s of basis %s, which this audit does not know', coalesce(terms.kind, 'kind of none'), coalesce(terms.basis, 'none'))
            WHEN lacking.parts <> '' THEN 'inputs lack ' || lacking.parts
            -- In millionths, where there is nothing to round. What makes nothing is
            -- distinct from every basis.
            WHEN item.basis_minor * 1000000 IS DISTINCT FROM due.micro
            THEN format('basis is %s, its inputs make %s millionths', item.basis_minor, coalesce(due.micro::text, 'no'))
            ELSE ''
        END::text AS detail
    FROM settlement_item AS item
    JOIN settlement_run AS run ON run.id = item.run_id
    JOIN programme_version AS version ON version.id = run.version_id
    CROSS JOIN LATERAL (
        SELECT
            version.rules ->> 'basis' AS basis,
            coalesce((version.rules ->> 'kind') || '/' || (version.rules ->> 'basis') IN (
                'cashback/cash', 'cashback/game', 'lossback/game', 'rebate/risk', 'rebate/stake'
            ), false) AS is_known,
            version.rules ->> 'kind' AS kind
    ) AS terms
    CROSS JOIN LATERAL (
        SELECT
            coalesce(bool_or(part.counted_minor IS NULL OR part.category IS NULL), false) AS lacks_amounts,
            coalesce(sum(part.counted_minor * part.weight_ppm), 0) AS weighed_micro
        FROM (
            SELECT
                category.doc ->> 'category' AS category,
                CASE terms.basis
                    WHEN 'risk' THEN (category.doc ->> 'risk')::numeric
                    WHEN 'stake' THEN (category.doc ->> 'stake')::numeric
                    ELSE (category.doc ->> 'stake')::numeric - (category.doc ->> 'payout')::numeric
                END AS counted_minor,
                CASE
                    WHEN jsonb_typeof(version.rules -> 'categories') = 'object'
                    THEN coalesce(version.rules -> 'categories' ->> (category.doc ->> 'category'), version.rules ->> 'default_weight_ppm', '0')::numeric
                    ELSE 1000000
                END AS weight_ppm
            FROM jsonb_array_elements(CASE WHEN jsonb_typeof(item.inputs -> 'categories') = 'array' THEN item.inputs -> 'categories' END) AS category (doc)
        ) AS part
    ) AS game
    CROSS JOIN LATERAL (
        SELECT
            -- NULL if any of the four is missing.
            ((item.inputs -> 'cash' ->> 'opening')::numeric + (item.inputs -> 'cash' ->> 'deposits')::numeric
                - (item.inputs -> 'cash' ->> 'withdrawals')::numeric - (item.inputs -> 'cash' ->> 'closing')::numeric) * 1000000 AS cash_micro,
            (item.inputs -> 'first_deposit' ->> 'amount')::numeric * 1000000 AS first_deposit_micro,
            game.weighed_micro - CASE WHEN (version.rules ->> 'less_promotions')::boolean THEN (item.inputs ->> 'promotions')::numeric * 1000000 ELSE 0 END AS net_micro
    ) AS made
    CROSS JOIN LATERAL (
        SELECT concat_ws(', ',
            CASE WHEN terms.basis <> 'cash' AND (jsonb_typeof(item.inputs -> 'categories') IS DISTINCT FROM 'array' OR game.lacks_amounts) THEN 'amounts of categories' END,
            CASE WHEN terms.basis = 'game' AND item.inputs ->> 'promotions' IS NULL THEN 'promotions' END,
            CASE WHEN terms.basis = 'cash' AND made.cash_micro IS NULL THEN 'cash' END,
            CASE WHEN terms.kind = 'lossback' AND coalesce(made.first_deposit_micro, 0) <= 0 THEN 'a first deposit' END
        ) AS parts
    ) AS lacking
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN terms.basis = 'cash' THEN made.cash_micro
            WHEN terms.kind = 'lossback' THEN greatest(least(made.first_deposit_micro, made.net_micro), 0)
            WHEN terms.kind = 'rebate' THEN game.weighed_micro
            ELSE made.net_micro
        END AS micro
    ) AS due
) AS checked
WHERE detail <> '';
COMMENT ON VIEW audit_settlement_basis IS 'Every item''s basis is what its stored inputs make under the kind, the basis and the weights of its terms.';

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

-- +goose Down
CREATE OR REPLACE VIEW audit_settlement_basis AS
SELECT subject, detail
FROM (
    SELECT
        ('run ' || item.run_id || ', item ' || item.id)::text AS subject,
        CASE
            WHEN version.rules ->> 'basis' IS DISTINCT FROM 'game' THEN format('terms are of basis %s, which this audit does not know', coalesce(version.rules ->> 'basis', 'none'))
            WHEN jsonb_typeof(item.inputs -> 'categories') IS DISTINCT FROM 'array' OR game.lacks_amounts OR item.inputs ->> 'promotions' IS NULL THEN 'inputs lack amounts'
            -- In millionths, where there is nothing to round.
            WHEN item.basis_minor * 1000000 <> game.net_micro - deducted.micro
            THEN format('basis is %s, its inputs make %s millionths', item.basis_minor, game.net_micro - deducted.micro)
            ELSE ''
        END::text AS detail
    FROM settlement_item AS item
    JOIN settlement_run AS run ON run.id = item.run_id
    JOIN programme_version AS version ON version.id = run.version_id
    CROSS JOIN LATERAL (
        SELECT
            coalesce(bool_or(part.net_minor IS NULL), false) AS lacks_amounts,
            coalesce(sum(part.net_minor * part.weight_ppm), 0) AS net_micro
        FROM (
            SELECT
                (category.doc ->> 'stake')::numeric - (category.doc ->> 'payout')::numeric AS net_minor,
                CASE
                    WHEN jsonb_typeof(version.rules -> 'categories') = 'object'
                    THEN coalesce(version.rules -> 'categories' ->> (category.doc ->> 'category'), version.rules ->> 'default_weight_ppm', '0')::numeric
                    ELSE 1000000
                END AS weight_ppm
            FROM jsonb_array_elements(CASE WHEN jsonb_typeof(item.inputs -> 'categories') = 'array' THEN item.inputs -> 'categories' END) AS category (doc)
        ) AS part
    ) AS game
    CROSS JOIN LATERAL (
        SELECT CASE WHEN (version.rules ->> 'less_promotions')::boolean THEN (item.inputs ->> 'promotions')::numeric * 1000000 ELSE 0 END AS micro
    ) AS deducted
) AS checked
WHERE detail <> '';
COMMENT ON VIEW audit_settlement_basis IS 'Every item''s basis is what its stored inputs and the weights of its terms make.';

CREATE OR REPLACE VIEW audit_settlement_amount AS
WITH band AS (
    SELECT
        version.id AS version_id,
        (tier.doc ->> 'from')::bigint AS from_value,
        lead((tier.doc ->> 'from')::bigint) OVER (PARTITION BY version.id ORDER BY (tier.doc ->> 'from')::bigint) AS until_value,
        (tier.doc ->> 'rate_ppm')::integer AS rate_ppm
    FROM programme_version AS version
    CROSS JOIN LATERAL jsonb_array_elements(CASE WHEN jsonb_typeof(version.rules -> 'tiers') = 'array' THEN version.rules -> 'tiers' END) AS tier (doc)
), judged AS (
    SELECT
        item.*,
        least(item.gross_minor, (version.rules ->> 'cap')::bigint) AS due_capped,
        div(greatest(item.basis_minor, 0) * item.rate_ppm, 1000000) AS due_gross,
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
        coalesce(version.rules ->> 'shape', 'none') AS shape
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
            CASE WHEN shape <> 'slab' THEN format('terms are of shape %s, which this audit does not know', shape) END,
            CASE WHEN tier_value IS DISTINCT FROM due_tier_value THEN format('tier value is %s, its terms make %s', tier_value, coalesce(due_tier_value::text, 'none')) END,
            CASE WHEN tier_from IS DISTINCT FROM due_tier_from THEN format('tier is %s, its tier value reaches %s', coalesce(tier_from::text, 'none'), coalesce(due_tier_from::text, 'none')) END,
            CASE WHEN rate_ppm <> due_rate THEN format('rate is %s, its tier makes %s', rate_ppm, due_rate) END,
            CASE WHEN gross_minor <> due_gross THEN format('gross is %s, its basis and rate make %s', gross_minor, due_gross) END,
            CASE WHEN capped_minor <> due_capped THEN format('capped is %s, its gross and the cap make %s', capped_minor, due_capped) END,
            CASE
                WHEN disposition = 'excluded' AND amount_minor <> 0 THEN format('amount is %s, but it is excluded', amount_minor)
                WHEN disposition <> 'excluded' AND amount_minor <> capped_minor - entitled_minor THEN format('amount is %s, what is capped makes %s', amount_minor, capped_minor - entitled_minor)
            END
        )::text AS detail
    FROM judged
) AS checked
WHERE detail <> '';
COMMENT ON VIEW audit_settlement_amount IS 'Every item''s tier, rate, gross, capped and paid amounts follow from its stored basis and its terms.';

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
            WHEN item.basis_minor <= 0 THEN 'winner'
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
COMMENT ON VIEW audit_settlement_reason IS 'Every item is excluded for the first reason that applies to it, and eligible if none does.';
