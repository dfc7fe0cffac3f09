-- Why: functions took tables, operators and the forms of times from whatever the
-- session of their caller had. An application with a table of the same name earlier in
-- its search_path got its events stored there, and none was published. From now on each
-- function looks where the tables are, temporary ones last. Functions that write times
-- as text, or are told them, do it in one form.
--
-- outbox_refusal is left alone: outbox_append and outbox_append_many alone call it, for
-- each event, and it sees what they set. Functions with a body that was bound when they
-- were made need nothing.
--
-- A function that is replaced loses what is set here: say it again in the migration that
-- replaces it (SET search_path = the schema, pg_temp). A test finds what was forgotten.
--
-- Locks: none on tables; each function's own, for a moment.
-- Undo: down.

-- +goose Up
SET LOCAL lock_timeout = '2s';
-- +goose StatementBegin
DO $$
DECLARE
    home name := (
        SELECT namespace.nspname
        FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
        WHERE class.oid = 'outbox_event'::regclass
    );
    ours regprocedure;
BEGIN
    FOR ours IN
        SELECT proc.oid::regprocedure
        FROM pg_proc AS proc
        JOIN pg_namespace AS namespace ON namespace.oid = proc.pronamespace
        WHERE namespace.nspname = home
            AND proc.proname IN (
                'ledger_entry_check_balance', 'ledger_refuse_change', 'outbox_adopt', 'outbox_append', 'outbox_append_many', 'outbox_decide',
                'outbox_delivery_refuse_change', 'outbox_event_refuse_change', 'outbox_history_drop', 'outbox_history_make',
                'outbox_history_move', 'outbox_hold_released', 'outbox_intervention_refuse_change', 'outbox_leave_gaps', 'outbox_wake',
                'programme_version_refuse_change', 'settlement_claim', 'settlement_credit_chunk', 'settlement_refuse_change',
                'settlement_refuse_chunk', 'settlement_run_refuse_change', 'settlement_unbooked'
            )
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', ours, home);
    END LOOP;
END $$;
-- +goose StatementEnd
ALTER FUNCTION outbox_history_drop SET DateStyle = 'ISO, MDY';
ALTER FUNCTION outbox_history_drop SET TimeZone = 'UTC';
ALTER FUNCTION outbox_history_make SET DateStyle = 'ISO, MDY';
ALTER FUNCTION outbox_history_make SET TimeZone = 'UTC';
ALTER FUNCTION outbox_history_move SET DateStyle = 'ISO, MDY';
ALTER FUNCTION outbox_history_move SET TimeZone = 'UTC';

-- +goose Down
ALTER FUNCTION outbox_history_drop RESET DateStyle;
ALTER FUNCTION outbox_history_drop RESET TimeZone;
ALTER FUNCTION outbox_history_make RESET DateStyle;
ALTER FUNCTION outbox_history_make RESET TimeZone;
ALTER FUNCTION outbox_history_move RESET DateStyle;
ALTER FUNCTION outbox_history_move RESET TimeZone;
-- +goose StatementBegin
DO $$
DECLARE
    ours regprocedure;
BEGIN
    FOR ours IN
        SELECT proc.oid::regprocedure
        FROM pg_proc AS proc
        WHERE proc.pronamespace = (SELECT class.relnamespace FROM pg_class AS class WHERE class.oid = 'outbox_event'::regclass)
            AND proc.proname IN (
                'ledger_entry_check_balance', 'ledger_refuse_change', 'outbox_adopt', 'outbox_append', 'outbox_append_many', 'outbox_decide',
                'outbox_delivery_refuse_change', 'outbox_event_refuse_change', 'outbox_history_drop', 'outbox_history_make',
                'outbox_history_move', 'outbox_hold_released', 'outbox_intervention_refuse_change', 'outbox_leave_gaps', 'outbox_wake',
                'programme_version_refuse_change', 'settlement_claim', 'settlement_credit_chunk', 'settlement_refuse_change',
                'settlement_refuse_chunk', 'settlement_run_refuse_change', 'settlement_unbooked'
            )
    LOOP
        EXECUTE format('ALTER FUNCTION %s RESET search_path', ours);
    END LOOP;
END $$;
-- +goose StatementEnd
