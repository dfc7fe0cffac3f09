-- Why:   a chunk of credits, with all that belongs to each, is one call: built row by
--        row outside the database it took ten times as long. A run that meets nothing
--        but unexpected errors ends as systemic.
-- Locks: ACCESS EXCLUSIVE on settlement_run for an instant.
-- Undo:  drops the functions; fails while a run ended for the new reasons.

-- +goose Up
ALTER TABLE settlement_run DROP CONSTRAINT abort_has_a_reason;
ALTER TABLE settlement_run ADD CONSTRAINT abort_has_a_reason CHECK (
    (state = 'aborted') = (abort_reason IS NOT NULL)
    AND (abort_reason IS NULL OR abort_reason IN ('calculation', 'inputs_deadline', 'invariant', 'rejected', 'cancelled', 'systemic'))
);

-- +goose StatementBegin
CREATE FUNCTION settlement_claim(p_run_id bigint, p_after_player_id bigint, p_max integer, OUT item_ids bigint[], OUT player_ids bigint[])
LANGUAGE plpgsql STABLE
-- The items of a run are new to the planner's statistics: it would take them for few,
-- and read and sort all that are left for each chunk.
SET enable_bitmapscan = off
SET enable_seqscan = off
SET enable_sort = off
AS $$
BEGIN
    SELECT array_agg(next.id), array_agg(next.player_id)
    INTO item_ids, player_ids
    FROM (
        SELECT item.id, item.player_id
        FROM settlement_item AS item
        WHERE item.run_id = p_run_id
            AND item.player_id > p_after_player_id
            AND item.delivery IN ('pending', 'failed')
            AND item.voided_at IS NULL
        ORDER BY item.player_id
        LIMIT p_max
    ) AS next;
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION settlement_claim IS 'The next undelivered items of a run, in order of players. The caller holds the run''s lock, which keeps the items to it.';

-- +goose StatementBegin
CREATE FUNCTION settlement_credit_chunk(
    p_run_id bigint, p_attempt integer, p_job_id bigint, p_after_player_id bigint, p_max integer, p_skip_locked boolean
) RETURNS bigint[]
LANGUAGE plpgsql
-- Each row is found by its key.
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    booked_at timestamptz;
    claimed record;
    done record;
    event_at text;
    locked bigint[];
    num_claimed integer;
    settled record;
BEGIN
    SELECT run.currency, period.key, programme.code,
        (SELECT stream.num_shards FROM outbox_stream AS stream WHERE stream.stream = 'wallet') AS num_shards,
        (SELECT account.id FROM ledger_account AS account
            WHERE account.kind = 'promotion' AND account.currency = run.currency AND account.player_id IS NULL) AS promotion_id
    INTO settled
    FROM settlement_run AS run
    JOIN settlement_period AS period ON period.id = run.period_id
    JOIN programme ON programme.id = period.programme_id
    WHERE run.id = p_run_id;

    SELECT * INTO claimed FROM settlement_claim(p_run_id, p_after_player_id, p_max);
    num_claimed := coalesce(cardinality(claimed.item_ids), 0);
    IF num_claimed = 0 THEN
        RETURN ARRAY[0, 0, 0, p_after_player_id];
    END IF;

    -- In the order in which everybody locks wallets.
    IF p_skip_locked THEN
        SELECT array_agg(free.player_id) INTO locked
        FROM (
            SELECT wallet.player_id FROM wallet WHERE wallet.player_id = ANY (claimed.player_ids)
            ORDER BY wallet.account_id FOR NO KEY UPDATE SKIP LOCKED
        ) AS free;
    ELSE
        PERFORM FROM wallet WHERE wallet.player_id = ANY (claimed.player_ids)
        ORDER BY wallet.account_id FOR NO KEY UPDATE;
    END IF;
    booked_at := clock_timestamp();
    event_at := to_char(booked_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

    -- A statement of its own, so that it sees what was committed before the locks:
    -- whoever changes a player's status holds the wallet.
    WITH judged AS MATERIALIZED (
        SELECT
            item.id,
            item.adj,
            item.amount_minor,
            item.currency,
            player.code AS player,
            wallet.account_id,
            wallet.balance_minor,
            wallet.version,
            CASE
                WHEN player.status = 'self_excluded' THEN 'self_excluded'
                WHEN player.status <> 'active' THEN 'wallet_' || player.status
                WHEN wallet.currency IS DISTINCT FROM item.currency THEN 'wallet_missing'
                WHEN p_skip_locked AND NOT coalesce(item.player_id = ANY (locked), false) THEN 'wallet_locked'
                WHEN wallet.balance_minor > 9223372036854775807 - item.amount_minor THEN 'balance_too_large'
            END AS refusal
        FROM settlement_item AS item
        JOIN player ON player.id = item.player_id
        LEFT JOIN wallet ON wallet.player_id = item.player_id
        WHERE item.id = ANY (claimed.item_ids)
    ), credit AS MATERIALIZED (
        SELECT
            judged.*,
            nextval('ledger_txn_id_seq') AS txn_id,
            settlement_reference(settled.code, settled.key, judged.player, judged.currency, judged.adj) AS reference
        FROM judged
        WHERE judged.refusal IS NULL
    ), moved AS (
        UPDATE wallet
        SET balance_minor = wallet.balance_minor + credit.amount_minor, version = wallet.version + 1
        FROM credit
        WHERE wallet.account_id = credit.account_id AND wallet.version = credit.version
        RETURNING wallet.account_id
    ), txn AS (
        INSERT INTO ledger_txn (id, at, kind, reference)
        OVERRIDING SYSTEM VALUE
        SELECT credit.txn_id, booked_at, 'credit', credit.reference FROM credit
    ), entry AS (
        INSERT INTO ledger_entry (txn_id, account_id, amount_minor, at)
        SELECT
            credit.txn_id,
            unnest(ARRAY[credit.account_id, settled.promotion_id]),
            unnest(ARRAY[credit.amount_minor, -credit.amount_minor]),
            booked_at
        FROM credit
    ), marked AS (
        UPDATE settlement_item AS item
        SET attempts = item.attempts + 1, credited_at = clock_timestamp(), delivery = 'credited', failure_class = NULL, failure_code = NULL
        FROM credit
        WHERE item.id = credit.id AND item.delivery IN ('pending', 'failed')
        RETURNING item.amount_minor
    ), refused AS (
        UPDATE settlement_item AS item
        SET
            attempts = item.attempts + 1,
            -- By law, so it is no failure of ours, and nobody is to try again.
            delivery = CASE judged.refusal WHEN 'self_excluded' THEN 'withheld' ELSE 'failed' END,
            failure_class = CASE judged.refusal WHEN 'self_excluded' THEN NULL WHEN 'wallet_locked' THEN 'transient' ELSE 'permanent' END,
            failure_code = judged.refusal
        FROM judged
        WHERE item.id = judged.id AND judged.refusal IS NOT NULL
        RETURNING item.id
    ), attempted AS (
        INSERT INTO settlement_attempt (item_id, run_id, attempt, failure_class, failure_code, job_id, result)
        SELECT
            judged.id,
            p_run_id,
            p_attempt,
            CASE WHEN judged.refusal <> 'self_excluded' THEN CASE judged.refusal WHEN 'wallet_locked' THEN 'transient' ELSE 'permanent' END END,
            judged.refusal,
            p_job_id,
            CASE WHEN judged.refusal IS NULL THEN 'credited' WHEN judged.refusal = 'self_excluded' THEN 'withheld' ELSE 'failed' END
        FROM judged
    ), stored AS (
        -- As outbox_append_many does, without its arrays: they cost as much as the rows.
        INSERT INTO outbox_event (key, key_seq, payload, shard, stream, type)
        SELECT
            credit.player || '/' || credit.currency,
            credit.version + 1,
            jsonb_build_object(
                'amount', credit.amount_minor::text,
                'at', event_at,
                'balance', (credit.balance_minor + credit.amount_minor)::text,
                'currency', credit.currency,
                'player', credit.player,
                'reference', credit.reference
            ),
            outbox_shard_of(credit.player || '/' || credit.currency, settled.num_shards),
            'wallet',
            'wallet.credited.v1'
        FROM credit
        RETURNING id, created_at, key, shard, stream
    ), undelivered AS (
        INSERT INTO outbox_delivery (id, created_at, key, place, shard, stream)
        SELECT stored.id, stored.created_at, stored.key, stored.id, stored.shard, stored.stream FROM stored
    )
    SELECT
        (SELECT count(*) FROM moved) AS num_moved,
        (SELECT count(*) FROM marked) AS num_marked,
        (SELECT coalesce(sum(marked.amount_minor), 0) FROM marked) AS marked_minor,
        (SELECT count(*) FROM refused) AS num_refused,
        (SELECT array_agg(DISTINCT stored.shard) FROM stored) AS shards,
        count(*) AS num_credits,
        coalesce(sum(credit.amount_minor), 0)::bigint AS credited_minor
    INTO done
    FROM credit;

    IF done.num_moved <> done.num_credits OR done.num_marked <> done.num_credits OR done.marked_minor <> done.credited_minor
        OR done.num_credits + done.num_refused <> num_claimed THEN
        RAISE EXCEPTION 'of % claimed items % were credited with %, but % wallets were moved, % items marked with % and % refused',
            num_claimed, done.num_credits, done.credited_minor, done.num_moved, done.num_marked, done.marked_minor, done.num_refused
            USING ERRCODE = 'TG001';
    END IF;
    PERFORM outbox_wake(declared, woken.shard)
    FROM unnest(done.shards) AS woken (shard)
    CROSS JOIN outbox_stream AS declared
    WHERE declared.stream = 'wallet';
    UPDATE settlement_run SET cursor_player_id = claimed.player_ids[num_claimed] WHERE id = p_run_id;
    RETURN ARRAY[num_claimed, done.num_credits, done.credited_minor, claimed.player_ids[num_claimed]];
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION settlement_credit_chunk IS 'Credits the next undelivered items of a run, or says of each why not: wallets, ledger, events, items and attempts in the caller''s transaction, which holds the run''s lock. p_skip_locked refuses those whose wallets somebody has locked, for now, rather than waiting. Returns how many it claimed, how many it credited, their sum, and the last player. SQLSTATE TG001: what was booked is not what was marked.';

-- +goose StatementBegin
CREATE FUNCTION settlement_refuse_chunk(
    p_run_id bigint, p_attempt integer, p_job_id bigint, p_after_player_id bigint, p_max integer, p_class text, p_code text
) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    claimed record;
    num_claimed integer;
BEGIN
    SELECT * INTO claimed FROM settlement_claim(p_run_id, p_after_player_id, p_max);
    num_claimed := coalesce(cardinality(claimed.item_ids), 0);
    IF num_claimed = 0 THEN
        RETURN ARRAY[0, 0, 0, p_after_player_id];
    END IF;
    UPDATE settlement_item
    SET attempts = attempts + 1, delivery = 'failed', failure_class = p_class, failure_code = p_code
    WHERE id = ANY (claimed.item_ids);
    INSERT INTO settlement_attempt (item_id, run_id, attempt, failure_class, failure_code, job_id, result)
    SELECT unnest(claimed.item_ids), p_run_id, p_attempt, p_class, p_code, p_job_id, 'failed';
    UPDATE settlement_run SET cursor_player_id = claimed.player_ids[num_claimed] WHERE id = p_run_id;
    RETURN ARRAY[num_claimed, 0, 0, claimed.player_ids[num_claimed]];
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION settlement_refuse_chunk IS 'Fails the next undelivered items of a run, whose transaction could not be committed, with a class and a code. Returns as settlement_credit_chunk.';

-- Only what a person ended is a success of its job.
CREATE OR REPLACE VIEW audit_settlement_job_end AS
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
                -- Ended by an approval, long after its job.
                WHEN run.abort_reason = 'budget' AND run.job_end IS NULL THEN NULL
                WHEN run.outcome = 'none_delivered' OR run.abort_reason NOT IN ('cancelled', 'rejected') THEN 'failed'
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

-- +goose Down
CREATE OR REPLACE VIEW audit_settlement_job_end AS
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

DROP FUNCTION settlement_refuse_chunk;
DROP FUNCTION settlement_credit_chunk;
DROP FUNCTION settlement_claim;
ALTER TABLE settlement_run DROP CONSTRAINT abort_has_a_reason;
ALTER TABLE settlement_run ADD CONSTRAINT abort_has_a_reason CHECK (
    (state = 'aborted') = (abort_reason IS NOT NULL)
    AND (abort_reason IS NULL OR abort_reason IN ('calculation', 'inputs_deadline', 'invariant', 'rejected', 'cancelled'))
);
