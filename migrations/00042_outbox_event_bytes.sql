-- Why:   a claim is bounded by bytes, so it must know how large an event is without
--        reading it.
-- Locks: ACCESS EXCLUSIVE on outbox_event for an instant.
-- Undo:  claims are bounded by the number of events alone.

-- +goose Up
SET LOCAL lock_timeout = '2s';
ALTER TABLE outbox_event ADD COLUMN num_bytes integer;
COMMENT ON COLUMN outbox_event.num_bytes IS 'How large payload and headers are as text. NULL for an event of less than about a thousand bytes, and for those that were appended before this column existed.';

-- +goose StatementBegin
CREATE FUNCTION outbox_event_measure() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.num_bytes := octet_length(NEW.payload::text) + octet_length(NEW.headers::text);
    RETURN NEW;
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION outbox_event_measure IS 'Trigger: notes how large an event is. A trigger, so that roles that append need no further privilege.';
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION outbox_event_measure() SET search_path = %s, pg_temp',
        (SELECT class.relnamespace::regnamespace FROM pg_class AS class WHERE class.oid = 'outbox_event'::regclass));
END $$;
-- +goose StatementEnd
-- Small events are spared the call: their size on disk is near enough.
CREATE TRIGGER outbox_event_is_measured BEFORE INSERT ON outbox_event
    FOR EACH ROW
    WHEN (pg_column_size(NEW.payload) + pg_column_size(NEW.headers) > 1000 OR pg_column_compression(NEW.payload) IS NOT NULL)
    EXECUTE FUNCTION outbox_event_measure();

-- +goose Down
SET LOCAL lock_timeout = '2s';
DROP TRIGGER outbox_event_is_measured ON outbox_event;
DROP FUNCTION outbox_event_measure;
ALTER TABLE outbox_event DROP COLUMN num_bytes;
