-- Why:   retries of what a run left undelivered, and adjustments for lines that came
--        after a run.
-- Locks: ACCESS EXCLUSIVE on settlement_run and settlement_item for an instant, and
--        SHARE on both while indexes are built, some seconds per million items. Stop the
--        workers first; older ones refuse to run afterwards.
-- Undo:  fails while there is a run of another kind than regular. The views that it makes
--        anew lose what was granted on them: grant again. Which budget a run was approved
--        under is forgotten.

-- +goose Up
-- Older binaries would end a retry by the counts of its own items, which are none.
UPDATE schema_requirement SET min_binary = 33;

ALTER TABLE settlement_run ADD COLUMN parent_id bigint REFERENCES settlement_run (id);
COMMENT ON COLUMN settlement_run.parent_id IS 'The run whose undelivered items a retry attempts again; they stay that run''s.';
ALTER TABLE settlement_run DROP CONSTRAINT kind_is_known;
ALTER TABLE settlement_run ADD CONSTRAINT kind_is_known CHECK (kind IN ('regular', 'retry', 'adjustment'));
ALTER TABLE settlement_run ADD CONSTRAINT retry_has_its_parent CHECK ((kind = 'retry') = (parent_id IS NOT NULL));
COMMENT ON TABLE settlement_run IS 'One settlement of one period: regular, once; retry, of what an earlier run left undelivered; adjustment, of what lines that came later change. state says where the process is, outcome what was delivered; the counts are those at the run''s end. A lying outcome is refused by the constraints.';

ALTER TABLE settlement_run ADD COLUMN budget_version_id bigint REFERENCES programme_version (id);
COMMENT ON COLUMN settlement_run.budget_version_id IS 'The terms whose budget had room for the run when it was approved: those in force then for the start of its period. Others may have been when it was planned.';
UPDATE settlement_run SET budget_version_id = version_id WHERE approved_at IS NOT NULL AND state NOT IN ('done', 'aborted');

ALTER TABLE settlement_run ADD COLUMN held_back_acknowledged_at timestamptz;
COMMENT ON COLUMN settlement_run.held_back_acknowledged_at IS 'When a person who acknowledged an adjustment knew whom it had left out for an undelivered credit. acknowledged_at alone does not say so: a retry that delivers the others sets it, too.';
ALTER TABLE settlement_run ADD CONSTRAINT acknowledged_has_ended CHECK (state IN ('done', 'aborted') OR (acknowledged_at IS NULL AND held_back_acknowledged_at IS NULL));
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION settlement_run_refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    free text[] := ARRAY['acknowledge_reason', 'acknowledged_at', 'acknowledged_by', 'epoch', 'held_back_acknowledged_at', 'job_id'];
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF OLD.state NOT IN ('done', 'aborted') OR (to_jsonb(NEW) - free) = (to_jsonb(OLD) - free) THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'settlement run % has ended and never changes', OLD.id
            USING ERRCODE = 'restrict_violation';
    END IF;
    RAISE EXCEPTION 'settlement runs are evidence: % is refused', TG_OP
        USING ERRCODE = 'restrict_violation';
END;
$$;
-- +goose StatementEnd

DROP INDEX settlement_run_one_per_period;
CREATE UNIQUE INDEX settlement_run_one_per_period ON settlement_run (period_id) WHERE kind = 'regular' AND state <> 'aborted';
COMMENT ON INDEX settlement_run_one_per_period IS 'However many schedulers look, a period gets one regular run; an aborted one makes room.';
CREATE UNIQUE INDEX settlement_run_one_adjustment ON settlement_run (period_id) WHERE kind = 'adjustment' AND state NOT IN ('done', 'aborted');
COMMENT ON INDEX settlement_run_one_adjustment IS 'Two adjustments side by side would both pay the same difference.';
CREATE UNIQUE INDEX settlement_run_one_retry ON settlement_run (parent_id) WHERE state NOT IN ('done', 'aborted');
COMMENT ON INDEX settlement_run_one_retry IS 'What a run left undelivered is in the hands of one retry at a time.';
-- For the retries of a run, ended ones included.
CREATE INDEX settlement_run_parent_id_idx ON settlement_run (parent_id) WHERE parent_id IS NOT NULL;

ALTER TABLE settlement_item ADD COLUMN entitled_minor bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN settlement_item.entitled_minor IS 'What earlier runs of the period have credited to the player, or may still: the item pays the rest of capped_minor.';
COMMENT ON COLUMN settlement_item.adj IS 'How many claims on the period the player had before, from 0; part of the ledger''s reference.';

-- A run credits all items of a page, each of which is written anew: at 70, two thirds of
-- them found no room beside the old ones, and went to another page and into each index.
ALTER TABLE settlement_item SET (fillfactor = 45);

-- Concatenated with a number rather than with its text, it was not immutable as it claims,
-- and so was called for each credit instead of becoming part of the statement.
CREATE OR REPLACE FUNCTION settlement_reference(programme text, period text, player text, currency text, adj integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'settle/' || programme || '/' || period || '/' || player || '/' || currency || '/' || adj::text;

-- For who is owed more and was held back by an undelivered credit.
CREATE INDEX settlement_item_held_back_idx ON settlement_item (run_id) WHERE reason = 'earlier_undelivered';

CREATE VIEW settlement_run_items AS
SELECT
    item.run_id,
    item.id AS item_id,
    item.adj,
    item.amount_minor,
    item.currency,
    item.delivery,
    item.disposition,
    item.failure_class,
    item.failure_code,
    item.player_id,
    item.reason
FROM settlement_item AS item
UNION ALL
-- A part of its own: joined by one condition for both, all items there are would be read.
SELECT
    run.id,
    item.id,
    item.adj,
    item.amount_minor,
    item.currency,
    item.delivery,
    item.disposition,
    item.failure_class,
    item.failure_code,
    item.player_id,
    item.reason
FROM settlement_run AS run
JOIN settlement_item AS item ON item.run_id = run.parent_id
WHERE run.kind = 'retry'
    AND item.disposition = 'eligible'
    AND NOT EXISTS (
        SELECT
        FROM settlement_attempt AS earlier
        WHERE earlier.item_id = item.id
            AND earlier.run_id < run.id
            AND earlier.result <> 'failed'
    );
COMMENT ON VIEW settlement_run_items IS 'The items that a run is about, as they stand: its own, or, for a retry, those of its parent that nobody had delivered or withheld before it.';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION settlement_claim(p_run_id bigint, p_after_player_id bigint, p_max integer, OUT item_ids bigint[], OUT player_ids bigint[])
LANGUAGE plpgsql STABLE
-- The items of a run are new to the planner's statistics: it would take them for few,
-- and read and sort all that are left for each chunk.
SET enable_bitmapscan = off
SET enable_seqscan = off
SET enable_sort = off
AS $$
DECLARE
    items_run_id bigint;
BEGIN
    SELECT coalesce(run.parent_id, run.id) INTO items_run_id FROM settlement_run AS run WHERE run.id = p_run_id;
    SELECT array_agg(next.id), array_agg(next.player_id)
    INTO item_ids, player_ids
    FROM (
        SELECT item.id, item.player_id
        FROM settlement_item AS item
        WHERE item.run_id = items_run_id
            AND item.player_id > p_after_player_id
            AND item.delivery IN ('pending', 'failed')
            AND item.voided_at IS NULL
        ORDER BY item.player_id
        LIMIT p_max
    ) AS next;
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION settlement_claim IS 'The next undelivered items of a run, or of a retry''s parent, in order of players. The caller holds the run''s lock, which keeps the items to it: a parent has ended, and has one retry at a time.';

-- +goose StatementBegin
CREATE FUNCTION settlement_unbooked(p_run_id bigint) RETURNS bigint
LANGUAGE plpgsql STABLE
-- Each row is found by its key: the ledger is far larger than a run.
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
    num_unbooked bigint;
    settled record;
BEGIN
    SELECT period.key, programme.code INTO settled
    FROM settlement_run AS run
    JOIN settlement_period AS period ON period.id = run.period_id
    JOIN programme ON programme.id = period.programme_id
    WHERE run.id = p_run_id;

    SELECT count(*) INTO num_unbooked
    FROM settlement_run_items AS item
    WHERE item.run_id = p_run_id
        AND item.delivery = 'credited'
        AND NOT EXISTS (
            SELECT
            FROM player
            JOIN ledger_txn AS txn ON txn.reference = settlement_reference(settled.code, settled.key, player.code, item.currency, item.adj)
            JOIN ledger_account AS account ON account.player_id = player.id
                AND account.currency = item.currency
            JOIN ledger_entry AS entry ON entry.txn_id = txn.id
                AND entry.account_id = account.id
            WHERE player.id = item.player_id
                AND txn.kind = 'credit'
                AND entry.amount_minor = item.amount_minor
        );
    RETURN num_unbooked;
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION settlement_unbooked IS 'How many items that a run has credited are not in the ledger with their reference, player and amount. A run ends with its outcome only if it is none.';

CREATE OR REPLACE VIEW settlement_results AS
SELECT
    run.id AS run_id,
    programme.code AS programme,
    programme.kind,
    period.key AS period,
    run.kind AS run_kind,
    version.version,
    run.state,
    run.outcome,
    run.num_evaluated AS evaluated,
    run.num_eligible AS eligible,
    run.num_credited AS credited,
    run.num_failed AS failed,
    run.num_withheld AS withheld,
    run.num_excluded AS excluded,
    run.num_pending AS pending,
    run.currency,
    run.eligible_minor AS eligible_amount,
    run.credited_minor AS credited_amount,
    run.failed_minor AS failed_amount,
    run.started_at,
    run.finished_at,
    run.acknowledged_at,
    run.abort_reason,
    run.abort_detail,
    run.created_at,
    run.created_by,
    run.approved_at,
    run.approved_by,
    run.attempt,
    run.max_attempts,
    run.inputs_at,
    run.inputs_deadline_at,
    period.starts_at AS period_starts_at,
    period.ends_at AS period_ends_at,
    period.due_at,
    run.job_id,
    run.job_end,
    run.parent_id AS parent_run_id,
    run.sources
FROM settlement_run AS run
JOIN settlement_period AS period ON period.id = run.period_id
JOIN programme ON programme.id = period.programme_id
JOIN programme_version AS version ON version.id = run.version_id;
COMMENT ON VIEW settlement_results IS 'Every settlement run: where it is (state), what it delivered (outcome, once done), and its counts; those of credits are final when finished_at is set. A retry counts what its parent had left undelivered, and what of that it delivered itself. Amounts are minor units of currency. inputs_at is the lowest watermark of its sources, which the calculation rests on; without an outcome nothing was proven.';

CREATE OR REPLACE VIEW settlement_credits AS
SELECT
    item.run_id,
    programme.code AS programme,
    period.key AS period,
    player.code AS player,
    item.currency,
    item.adj,
    item.basis_minor AS basis,
    item.rate_ppm,
    item.amount_minor AS amount,
    item.disposition,
    item.reason,
    CASE WHEN item.voided_at IS NULL THEN item.delivery END AS delivery,
    item.failure_code,
    item.attempts,
    CASE WHEN item.disposition = 'eligible' THEN
        settlement_reference(programme.code, period.key, player.code, item.currency, item.adj)
    END AS reference,
    item.credited_at,
    item.failure_class,
    item.gross_minor AS gross,
    item.capped_minor AS capped,
    item.tier_value,
    item.tier_from,
    item.inputs,
    item.voided_at,
    item.entitled_minor AS entitled,
    item.id AS item_id
FROM settlement_item AS item
JOIN settlement_period AS period ON period.id = item.period_id
JOIN programme ON programme.id = period.programme_id
JOIN player ON player.id = item.player_id;
COMMENT ON VIEW settlement_credits IS 'What every run found every player to be owed, who got nothing included, and what became of it: pending, credited, failed (a later attempt may credit it, of the run or of its retry) or withheld. reference is that of the ledger transaction. An adjustment pays capped less entitled, what earlier runs had granted. Amounts are minor units; basis is exact to their millionths. Items of a run that ended before it paid have voided_at and no delivery.';

-- +goose Down
-- What reads the views is put back as it was.
-- +goose StatementBegin
DO $$
DECLARE
    dependants text[] := ARRAY['audit_settlement_reference', 'audit_settlement_event', 'audit_findings'];
    definitions text[];
    comments text[];
BEGIN
    SELECT array_agg(pg_get_viewdef(name::regclass) ORDER BY place), array_agg(obj_description(name::regclass) ORDER BY place)
    INTO definitions, comments
    FROM unnest(dependants) WITH ORDINALITY AS dependant (name, place);

    DROP VIEW audit_findings;
    DROP VIEW audit_settlement_event;
    DROP VIEW audit_settlement_reference;
    DROP VIEW settlement_credits;

    CREATE VIEW settlement_credits AS
    SELECT
        item.run_id,
        programme.code AS programme,
        period.key AS period,
        player.code AS player,
        item.currency,
        item.adj,
        item.basis_minor AS basis,
        item.rate_ppm,
        item.amount_minor AS amount,
        item.disposition,
        item.reason,
        CASE WHEN item.voided_at IS NULL THEN item.delivery END AS delivery,
        item.failure_code,
        item.attempts,
        CASE WHEN item.disposition = 'eligible' THEN
            settlement_reference(programme.code, period.key, player.code, item.currency, item.adj)
        END AS reference,
        item.credited_at,
        item.failure_class,
        item.gross_minor AS gross,
        item.capped_minor AS capped,
        item.tier_value,
        item.tier_from,
        item.inputs,
        item.voided_at
    FROM settlement_item AS item
    JOIN settlement_period AS period ON period.id = item.period_id
    JOIN programme ON programme.id = period.programme_id
    JOIN player ON player.id = item.player_id;
    COMMENT ON VIEW settlement_credits IS 'What every run found every player to be owed, who got nothing included, and what became of it: pending, credited, failed (a later attempt may credit it) or withheld. reference is that of the ledger transaction. Amounts are minor units; basis is exact to their millionths. Items of a run that ended before it paid have voided_at and no delivery.';

    FOR i IN 1 .. cardinality(dependants) LOOP
        EXECUTE format('CREATE VIEW %I AS %s', dependants[i], definitions[i]);
        EXECUTE format('COMMENT ON VIEW %I IS %L', dependants[i], comments[i]);
    END LOOP;
END;
$$;
-- +goose StatementEnd

DROP VIEW settlement_results;
CREATE VIEW settlement_results AS
SELECT
    run.id AS run_id,
    programme.code AS programme,
    programme.kind,
    period.key AS period,
    run.kind AS run_kind,
    version.version,
    run.state,
    run.outcome,
    run.num_evaluated AS evaluated,
    run.num_eligible AS eligible,
    run.num_credited AS credited,
    run.num_failed AS failed,
    run.num_withheld AS withheld,
    run.num_excluded AS excluded,
    run.num_pending AS pending,
    run.currency,
    run.eligible_minor AS eligible_amount,
    run.credited_minor AS credited_amount,
    run.failed_minor AS failed_amount,
    run.started_at,
    run.finished_at,
    run.acknowledged_at,
    run.abort_reason,
    run.abort_detail,
    run.created_at,
    run.created_by,
    run.approved_at,
    run.approved_by,
    run.attempt,
    run.max_attempts,
    run.inputs_at,
    run.inputs_deadline_at,
    period.starts_at AS period_starts_at,
    period.ends_at AS period_ends_at,
    period.due_at,
    run.job_id,
    run.job_end
FROM settlement_run AS run
JOIN settlement_period AS period ON period.id = run.period_id
JOIN programme ON programme.id = period.programme_id
JOIN programme_version AS version ON version.id = run.version_id;
COMMENT ON VIEW settlement_results IS 'Every settlement run: where it is (state), what it delivered (outcome, once done), and its counts; those of credits are final when finished_at is set. Amounts are minor units of currency. inputs_at is the watermark that the calculation rests on; without an outcome nothing was proven.';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION settlement_claim(p_run_id bigint, p_after_player_id bigint, p_max integer, OUT item_ids bigint[], OUT player_ids bigint[])
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

DROP FUNCTION settlement_unbooked;
DROP VIEW settlement_run_items;
DROP INDEX settlement_item_held_back_idx;
ALTER TABLE settlement_item SET (fillfactor = 70);
ALTER TABLE settlement_item DROP COLUMN entitled_minor;
COMMENT ON COLUMN settlement_item.adj IS NULL;
DROP INDEX settlement_run_parent_id_idx;
DROP INDEX settlement_run_one_retry;
DROP INDEX settlement_run_one_adjustment;
DROP INDEX settlement_run_one_per_period;
CREATE UNIQUE INDEX settlement_run_one_per_period ON settlement_run (period_id) WHERE state <> 'aborted';
COMMENT ON INDEX settlement_run_one_per_period IS 'However many schedulers look, a period gets one run; an aborted one makes room.';
COMMENT ON TABLE settlement_run IS 'One settlement of one period. state says where the process is, outcome what was delivered; the counts are those at the run''s end. A lying outcome is refused by the constraints.';
ALTER TABLE settlement_run DROP CONSTRAINT retry_has_its_parent;
ALTER TABLE settlement_run DROP CONSTRAINT kind_is_known;
ALTER TABLE settlement_run ADD CONSTRAINT kind_is_known CHECK (kind IN ('regular'));
ALTER TABLE settlement_run DROP COLUMN budget_version_id;
ALTER TABLE settlement_run DROP CONSTRAINT acknowledged_has_ended;
ALTER TABLE settlement_run DROP COLUMN held_back_acknowledged_at;
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION settlement_run_refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    free text[] := ARRAY['acknowledge_reason', 'acknowledged_at', 'acknowledged_by', 'epoch', 'job_id'];
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF OLD.state NOT IN ('done', 'aborted') OR (to_jsonb(NEW) - free) = (to_jsonb(OLD) - free) THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'settlement run % has ended and never changes', OLD.id
            USING ERRCODE = 'restrict_violation';
    END IF;
    RAISE EXCEPTION 'settlement runs are evidence: % is refused', TG_OP
        USING ERRCODE = 'restrict_violation';
END;
$$;
-- +goose StatementEnd

CREATE OR REPLACE FUNCTION settlement_reference(programme text, period text, player text, currency text, adj integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'settle/' || programme || '/' || period || '/' || player || '/' || currency || '/' || adj;

ALTER TABLE settlement_run DROP COLUMN parent_id;
UPDATE schema_requirement SET min_binary = 26;
