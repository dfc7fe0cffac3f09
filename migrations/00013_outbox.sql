-- Why:   events stored in the transaction of their data change, published in
--        order per key, with the broker's acknowledgement on the row.
-- Locks: none; new tables.
-- Undo:  drops them, undelivered events included.

-- +goose Up
CREATE TABLE outbox_stream (
    stream text PRIMARY KEY,
    job_kind text NOT NULL,
    key_seq_source text NOT NULL,
    max_event_bytes integer NOT NULL DEFAULT 524288,
    num_shards integer NOT NULL,
    park_policy text NOT NULL,
    provisioned_at timestamptz,
    queue text NOT NULL,
    CONSTRAINT key_seq_source_is_known CHECK (key_seq_source IN ('supplied', 'counted')),
    CONSTRAINT max_event_bytes_in_range CHECK (max_event_bytes BETWEEN 1024 AND 67108864),
    CONSTRAINT num_shards_in_range CHECK (num_shards BETWEEN 1 AND 64),
    CONSTRAINT park_policy_is_known CHECK (park_policy IN ('block', 'skip')),
    CONSTRAINT stream_is_a_short_name CHECK (stream ~ '^[a-z][a-z0-9_]{0,30}$')
);
COMMENT ON TABLE outbox_stream IS 'The streams, and what an append to each may hold.';
COMMENT ON COLUMN outbox_stream.key_seq_source IS 'supplied: the caller passes its aggregate''s version as key_seq; counted: the outbox counts per key.';
COMMENT ON COLUMN outbox_stream.max_event_bytes IS 'Bound of payload plus headers; written when the stream is provisioned, below what the broker takes.';
COMMENT ON COLUMN outbox_stream.num_shards IS 'Keys are spread over this many shards. Changing it while rows are undelivered would break the order of keys.';

CREATE TABLE outbox_shard (
    stream text NOT NULL REFERENCES outbox_stream (stream),
    shard integer NOT NULL,
    awake_until timestamptz,
    backoff_until timestamptz,
    last_published_at timestamptz,
    lease_epoch bigint NOT NULL DEFAULT 0,
    lease_expires_at timestamptz,
    lease_owner text,
    num_published bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (stream, shard),
    CONSTRAINT lease_all_or_nothing CHECK ((lease_owner IS NULL) = (lease_expires_at IS NULL))
) WITH (fillfactor = 10);
COMMENT ON TABLE outbox_shard IS 'The lease of each shard: one worker at a time drains it. lease_epoch rises with each lease and fences late failure marks.';
COMMENT ON COLUMN outbox_shard.awake_until IS 'Until then the leaseholder looks for new rows by itself, and an append inserts no job.';
COMMENT ON COLUMN outbox_shard.backoff_until IS 'Until then nobody drains the shard: the broker could not be reached.';

CREATE TABLE outbox_key (
    stream text NOT NULL,
    key text NOT NULL,
    last_seq bigint NOT NULL,
    PRIMARY KEY (stream, key)
) WITH (fillfactor = 60);
COMMENT ON TABLE outbox_key IS 'The last sequence number of each key of counted streams. Its row lock makes appends of one key wait for each other.';

-- Random ids would touch a random page of their index at each insert and again
-- at each mark, and write it to the log whole after each checkpoint.
CREATE FUNCTION outbox_new_event_id() RETURNS uuid
LANGUAGE sql VOLATILE
RETURN encode(
    set_bit(set_bit(
        overlay(
            uuid_send(gen_random_uuid())
            PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
            FROM 1 FOR 6
        ), 52, 1), 53, 1),
    'hex')::uuid;
COMMENT ON FUNCTION outbox_new_event_id IS 'A new UUID of version 7: milliseconds first, the rest random.';

CREATE TABLE outbox_event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream text NOT NULL,
    shard integer NOT NULL,
    key text NOT NULL,
    key_seq bigint NOT NULL,
    event_id uuid NOT NULL DEFAULT outbox_new_event_id(),
    type text NOT NULL,
    payload jsonb NOT NULL,
    headers jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    last_attempt_at timestamptz,
    last_error text,
    last_error_class text,
    not_before timestamptz,
    published_at timestamptz,
    broker_ref text,
    parked_at timestamptz,
    park_reason text,
    discarded_at timestamptz,
    discarded_by text,
    discard_reason text,
    CONSTRAINT discarded_all_or_nothing CHECK (
        (discarded_at IS NULL) = (discarded_by IS NULL)
        AND (discarded_at IS NULL) = (discard_reason IS NULL)
    ),
    CONSTRAINT published_with_acknowledgement CHECK ((published_at IS NULL) = (broker_ref IS NULL)),
    CONSTRAINT published_or_discarded CHECK (published_at IS NULL OR discarded_at IS NULL)
);
COMMENT ON TABLE outbox_event IS 'Events and what became of them, as facts rather than a status word. Read the view outbox_events for derived states.';
COMMENT ON COLUMN outbox_event.event_id IS 'The same for every attempt for ever; consumers and the broker recognise repeats by it.';
COMMENT ON COLUMN outbox_event.key_seq IS 'Gapless per key; the order in which a key''s events first reach the broker.';
COMMENT ON COLUMN outbox_event.attempts IS 'Sends that were begun for this row and whose outcome was recorded.';
COMMENT ON COLUMN outbox_event.failures IS 'Failures of this row alone. An outage of the broker is none.';
COMMENT ON COLUMN outbox_event.broker_ref IS 'Stream and sequence of the broker''s acknowledgement.';
CREATE UNIQUE INDEX outbox_event_event_id_key ON outbox_event (event_id);
CREATE UNIQUE INDEX outbox_event_key_seq_key ON outbox_event (stream, key, key_seq);
-- For the claim of a shard's oldest due rows; delivered rows are not in it.
CREATE INDEX outbox_event_due_idx ON outbox_event (stream, shard, id)
    WHERE published_at IS NULL AND parked_at IS NULL AND discarded_at IS NULL;
-- For the few rows that hold back later rows of their key.
CREATE INDEX outbox_event_held_idx ON outbox_event (stream, shard, key, id)
    WHERE published_at IS NULL AND discarded_at IS NULL AND (parked_at IS NOT NULL OR not_before IS NOT NULL);

-- +goose StatementBegin
CREATE FUNCTION outbox_event_refuse_change() RETURNS trigger
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
COMMENT ON FUNCTION outbox_event_refuse_change() IS 'Trigger: refuses changes to what an event says, to its acknowledgement or its discarding, and the deletion of an undelivered event.';
-- By the columns that a statement names: marks name none of them, and so don't
-- pay for comparing payloads.
CREATE TRIGGER outbox_event_says_what_it_said
    BEFORE UPDATE OF created_at, event_id, headers, id, key, key_seq, payload, shard, stream, type ON outbox_event
    FOR EACH ROW
    EXECUTE FUNCTION outbox_event_refuse_change();
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
CREATE TRIGGER outbox_event_never_emptied BEFORE TRUNCATE ON outbox_event
    FOR EACH STATEMENT
    EXECUTE FUNCTION outbox_event_refuse_change();
CREATE TRIGGER outbox_event_undelivered_stay BEFORE DELETE ON outbox_event
    FOR EACH ROW
    WHEN (OLD.published_at IS NULL AND OLD.discarded_at IS NULL)
    EXECUTE FUNCTION outbox_event_refuse_change();

INSERT INTO outbox_stream (stream, job_kind, key_seq_source, num_shards, park_policy, queue) VALUES
    ('wallet', 'outbox_wallet', 'supplied', 4, 'block', 'outbox_wallet'),
    ('rolling', 'outbox_rolling', 'counted', 4, 'block', 'outbox_rolling'),
    ('agent', 'outbox_agent', 'counted', 4, 'skip', 'outbox_agent');
INSERT INTO outbox_shard (stream, shard)
SELECT stream, generate_series(0, num_shards - 1) FROM outbox_stream;

-- +goose Down
DROP TABLE outbox_event;
DROP FUNCTION outbox_new_event_id();
DROP FUNCTION outbox_event_refuse_change();
DROP TABLE outbox_key;
DROP TABLE outbox_shard;
DROP TABLE outbox_stream;
