-- Why:   what became of an event is on outbox_delivery now. A gap marker takes the
--        place of an event that is not sent: it has that event's key and key_seq.
-- Locks: ACCESS EXCLUSIVE on outbox_event, while an index of all its rows is built.
--        Stop the workers first; older ones refuse to run afterwards.
-- Undo:  the columns come back empty; the migration before fills them.

-- +goose Up
DROP TRIGGER outbox_event_facts_stay ON outbox_event;
DROP TRIGGER outbox_event_undelivered_stay ON outbox_event;
DROP INDEX outbox_event_key_seq_key;
ALTER TABLE outbox_event
    DROP COLUMN attempts,
    DROP COLUMN failures,
    DROP COLUMN last_attempt_at,
    DROP COLUMN last_error,
    DROP COLUMN last_error_class,
    DROP COLUMN not_before,
    DROP COLUMN published_at,
    DROP COLUMN broker_ref,
    DROP COLUMN parked_at,
    DROP COLUMN park_reason,
    DROP COLUMN discarded_at,
    DROP COLUMN discarded_by,
    DROP COLUMN discard_reason;
COMMENT ON TABLE outbox_event IS 'What events say; nothing of it changes. What became of each is on its row of outbox_delivery. Read the view outbox_events.';
CREATE UNIQUE INDEX outbox_event_key_seq_key ON outbox_event (stream, key, key_seq)
    WHERE type <> 'truegreen.gap.v1';
-- An event that is not sent leaves one marker.
CREATE UNIQUE INDEX outbox_event_gap_key ON outbox_event (stream, key, key_seq)
    WHERE type = 'truegreen.gap.v1';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_event_refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        RAISE EXCEPTION 'events that may be undelivered must not be deleted: TRUNCATE is refused'
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF TG_OP = 'DELETE' THEN
        IF EXISTS (
            SELECT FROM outbox_delivery AS delivery
            WHERE delivery.id = OLD.id AND num_nonnulls(delivery.published_at, delivery.discarded_at) = 1
        ) THEN
            RETURN OLD;
        END IF;
        RAISE EXCEPTION 'event % of stream % is undelivered and must not be deleted', OLD.event_id, OLD.stream
            USING ERRCODE = 'restrict_violation';
    END IF;
    RAISE EXCEPTION 'event % of stream %: what it says is a fact and does not change', OLD.event_id, OLD.stream
        USING ERRCODE = 'restrict_violation';
END;
$$;
-- +goose StatementEnd
CREATE TRIGGER outbox_event_undelivered_stay BEFORE DELETE ON outbox_event
    FOR EACH ROW
    EXECUTE FUNCTION outbox_event_refuse_change();
UPDATE schema_requirement SET min_binary = 26;

-- +goose Down
UPDATE schema_requirement SET min_binary = 0;
DROP TRIGGER outbox_event_undelivered_stay ON outbox_event;
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_event_refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        RAISE EXCEPTION 'events that may be undelivered must not be deleted: TRUNCATE is refused'
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'event % of stream % is undelivered and must not be deleted', OLD.event_id, OLD.stream
            USING ERRCODE = 'restrict_violation';
    END IF;
    RAISE EXCEPTION 'event % of stream %: what it says, and that it was published, are facts and do not change', OLD.event_id, OLD.stream
        USING ERRCODE = 'restrict_violation';
END;
$$;
-- +goose StatementEnd
DROP INDEX outbox_event_gap_key;
DROP INDEX outbox_event_key_seq_key;
ALTER TABLE outbox_event
    ADD COLUMN attempts integer NOT NULL DEFAULT 0,
    ADD COLUMN failures integer NOT NULL DEFAULT 0,
    ADD COLUMN last_attempt_at timestamptz,
    ADD COLUMN last_error text,
    ADD COLUMN last_error_class text,
    ADD COLUMN not_before timestamptz,
    ADD COLUMN published_at timestamptz,
    ADD COLUMN broker_ref text,
    ADD COLUMN parked_at timestamptz,
    ADD COLUMN park_reason text,
    ADD COLUMN discarded_at timestamptz,
    ADD COLUMN discarded_by text,
    ADD COLUMN discard_reason text,
    ADD CONSTRAINT discarded_all_or_nothing CHECK (
        (discarded_at IS NULL) = (discarded_by IS NULL)
        AND (discarded_at IS NULL) = (discard_reason IS NULL)
    ),
    ADD CONSTRAINT published_with_acknowledgement CHECK ((published_at IS NULL) = (broker_ref IS NULL)),
    ADD CONSTRAINT published_or_discarded CHECK (published_at IS NULL OR discarded_at IS NULL);
COMMENT ON TABLE outbox_event IS 'Events and what became of them, as facts rather than a status word. Read the view outbox_events for derived states.';
CREATE UNIQUE INDEX outbox_event_key_seq_key ON outbox_event (stream, key, key_seq);
-- For the claim of a shard's oldest due rows; delivered rows are not in it.
CREATE INDEX outbox_event_due_idx ON outbox_event (stream, shard, id)
    WHERE published_at IS NULL AND parked_at IS NULL AND discarded_at IS NULL;
-- For the few rows that hold back later rows of their key.
CREATE INDEX outbox_event_held_idx ON outbox_event (stream, shard, key, id)
    WHERE published_at IS NULL AND discarded_at IS NULL AND (parked_at IS NOT NULL OR not_before IS NOT NULL);
CREATE TRIGGER outbox_event_facts_stay BEFORE UPDATE ON outbox_event
    FOR EACH ROW
    WHEN (
        (OLD.published_at IS NOT NULL AND (
            NEW.published_at IS DISTINCT FROM OLD.published_at
            OR NEW.broker_ref IS DISTINCT FROM OLD.broker_ref))
        OR (OLD.discarded_at IS NOT NULL AND (
            NEW.discarded_at IS DISTINCT FROM OLD.discarded_at
            OR NEW.discarded_by IS DISTINCT FROM OLD.discarded_by
            OR NEW.discard_reason IS DISTINCT FROM OLD.discard_reason))
    )
    EXECUTE FUNCTION outbox_event_refuse_change();
CREATE TRIGGER outbox_event_undelivered_stay BEFORE DELETE ON outbox_event
    FOR EACH ROW
    WHEN (OLD.published_at IS NULL AND OLD.discarded_at IS NULL)
    EXECUTE FUNCTION outbox_event_refuse_change();
