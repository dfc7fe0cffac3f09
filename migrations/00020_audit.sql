-- Why:   the laws of the books, one view each, for psql, the CLI and the tests.
-- Locks: none; new views.
-- Undo:  drops them.

-- A view joins loosely on purpose: what has lost its other half is a finding, and
-- must not drop out of the join. Each reads its tables once and hashes, so that
-- millions of rows take seconds rather than a lookup each.

-- +goose Up
CREATE VIEW audit_ledger_balanced AS
SELECT subject, detail
FROM (
    SELECT
        coalesce('ledger transaction ' || txn.id || ' (' || txn.reference || ')', 'ledger transaction ' || total.txn_id)::text AS subject,
        concat_ws('; ',
            CASE WHEN txn.id IS NULL THEN 'has entries, but does not exist' END,
            CASE WHEN total.txn_id IS NULL THEN 'has no entries' END,
            CASE WHEN total.txn_id IS NOT NULL AND total.currency IS NULL THEN 'has entries of an account that does not exist' END,
            CASE WHEN total.sum_minor <> 0 THEN format('entries sum to %s %s, not 0', total.sum_minor, total.currency) END
        )::text AS detail
    FROM ledger_txn AS txn
    FULL JOIN (
        SELECT entry.txn_id, account.currency, sum(entry.amount_minor) AS sum_minor
        FROM ledger_entry AS entry
        LEFT JOIN ledger_account AS account ON account.id = entry.account_id
        GROUP BY entry.txn_id, account.currency
    ) AS total ON total.txn_id = txn.id
) AS checked
WHERE detail <> '';
COMMENT ON VIEW audit_ledger_balanced IS 'Every ledger transaction has entries, of accounts that exist, and they sum to zero in each currency.';

CREATE VIEW audit_wallet_balanced AS
SELECT subject, detail
FROM (
    SELECT
        coalesce('wallet of account ' || wallet.account_id, 'account ' || account.id)::text AS subject,
        concat_ws('; ',
            CASE WHEN wallet.account_id IS NULL THEN 'is a player''s and has no wallet' END,
            CASE WHEN account.id IS NULL THEN 'is on no player''s account' END,
            CASE WHEN wallet.currency <> account.currency THEN format('currency is %s, its account''s is %s', wallet.currency, account.currency) END,
            CASE WHEN wallet.player_id <> account.player_id THEN format('player is %s, its account''s is %s', wallet.player_id, account.player_id) END,
            CASE WHEN wallet.balance_minor <> coalesce(booked.sum_minor, 0) THEN format('balance is %s, its entries sum to %s', wallet.balance_minor, coalesce(booked.sum_minor, 0)) END,
            CASE WHEN wallet.version <> coalesce(booked.num_entries, 0) THEN format('version is %s, it has %s entries', wallet.version, coalesce(booked.num_entries, 0)) END
        )::text AS detail
    FROM wallet
    FULL JOIN (SELECT id, currency, player_id FROM ledger_account WHERE kind = 'player') AS account ON account.id = wallet.account_id
    LEFT JOIN (
        SELECT entry.account_id, count(*) AS num_entries, sum(entry.amount_minor) AS sum_minor
        FROM ledger_entry AS entry
        GROUP BY entry.account_id
    ) AS booked ON booked.account_id = wallet.account_id
) AS checked
WHERE detail <> '';
COMMENT ON VIEW audit_wallet_balanced IS 'Every player''s account has a wallet, whose balance is the sum of the account''s entries and whose version is their number.';

CREATE VIEW audit_wallet_floor AS
SELECT
    ('wallet of account ' || wallet.account_id)::text AS subject,
    format('balance %s is below the floor %s', wallet.balance_minor, wallet.floor_minor)::text AS detail
FROM wallet
WHERE wallet.balance_minor < wallet.floor_minor;
COMMENT ON VIEW audit_wallet_floor IS 'No wallet is below its floor.';

CREATE VIEW audit_settlement_origin AS
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

CREATE VIEW audit_settlement_entitled_once AS
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

CREATE VIEW audit_settlement_basis AS
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

CREATE VIEW audit_settlement_amount AS
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

CREATE VIEW audit_settlement_reason AS
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

CREATE VIEW audit_settlement_totals AS
SELECT
    coalesce(credited.currency, booked.currency)::text AS subject,
    format('credited items are %s, promotions gave %s, wallets received %s', coalesce(credited.sum_minor, 0), coalesce(booked.given_minor, 0), coalesce(booked.received_minor, 0))::text AS detail
FROM (
    SELECT item.currency, sum(item.amount_minor) AS sum_minor
    FROM settlement_item AS item
    WHERE item.delivery = 'credited'
    GROUP BY item.currency
) AS credited
FULL JOIN (
    SELECT
        account.currency,
        -sum(entry.amount_minor) FILTER (WHERE account.kind = 'promotion') AS given_minor,
        sum(entry.amount_minor) FILTER (WHERE account.kind = 'player') AS received_minor
    FROM ledger_txn AS txn
    JOIN ledger_entry AS entry ON entry.txn_id = txn.id
    JOIN ledger_account AS account ON account.id = entry.account_id
    WHERE starts_with(txn.reference, 'settle/')
    GROUP BY account.currency
) AS booked ON booked.currency = credited.currency
WHERE coalesce(credited.sum_minor, 0) <> coalesce(booked.given_minor, 0)
    OR coalesce(credited.sum_minor, 0) <> coalesce(booked.received_minor, 0);
COMMENT ON VIEW audit_settlement_totals IS 'In each currency, the credited items, what settlements took from promotions, and what wallets received of it are the same sum.';

CREATE VIEW audit_settlement_reference AS
SELECT subject, detail
FROM (
    SELECT
        coalesce(credited.reference, booked.reference)::text AS subject,
        CASE
            WHEN booked.txn_id IS NULL THEN format('run %s credited it, but it is not booked', credited.run_id)
            WHEN credited.reference IS NULL THEN format('ledger transaction %s has no credited item', booked.txn_id)
            WHEN booked.kind <> 'credit' THEN format('ledger transaction %s is a %s', booked.txn_id, booked.kind)
            WHEN row(booked.num_entries, booked.num_currencies, booked.currency, booked.player, booked.received_minor, booked.given_minor)
                IS DISTINCT FROM row(2, 1, credited.currency, credited.player, credited.amount, credited.amount)
            THEN format('run %s credited %s %s, ledger transaction %s books %s %s for player %s and %s from promotions, with %s entries',
                credited.run_id, credited.amount, credited.currency, booked.txn_id, coalesce(booked.received_minor, 0), booked.currency,
                coalesce(booked.player, 'none'), coalesce(booked.given_minor, 0), booked.num_entries)
            ELSE ''
        END::text AS detail
    FROM (SELECT * FROM settlement_credits WHERE delivery = 'credited') AS credited
    FULL JOIN (
        SELECT
            txn.id AS txn_id,
            txn.kind,
            txn.reference,
            max(account.currency) AS currency,
            -sum(entry.amount_minor) FILTER (WHERE account.kind = 'promotion') AS given_minor,
            count(DISTINCT account.currency) AS num_currencies,
            count(entry.txn_id) AS num_entries,
            max(player.code) AS player,
            sum(entry.amount_minor) FILTER (WHERE account.kind = 'player') AS received_minor
        FROM ledger_txn AS txn
        LEFT JOIN ledger_entry AS entry ON entry.txn_id = txn.id
        LEFT JOIN ledger_account AS account ON account.id = entry.account_id
        LEFT JOIN player ON player.id = account.player_id
        WHERE starts_with(txn.reference, 'settle/')
        GROUP BY txn.id
    ) AS booked ON booked.reference = credited.reference
) AS checked
WHERE detail <> '';
COMMENT ON VIEW audit_settlement_reference IS 'Each credited item has one credit in the ledger under its reference, of its amount and for its player, and nothing else is booked under such a reference.';

CREATE VIEW audit_settlement_event AS
SELECT subject, detail
FROM (
    SELECT
        coalesce(credited.reference, told.reference)::text AS subject,
        CASE
            WHEN told.reference IS NULL THEN format('run %s credited it, but no event tells of it', credited.run_id)
            WHEN credited.reference IS NULL THEN format('event %s has no credited item', told.first_id)
            WHEN told.num_events > 1 THEN format('has %s events', told.num_events)
            WHEN row(told.key, told.player, told.currency, told.amount)
                IS DISTINCT FROM row(credited.player || '/' || credited.currency, credited.player, credited.currency, credited.amount::text)
            THEN format('run %s credited %s %s, event %s of key %s tells that player %s got %s %s', credited.run_id, credited.amount, credited.currency,
                told.first_id, told.key, coalesce(told.player, 'none'), coalesce(told.amount, 'nothing'), coalesce(told.currency, 'of no currency'))
            ELSE ''
        END::text AS detail
    FROM (SELECT * FROM settlement_credits WHERE delivery = 'credited') AS credited
    FULL JOIN (
        SELECT
            event.payload ->> 'reference' AS reference,
            min(event.payload ->> 'amount') AS amount,
            min(event.payload ->> 'currency') AS currency,
            min(event.id) AS first_id,
            min(event.key) AS key,
            count(*) AS num_events,
            min(event.payload ->> 'player') AS player
        FROM outbox_event AS event
        WHERE event.stream = 'wallet'
            AND event.type = 'wallet.credited.v1'
            AND starts_with(event.payload ->> 'reference', 'settle/')
        GROUP BY event.payload ->> 'reference'
    ) AS told ON told.reference = credited.reference
) AS checked
WHERE detail <> '';
COMMENT ON VIEW audit_settlement_event IS 'Each credited item has one wallet.credited.v1 event with its reference and amount, under its player''s key, and no settlement''s event tells of anything else.';

CREATE VIEW audit_settlement_attempt AS
SELECT subject, detail
FROM (
    SELECT
        coalesce('run ' || item.run_id || ', item ' || item.id, 'item ' || tried.item_id)::text AS subject,
        CASE
            WHEN item.id IS NULL THEN 'has attempts, but does not exist'
            ELSE concat_ws('; ',
                CASE WHEN item.attempts <> coalesce(tried.num_attempts, 0) THEN format('attempts is %s, %s are recorded', item.attempts, coalesce(tried.num_attempts, 0)) END,
                CASE
                    WHEN coalesce(tried.num_credited, 0) <> CASE WHEN item.delivery = 'credited' THEN 1 ELSE 0 END
                    THEN format('delivery is %s, %s attempts credited it', coalesce(item.delivery, 'none'), coalesce(tried.num_credited, 0))
                END
            )
        END::text AS detail
    FROM settlement_item AS item
    FULL JOIN (
        SELECT
            attempt.item_id,
            count(*) AS num_attempts,
            count(*) FILTER (WHERE attempt.result = 'credited') AS num_credited
        FROM settlement_attempt AS attempt
        GROUP BY attempt.item_id
    ) AS tried ON tried.item_id = item.id
) AS checked
WHERE detail <> '';
COMMENT ON VIEW audit_settlement_attempt IS 'Every item counts its recorded attempts; just one of them credited it if it is credited, and none if it is not.';

CREATE VIEW audit_settlement_outcome AS
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

CREATE VIEW audit_settlement_job_end AS
SELECT subject, detail
FROM (
    SELECT
        ('run ' || ended.id)::text AS subject,
        concat_ws('; ',
            CASE WHEN ended.job_end <> ended.due_end THEN format('its job ended as %s, but it is %s', ended.job_end, ended.verdict) END,
            CASE WHEN ended.job_end <> ended.river_end THEN format('its job ended as %s, but job %s is %s', ended.job_end, ended.job_id, ended.river_state) END,
            CASE WHEN ended.river_end <> ended.due_end AND (ended.river_end = 'completed' OR ended.job_end IS NOT NULL) THEN format('job %s is %s, but it is %s', ended.job_id, ended.river_state, ended.verdict) END
        )::text AS detail
    FROM (
        SELECT
            run.id,
            CASE
                WHEN run.outcome = 'none_delivered' OR run.abort_reason IN ('inputs_deadline', 'invariant') THEN 'failed'
                WHEN run.outcome <> 'partial' OR run.abort_reason IS NOT NULL THEN 'completed'
            END AS due_end,
            run.job_end,
            run.job_id,
            CASE job.state WHEN 'completed' THEN 'completed' WHEN 'cancelled' THEN 'failed' WHEN 'discarded' THEN 'failed' END AS river_end,
            job.state::text AS river_state,
            coalesce(run.outcome, run.state || ' for ' || run.abort_reason) AS verdict
        FROM settlement_run AS run
        LEFT JOIN river_job AS job ON job.id = run.job_id
        WHERE run.state IN ('done', 'aborted')
    ) AS ended
) AS checked
WHERE detail <> '';
COMMENT ON VIEW audit_settlement_job_end IS 'How a run''s job ended, by the run''s own record and by River''s as long as it keeps that, agrees with what became of the run: never completed with nothing delivered, never failed with everything. A job that died is no contradiction when no job ended the run.';

CREATE VIEW audit_findings AS
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
UNION ALL SELECT 'audit_settlement_job_end', subject, detail FROM audit_settlement_job_end;
COMMENT ON VIEW audit_findings IS 'What breaks the laws of the books: the view of the law, what is wrong, and how. Empty when all is well. Reads whole tables, the ledger among them.';

-- +goose Down
DROP VIEW audit_findings;
DROP VIEW audit_settlement_job_end;
DROP VIEW audit_settlement_outcome;
DROP VIEW audit_settlement_attempt;
DROP VIEW audit_settlement_event;
DROP VIEW audit_settlement_reference;
DROP VIEW audit_settlement_totals;
DROP VIEW audit_settlement_reason;
DROP VIEW audit_settlement_amount;
DROP VIEW audit_settlement_basis;
DROP VIEW audit_settlement_entitled_once;
DROP VIEW audit_settlement_origin;
DROP VIEW audit_wallet_floor;
DROP VIEW audit_wallet_balanced;
DROP VIEW audit_ledger_balanced;
