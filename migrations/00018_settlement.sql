-- Why:   settlements: which period was settled by which run, who is owed what,
--        and what became of each credit.
-- Locks: none; new tables.
-- Undo:  drops them. The credits stay in the ledger, so that a second settlement
--        of the same periods would be refused by their references.

-- +goose Up
CREATE TABLE settlement_period (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    due_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    key text NOT NULL,
    programme_id bigint NOT NULL REFERENCES programme (id),
    starts_at timestamptz NOT NULL,
    UNIQUE (programme_id, key),
    UNIQUE (id, ends_at),
    CONSTRAINT due_after_its_end CHECK (due_at >= ends_at),
    CONSTRAINT key_is_a_period CHECK (key ~ '^\d{4}-(\d{2}|\d{2}-\d{2}|W\d{2})$'),
    CONSTRAINT whole_quarter_hours CHECK (
        date_bin('15 minutes', starts_at, '2000-01-01T00:00:00Z') = starts_at
        AND date_bin('15 minutes', ends_at, '2000-01-01T00:00:00Z') = ends_at
    ),
    -- Ranges of one number stand in for an equality that needs an extension.
    CONSTRAINT periods_do_not_overlap EXCLUDE USING gist (
        int8range(programme_id, programme_id, '[]') WITH &&,
        tstzrange(starts_at, ends_at) WITH &&
    )
);
COMMENT ON TABLE settlement_period IS 'Spans of time that are settled once, half-open: what happened at ends_at belongs to the next. due_at is ends_at plus the programme''s grace.';

CREATE TABLE settlement_run (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    able_since timestamptz NOT NULL DEFAULT clock_timestamp(),
    abort_detail text,
    abort_reason text,
    acknowledge_reason text,
    acknowledged_at timestamptz,
    acknowledged_by text,
    approved_at timestamptz,
    approved_by text,
    attempt integer NOT NULL DEFAULT 0,
    calculated_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL,
    credited_minor bigint,
    currency text NOT NULL,
    cursor_player_id bigint NOT NULL DEFAULT 0,
    eligible_minor bigint,
    epoch bigint NOT NULL DEFAULT 0,
    failed_minor bigint,
    finished_at timestamptz,
    inputs_at timestamptz,
    inputs_deadline_at timestamptz NOT NULL,
    is_sliced boolean NOT NULL DEFAULT false,
    is_under_way boolean NOT NULL DEFAULT false,
    job_end text,
    job_id bigint,
    kind text NOT NULL,
    max_attempts integer NOT NULL,
    num_calculations integer NOT NULL DEFAULT 0,
    num_credited bigint,
    num_eligible bigint,
    num_evaluated bigint,
    num_excluded bigint,
    num_failed bigint,
    num_pending bigint,
    num_withheld bigint,
    outcome text,
    period_ends_at timestamptz NOT NULL,
    period_id bigint NOT NULL,
    started_at timestamptz,
    state text NOT NULL DEFAULT 'planned',
    taken_player_id bigint NOT NULL DEFAULT 0,
    version_id bigint NOT NULL REFERENCES programme_version (id),
    FOREIGN KEY (period_id, period_ends_at) REFERENCES settlement_period (id, ends_at),
    CONSTRAINT abort_has_a_reason CHECK (
        (state = 'aborted') = (abort_reason IS NOT NULL)
        AND (abort_reason IS NULL OR abort_reason IN ('calculation', 'inputs_deadline', 'invariant', 'rejected', 'cancelled'))
    ),
    CONSTRAINT acknowledgement_all_or_nothing CHECK (
        (acknowledged_at IS NULL) = (acknowledged_by IS NULL)
        AND (acknowledged_at IS NULL) = (acknowledge_reason IS NULL)
    ),
    CONSTRAINT approval_all_or_nothing CHECK ((approved_at IS NULL) = (approved_by IS NULL)),
    CONSTRAINT approved_before_delivery CHECK (state NOT IN ('approved', 'delivering') OR approved_at IS NOT NULL),
    CONSTRAINT attempts_within_bounds CHECK (attempt BETWEEN 0 AND max_attempts AND max_attempts BETWEEN 1 AND 100),
    CONSTRAINT checker_is_not_maker CHECK (approved_by IS NULL OR approved_by <> created_by),
    CONSTRAINT currency_is_iso4217 CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT ended_at_its_end CHECK ((state IN ('done', 'aborted')) = (finished_at IS NOT NULL)),
    CONSTRAINT job_end_is_known CHECK (job_end IN ('completed', 'failed')),
    CONSTRAINT kind_is_known CHECK (kind IN ('regular')),
    CONSTRAINT state_is_known CHECK (state IN (
        'planned', 'waiting_inputs', 'calculating', 'calculated', 'awaiting_approval', 'approved', 'delivering', 'done', 'aborted'
    )),
    -- A CHECK that comes out NULL passes, so the counts of what is calculated are
    -- demanded first.
    CONSTRAINT calculated_has_counts CHECK (
        state IN ('planned', 'waiting_inputs', 'calculating', 'aborted')
        OR num_nulls(calculated_at, eligible_minor, inputs_at, num_eligible, num_evaluated, num_excluded) = 0
    ),
    CONSTRAINT calculated_on_proven_inputs CHECK (inputs_at IS NULL OR inputs_at >= period_ends_at),
    CONSTRAINT done_has_counts CHECK (
        state <> 'done'
        OR num_nulls(credited_minor, failed_minor, num_credited, num_failed, num_pending, num_withheld) = 0
    ),
    CONSTRAINT counts_add_up CHECK (
        num_evaluated = num_eligible + num_excluded
        AND num_eligible = num_credited + num_failed + num_withheld + num_pending
    ),
    CONSTRAINT outcome_when_done CHECK ((state = 'done') = (outcome IS NOT NULL)),
    CONSTRAINT outcome_is_true CHECK (
        outcome IS NULL
        OR (num_pending = 0 AND CASE outcome
            WHEN 'no_eligible' THEN num_eligible = 0
            WHEN 'all_withheld' THEN num_eligible > 0 AND num_withheld = num_eligible
            WHEN 'all_delivered' THEN num_credited > 0 AND num_credited = num_eligible - num_withheld
            WHEN 'partial' THEN num_credited > 0 AND num_credited < num_eligible - num_withheld
            WHEN 'none_delivered' THEN num_credited = 0 AND num_eligible - num_withheld > 0
            ELSE false
        END)
    ),
    CONSTRAINT job_end_agrees_with_outcome CHECK (
        outcome IS NULL OR job_end IS NULL
        OR CASE outcome
            WHEN 'none_delivered' THEN job_end = 'failed'
            WHEN 'partial' THEN true
            ELSE job_end = 'completed'
        END
    ),
    CONSTRAINT job_end_at_the_end CHECK (job_end IS NULL OR state IN ('done', 'aborted'))
) WITH (fillfactor = 50);
COMMENT ON TABLE settlement_run IS 'One settlement of one period. state says where the process is, outcome what was delivered; the counts are those at the run''s end. A lying outcome is refused by the constraints.';
COMMENT ON COLUMN settlement_run.able_since IS 'Since when it waits for nobody: its creation, approval, or the arrival of its inputs.';
COMMENT ON COLUMN settlement_run.attempt IS 'Passes over what is undelivered that were begun.';
COMMENT ON COLUMN settlement_run.created_by IS 'Who made it, and so cannot approve it: for a scheduled run the author of the programme''s version.';
COMMENT ON COLUMN settlement_run.cursor_player_id IS 'The last player, in order of ids, that the current pass has dealt with.';
COMMENT ON COLUMN settlement_run.epoch IS 'Raised by each job that takes the run; who holds an older one can write nothing more.';
COMMENT ON COLUMN settlement_run.inputs_at IS 'The lowest watermark that the calculation rests on: proof that nothing of the period was missing.';
COMMENT ON COLUMN settlement_run.is_sliced IS 'The current pass ended for lack of time and is continued, not begun anew, by the next job.';
COMMENT ON COLUMN settlement_run.is_under_way IS 'A pass was begun and has not come to its end. If it was cut off after it came forward, the next job goes on with it.';
COMMENT ON COLUMN settlement_run.job_end IS 'How the job ended that ended the run: completed, or failed (retried in vain, then discarded). NULL when no job did.';
COMMENT ON COLUMN settlement_run.job_id IS 'The job that has the run, or had it last.';
COMMENT ON COLUMN settlement_run.num_calculations IS 'Calculations that were begun; as many as there may be passes.';
COMMENT ON COLUMN settlement_run.taken_player_id IS 'How far the pass had come when the latest job began to work on it.';
CREATE UNIQUE INDEX settlement_run_one_per_period ON settlement_run (period_id) WHERE state <> 'aborted';
COMMENT ON INDEX settlement_run_one_per_period IS 'However many schedulers look, a period gets one run; an aborted one makes room.';
-- For the runs of a period, aborted ones included.
CREATE INDEX settlement_run_period_id_idx ON settlement_run (period_id);
-- For what is still to do, and for what waits for a person.
CREATE INDEX settlement_run_unsettled_idx ON settlement_run (id)
    WHERE state NOT IN ('done', 'aborted') OR (acknowledged_at IS NULL AND (state = 'aborted' OR outcome IN ('partial', 'none_delivered')));

-- +goose StatementBegin
CREATE FUNCTION settlement_run_refuse_change() RETURNS trigger
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
COMMENT ON FUNCTION settlement_run_refuse_change() IS 'Trigger: keeps ended runs as they are, acknowledgements apart.';
CREATE TRIGGER settlement_run_keeps_its_end BEFORE UPDATE OR DELETE ON settlement_run
    FOR EACH ROW EXECUTE FUNCTION settlement_run_refuse_change();
CREATE TRIGGER settlement_run_never_emptied BEFORE TRUNCATE ON settlement_run
    FOR EACH STATEMENT EXECUTE FUNCTION settlement_run_refuse_change();

CREATE TABLE settlement_item (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    adj integer NOT NULL DEFAULT 0,
    amount_minor bigint NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    basis_minor numeric NOT NULL,
    capped_minor bigint NOT NULL,
    credited_at timestamptz,
    currency text NOT NULL,
    delivery text,
    disposition text NOT NULL,
    failure_class text,
    failure_code text,
    gross_minor bigint NOT NULL,
    inputs jsonb NOT NULL,
    period_id bigint NOT NULL,
    player_id bigint NOT NULL,
    rate_ppm integer NOT NULL,
    reason text,
    run_id bigint NOT NULL REFERENCES settlement_run (id),
    tier_from bigint,
    tier_value numeric NOT NULL,
    voided_at timestamptz,
    UNIQUE (run_id, player_id),
    CONSTRAINT adj_not_negative CHECK (adj >= 0),
    CONSTRAINT amounts_narrow_down CHECK (gross_minor >= capped_minor AND capped_minor >= amount_minor AND amount_minor >= 0),
    CONSTRAINT credited_has_its_time CHECK ((delivery IS NOT DISTINCT FROM 'credited') = (credited_at IS NOT NULL)),
    CONSTRAINT delivery_is_known CHECK (delivery IN ('pending', 'credited', 'failed', 'withheld')),
    CONSTRAINT eligible_or_excluded CHECK (
        CASE disposition
            WHEN 'eligible' THEN reason IS NULL AND delivery IS NOT NULL AND amount_minor > 0
            WHEN 'excluded' THEN reason IS NOT NULL AND delivery IS NULL AND amount_minor = 0
            ELSE false
        END
    ),
    CONSTRAINT failure_class_is_known CHECK (failure_class IN ('transient', 'permanent', 'poison', 'unknown')),
    CONSTRAINT failure_is_explained CHECK (
        delivery IS NULL
        OR CASE delivery
            WHEN 'failed' THEN failure_code IS NOT NULL AND failure_class IS NOT NULL
            WHEN 'withheld' THEN failure_code IS NOT NULL AND failure_class IS NULL
            ELSE failure_code IS NULL AND failure_class IS NULL
        END
    ),
    CONSTRAINT rate_is_a_share CHECK (rate_ppm BETWEEN 0 AND 1000000),
    CONSTRAINT reason_is_known CHECK (reason IN (
        'self_excluded', 'closed', 'no_turnover', 'winner', 'no_tier', 'below_min', 'overpaid', 'earlier_undelivered'
    )),
    CONSTRAINT void_was_not_credited CHECK (voided_at IS NULL OR delivery IS DISTINCT FROM 'credited')
) WITH (fillfactor = 70);
COMMENT ON TABLE settlement_item IS 'What one run found one player to be owed, those who get nothing included: with the activity, basis, tier and rate that explain the amount. No foreign keys to player and period: checking them would cost more than the calculation.';
COMMENT ON COLUMN settlement_item.basis_minor IS 'What the rate applies to, exact to a millionth of a minor unit.';
COMMENT ON COLUMN settlement_item.inputs IS 'The player''s activity as it was read: sums per category, promotion credits that were deducted, status. Amounts are strings of minor units.';
COMMENT ON COLUMN settlement_item.gross_minor IS 'Basis times rate, rounded down. capped_minor: at most the cap. amount_minor: 0 if that is below the minimum.';
COMMENT ON COLUMN settlement_item.tier_value IS 'What the tiers compare with their from: the VIP level, or the basis rounded down.';
COMMENT ON COLUMN settlement_item.voided_at IS 'The run ended before it paid anything; the item is no claim any more.';
CREATE UNIQUE INDEX settlement_item_entitled_once ON settlement_item (period_id, player_id, currency, adj)
    WHERE disposition = 'eligible' AND voided_at IS NULL;
COMMENT ON INDEX settlement_item_entitled_once IS 'Nobody is entitled twice to the same thing.';
COMMENT ON INDEX settlement_item_run_id_player_id_key IS 'SettlementItemClaim: the next items of a pass, in order. It leaves out the delivery, so that crediting an item touches no index.';

CREATE TABLE settlement_attempt (
    item_id bigint NOT NULL,
    run_id bigint NOT NULL,
    attempt integer NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    failure_class text,
    failure_code text,
    job_id bigint NOT NULL,
    result text NOT NULL,
    PRIMARY KEY (item_id, run_id, attempt),
    CONSTRAINT result_is_known CHECK (result IN ('credited', 'failed', 'withheld'))
);
COMMENT ON TABLE settlement_attempt IS 'Every try to credit an item, and what came of it.';

CREATE TABLE settlement_event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    actor text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    detail jsonb NOT NULL DEFAULT '{}',
    kind text NOT NULL,
    reason text,
    run_id bigint NOT NULL REFERENCES settlement_run (id),
    CONSTRAINT kind_length CHECK (length(kind) BETWEEN 1 AND 64),
    CONSTRAINT who_length CHECK (length(actor) BETWEEN 1 AND 200)
);
COMMENT ON TABLE settlement_event IS 'What happened to a run: who or what did it, and why.';
-- For the history of a run.
CREATE INDEX settlement_event_run_id_idx ON settlement_event (run_id, id);

-- +goose StatementBegin
CREATE FUNCTION settlement_refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the history of settlements is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION settlement_refuse_change() IS 'Trigger: refuses every change to what settlements have recorded.';
CREATE TRIGGER settlement_attempt_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON settlement_attempt
    FOR EACH STATEMENT EXECUTE FUNCTION settlement_refuse_change();
CREATE TRIGGER settlement_event_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON settlement_event
    FOR EACH STATEMENT EXECUTE FUNCTION settlement_refuse_change();
CREATE TRIGGER settlement_item_is_never_removed BEFORE DELETE OR TRUNCATE ON settlement_item
    FOR EACH STATEMENT EXECUTE FUNCTION settlement_refuse_change();

-- +goose StatementBegin
CREATE FUNCTION settlement_reference(programme text, period text, player text, currency text, adj integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'settle/' || programme || '/' || period || '/' || player || '/' || currency || '/' || adj;
-- +goose StatementEnd
COMMENT ON FUNCTION settlement_reference(text, text, text, text, integer) IS 'The ledger reference of a settlement''s credit. No run is part of it, so that no rerun can pay again.';

-- +goose Down
DROP FUNCTION settlement_reference(text, text, text, text, integer);
DROP TABLE settlement_event;
DROP TABLE settlement_attempt;
DROP TABLE settlement_item;
DROP FUNCTION settlement_refuse_change();
DROP TABLE settlement_run;
DROP FUNCTION settlement_run_refuse_change();
DROP TABLE settlement_period;
