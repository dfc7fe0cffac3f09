-- Why:   promotions have terms that two people agreed on and that never change
--        afterwards.
-- Locks: none; new tables.
-- Undo:  drops them.

-- +goose Up
CREATE TABLE programme (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    currency text NOT NULL,
    kind text NOT NULL,
    period text NOT NULL,
    time_zone text NOT NULL,
    CONSTRAINT code_is_a_short_name CHECK (code ~ '^[a-z0-9][a-z0-9_-]{0,63}$'),
    CONSTRAINT currency_is_iso4217 CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT kind_is_known CHECK (kind IN ('cashback')),
    CONSTRAINT period_is_known CHECK (period IN ('daily', 'weekly', 'monthly')),
    CONSTRAINT time_zone_length CHECK (length(time_zone) BETWEEN 1 AND 64)
);
COMMENT ON TABLE programme IS 'Promotions that credit wallets. What stands here is the same in all versions of a programme: another kind, currency or calendar is another programme.';

CREATE TABLE programme_version (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    approved_at timestamptz,
    approved_by text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL,
    effective_from date NOT NULL,
    programme_id bigint NOT NULL REFERENCES programme (id),
    rules jsonb NOT NULL,
    rules_hash text NOT NULL,
    version integer NOT NULL,
    UNIQUE (programme_id, version),
    CONSTRAINT approval_all_or_nothing CHECK ((approved_at IS NULL) = (approved_by IS NULL)),
    CONSTRAINT checker_is_not_maker CHECK (approved_by <> created_by),
    CONSTRAINT version_from_one CHECK (version >= 1),
    CONSTRAINT who_length CHECK (length(created_by) BETWEEN 1 AND 200 AND length(approved_by) BETWEEN 1 AND 200)
);
COMMENT ON TABLE programme_version IS 'Terms of a programme, as one person wrote and another approved them. A period is settled by the highest approved version that was effective on the local day of its start.';
COMMENT ON COLUMN programme_version.effective_from IS 'Local day in the programme''s time zone. Only periods that start on it or later are settled by this version.';
COMMENT ON COLUMN programme_version.rules IS 'All terms with their defaults written out. Rates and weights are ppm, amounts minor units.';
COMMENT ON COLUMN programme_version.rules_hash IS 'SHA-256 of the rules in their canonical form, in hexadecimal.';

-- +goose StatementBegin
CREATE FUNCTION programme_version_refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.approved_at IS NULL
        AND (to_jsonb(NEW) - 'approved_at' - 'approved_by') = (to_jsonb(OLD) - 'approved_at' - 'approved_by')
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'versions of programmes never change: % is refused', TG_OP
        USING ERRCODE = 'restrict_violation',
              HINT = 'Apply the new terms as another version.';
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION programme_version_refuse_change() IS 'Trigger: refuses every change of a version except its approval.';
CREATE TRIGGER programme_version_never_changes BEFORE UPDATE OR DELETE ON programme_version
    FOR EACH ROW EXECUTE FUNCTION programme_version_refuse_change();
CREATE TRIGGER programme_version_never_emptied BEFORE TRUNCATE ON programme_version
    FOR EACH STATEMENT EXECUTE FUNCTION programme_version_refuse_change();

-- +goose Down
DROP TABLE programme_version;
DROP FUNCTION programme_version_refuse_change();
DROP TABLE programme;
