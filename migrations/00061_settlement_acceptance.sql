-- Why:   a frozen wallet leaves a run partial every day: who knows of it says so once,
--        until a day of their choice, and not of each run anew.
-- Locks: none; a new table.
-- Undo:  drops it, with what was accepted.

-- +goose Up
CREATE TABLE settlement_acceptance (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    accepted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    accepted_by text NOT NULL,
    expires_at timestamptz NOT NULL,
    failure_code text NOT NULL,
    max_credits integer, -- of a run, where no player is named
    player_id bigint REFERENCES player (id),
    programme_id bigint REFERENCES programme (id),
    reason text NOT NULL,
    revoke_reason text,
    revoked_at timestamptz,
    revoked_by text,
    CONSTRAINT a_programme_is_bounded CHECK ((player_id IS NULL) = (max_credits IS NOT NULL)),
    CONSTRAINT accepted_by_length CHECK (length(accepted_by) BETWEEN 1 AND 200),
    CONSTRAINT expires_later CHECK (expires_at > accepted_at),
    CONSTRAINT failure_code_length CHECK (length(failure_code) BETWEEN 1 AND 64),
    CONSTRAINT max_credits_is_positive CHECK (max_credits > 0),
    CONSTRAINT reason_length CHECK (length(reason) BETWEEN 1 AND 500),
    CONSTRAINT revoke_all_or_nothing CHECK (num_nonnulls(revoke_reason, revoked_at, revoked_by) IN (0, 3)),
    CONSTRAINT said_of_somebody CHECK (num_nonnulls(player_id, programme_id) > 0)
);
COMMENT ON TABLE settlement_acceptance IS 'What somebody knows that settlements cannot deliver, with a reason and an end: of a player, of at most max_credits credits in a run of a programme, or of a player in a programme. A partial run all of whose failed credits are accepted when it ends is acknowledged in that person''s name. Nothing of it changes but its revocation.';
-- For a player's acceptances, where a run ends.
CREATE INDEX settlement_acceptance_player_id_idx ON settlement_acceptance (player_id) WHERE revoked_at IS NULL;

-- +goose StatementBegin
CREATE FUNCTION settlement_acceptance_refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    free text[] := ARRAY['revoke_reason', 'revoked_at', 'revoked_by'];
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.revoked_at IS NULL AND (to_jsonb(NEW) - free) = (to_jsonb(OLD) - free) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'acceptances are evidence: revoke one instead of changing it'
        USING ERRCODE = 'restrict_violation';
END;
$$;
-- +goose StatementEnd
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION settlement_acceptance_refuse_change() SET search_path = %I, pg_temp', (
        SELECT namespace.nspname
        FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
        WHERE class.oid = 'settlement_acceptance'::regclass
    ));
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION settlement_acceptance_refuse_change IS 'Keeps acceptances as they were given.';
CREATE TRIGGER settlement_acceptance_refuse_change
    BEFORE UPDATE OR DELETE ON settlement_acceptance
    FOR EACH ROW EXECUTE FUNCTION settlement_acceptance_refuse_change();

-- +goose Down
DROP TABLE settlement_acceptance;
DROP FUNCTION settlement_acceptance_refuse_change();
