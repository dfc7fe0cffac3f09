-- Why:   what an event says never changes, what becomes of it changes with each
--        attempt. On one row, each acknowledgement wrote the payload again, and
--        an entry in every index of it.
-- Locks: ACCESS EXCLUSIVE on outbox_event while its rows are read, some seconds per
--        million. Stop the workers first; appends wait.
-- Undo:  writes what became of the events back onto them, and drops the table.

-- +goose Up
LOCK TABLE outbox_event IN ACCESS EXCLUSIVE MODE;
CREATE TABLE outbox_delivery (
    id bigint PRIMARY KEY,
    stream text NOT NULL,
    shard integer NOT NULL,
    key text NOT NULL,
    place bigint NOT NULL,
    created_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    crashes integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    first_failed_at timestamptz,
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
    CONSTRAINT parked_with_a_reason CHECK ((parked_at IS NULL) = (park_reason IS NULL)),
    CONSTRAINT published_or_discarded CHECK (published_at IS NULL OR discarded_at IS NULL),
    CONSTRAINT published_with_acknowledgement CHECK ((published_at IS NULL) = (broker_ref IS NULL))
);
COMMENT ON TABLE outbox_delivery IS 'What became of each event of outbox_event, as facts rather than a status word; one row for each, with its id. Narrow, since every acknowledgement writes one anew. Read the view outbox_events.';
COMMENT ON COLUMN outbox_delivery.stream IS 'As shard, key and created_at a copy of the event''s, so that claims and watches need not read events.';
COMMENT ON COLUMN outbox_delivery.place IS 'Where the event stands among those of its shard: its id, or for a gap marker the place of the event that it stands for.';
COMMENT ON COLUMN outbox_delivery.attempts IS 'Sends that were begun for the event and whose outcome was recorded.';
COMMENT ON COLUMN outbox_delivery.crashes IS 'Workers that died while the event was the only one in flight.';
COMMENT ON COLUMN outbox_delivery.failures IS 'Failures of this event alone since it was appended or last redriven. An outage of the broker is none.';
COMMENT ON COLUMN outbox_delivery.first_failed_at IS 'The first of those failures.';
COMMENT ON COLUMN outbox_delivery.broker_ref IS 'Stream and sequence of the broker''s acknowledgement.';

INSERT INTO outbox_delivery (
    id, stream, shard, key, place, created_at, attempts, failures, first_failed_at, last_attempt_at, last_error, last_error_class, not_before,
    published_at, broker_ref, parked_at, park_reason, discarded_at, discarded_by, discard_reason
)
SELECT
    id, stream, shard, key, id, created_at, attempts, failures, CASE WHEN failures > 0 THEN last_attempt_at END, last_attempt_at, last_error, last_error_class, not_before,
    published_at, broker_ref, parked_at, CASE WHEN parked_at IS NOT NULL THEN coalesce(park_reason, 'unknown') END, discarded_at, discarded_by, discard_reason
FROM outbox_event;

-- For the claim of a shard's first due events; delivered ones are not in it.
CREATE INDEX outbox_delivery_due_idx ON outbox_delivery (stream, shard, place, id)
    WHERE published_at IS NULL AND parked_at IS NULL AND discarded_at IS NULL;
-- For the few that hold back later events of their key.
CREATE INDEX outbox_delivery_held_idx ON outbox_delivery (stream, shard, key, place)
    WHERE published_at IS NULL AND discarded_at IS NULL AND (parked_at IS NOT NULL OR not_before IS NOT NULL);

-- +goose StatementBegin
CREATE FUNCTION outbox_delivery_refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        RAISE EXCEPTION 'events that may be undelivered must not be forgotten: TRUNCATE is refused'
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'event % of stream % is undelivered and must not be forgotten', OLD.id, OLD.stream
            USING ERRCODE = 'restrict_violation';
    END IF;
    RAISE EXCEPTION 'event % of stream %: whose delivery this is, that it was published, and that it was discarded are facts and do not change', OLD.id, OLD.stream
        USING ERRCODE = 'restrict_violation';
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION outbox_delivery_refuse_change() IS 'Trigger: refuses changes to an acknowledgement or a discarding, and the deletion of an undelivered event''s row.';
CREATE TRIGGER outbox_delivery_of_one_event
    BEFORE UPDATE OF created_at, id, key, place, shard, stream ON outbox_delivery
    FOR EACH ROW
    EXECUTE FUNCTION outbox_delivery_refuse_change();
CREATE TRIGGER outbox_delivery_facts_stay BEFORE UPDATE ON outbox_delivery
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
    EXECUTE FUNCTION outbox_delivery_refuse_change();
CREATE TRIGGER outbox_delivery_never_emptied BEFORE TRUNCATE ON outbox_delivery
    FOR EACH STATEMENT
    EXECUTE FUNCTION outbox_delivery_refuse_change();
CREATE TRIGGER outbox_delivery_undelivered_stay BEFORE DELETE ON outbox_delivery
    FOR EACH ROW
    WHEN (OLD.published_at IS NULL AND OLD.discarded_at IS NULL)
    EXECUTE FUNCTION outbox_delivery_refuse_change();

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_append(
    stream text, key text, type text, payload jsonb, headers jsonb DEFAULT '{}', key_seq bigint DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    found_stream outbox_stream;
    new_event_id uuid := outbox_new_event_id();
    new_key_seq bigint := $6;
    new_shard integer;
    refusal text;
BEGIN
    SELECT * INTO found_stream FROM outbox_stream AS s WHERE s.stream = $1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'append to outbox: there is no stream %', coalesce(quote_literal($1), 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The streams are in table outbox_stream.';
    END IF;
    refusal := outbox_refusal(found_stream, $2, $3, $4, $5, $6);
    IF refusal IS NOT NULL THEN
        RAISE EXCEPTION 'append to outbox stream %: %', $1, refusal USING ERRCODE = 'invalid_parameter_value';
    END IF;

    IF found_stream.key_seq_source = 'counted' THEN
        INSERT INTO outbox_key AS k (stream, key, last_seq) VALUES ($1, $2, 1)
        ON CONFLICT (stream, key) DO UPDATE SET last_seq = k.last_seq + 1
        RETURNING k.last_seq INTO new_key_seq;
    END IF;
    new_shard := outbox_shard_of($2, found_stream.num_shards);
    WITH stored AS (
        INSERT INTO outbox_event (event_id, headers, key, key_seq, payload, shard, stream, type)
        VALUES (new_event_id, $5, $2, new_key_seq, $4, new_shard, $1, $3)
        RETURNING id, created_at
    )
    INSERT INTO outbox_delivery (id, created_at, key, place, shard, stream)
    SELECT stored.id, stored.created_at, $2, stored.id, new_shard, $1 FROM stored;
    PERFORM outbox_wake(found_stream, new_shard);
    RETURN new_event_id;
END;
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_append_many(
    stream text, keys text[], types text[], payloads jsonb[], headers jsonb[] DEFAULT NULL, key_seqs bigint[] DEFAULT NULL
) RETURNS uuid[]
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    found_stream outbox_stream;
    num_events integer := cardinality($2);
    event_ids uuid[];
    refused record;
BEGIN
    SELECT * INTO found_stream FROM outbox_stream AS s WHERE s.stream = $1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'append to outbox: there is no stream %', coalesce(quote_literal($1), 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The streams are in table outbox_stream.';
    END IF;
    IF num_events IS NULL THEN
        RAISE EXCEPTION 'append to outbox stream %: keys must not be NULL', $1 USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF num_events = 0 THEN
        RETURN '{}';
    END IF;
    IF num_events IS DISTINCT FROM cardinality($3) OR num_events IS DISTINCT FROM cardinality($4)
        OR num_events <> coalesce(cardinality($5), num_events) OR num_events <> coalesce(cardinality($6), num_events) THEN
        RAISE EXCEPTION 'append to outbox stream %: keys, types, payloads, headers and key_seqs must have one element per event', $1
            USING ERRCODE = 'invalid_parameter_value';
    END IF;

    SELECT given.n, given.reason
    INTO refused
    FROM (
        SELECT u.n, outbox_refusal(found_stream, u.key, u.type, u.payload, coalesce(u.header, '{}'), u.key_seq) AS reason
        FROM unnest($2, $3, $4, $5, $6) WITH ORDINALITY AS u (key, type, payload, header, key_seq, n)
        -- Keeps the function from being called a second time for the condition.
        OFFSET 0
    ) AS given
    WHERE given.reason IS NOT NULL
    ORDER BY given.n
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'append to outbox stream %, event %: %', $1, refused.n, refused.reason
            USING ERRCODE = 'invalid_parameter_value';
    END IF;

    -- Keys are counted in their order, so that two calls never deadlock.
    WITH given AS (
        SELECT u.n::integer AS n, u.key, u.type, u.payload, coalesce(u.header, '{}') AS headers, u.key_seq,
            count(*) OVER (PARTITION BY u.key) AS num_of_key,
            row_number() OVER (PARTITION BY u.key ORDER BY u.n) AS nth_of_key,
            outbox_new_event_id() AS event_id
        FROM unnest($2, $3, $4, $5, $6) WITH ORDINALITY AS u (key, type, payload, header, key_seq, n)
    ), counted AS (
        INSERT INTO outbox_key AS k (stream, key, last_seq)
        SELECT $1, given.key, count(*) FROM given
        WHERE found_stream.key_seq_source = 'counted'
        GROUP BY given.key ORDER BY given.key
        ON CONFLICT (stream, key) DO UPDATE SET last_seq = k.last_seq + excluded.last_seq
        RETURNING k.key, k.last_seq
    ), stored AS (
        INSERT INTO outbox_event (event_id, headers, key, key_seq, payload, shard, stream, type)
        SELECT given.event_id, given.headers, given.key,
            coalesce(given.key_seq, counted.last_seq - given.num_of_key + given.nth_of_key),
            given.payload,
            outbox_shard_of(given.key, found_stream.num_shards),
            $1, given.type
        FROM given LEFT JOIN counted ON counted.key = given.key
        ORDER BY given.n
        RETURNING id, created_at, key, shard
    ), undelivered AS (
        INSERT INTO outbox_delivery (id, created_at, key, place, shard, stream)
        SELECT stored.id, stored.created_at, stored.key, stored.id, stored.shard, $1 FROM stored ORDER BY stored.id
    )
    SELECT array_agg(given.event_id ORDER BY given.n) INTO event_ids FROM given;

    PERFORM outbox_wake(found_stream, woken.shard)
    FROM (
        SELECT DISTINCT outbox_shard_of(u.key, found_stream.num_shards) AS shard
        FROM unnest($2) AS u (key)
    ) AS woken;
    RETURN event_ids;
END;
$$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_append(
    stream text, key text, type text, payload jsonb, headers jsonb DEFAULT '{}', key_seq bigint DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    found_stream outbox_stream;
    new_event_id uuid := outbox_new_event_id();
    new_key_seq bigint := $6;
    new_shard integer;
    refusal text;
BEGIN
    SELECT * INTO found_stream FROM outbox_stream AS s WHERE s.stream = $1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'append to outbox: there is no stream %', coalesce(quote_literal($1), 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The streams are in table outbox_stream.';
    END IF;
    refusal := outbox_refusal(found_stream, $2, $3, $4, $5, $6);
    IF refusal IS NOT NULL THEN
        RAISE EXCEPTION 'append to outbox stream %: %', $1, refusal USING ERRCODE = 'invalid_parameter_value';
    END IF;

    IF found_stream.key_seq_source = 'counted' THEN
        INSERT INTO outbox_key AS k (stream, key, last_seq) VALUES ($1, $2, 1)
        ON CONFLICT (stream, key) DO UPDATE SET last_seq = k.last_seq + 1
        RETURNING k.last_seq INTO new_key_seq;
    END IF;
    new_shard := outbox_shard_of($2, found_stream.num_shards);
    INSERT INTO outbox_event (event_id, headers, key, key_seq, payload, shard, stream, type)
    VALUES (new_event_id, $5, $2, new_key_seq, $4, new_shard, $1, $3);
    PERFORM outbox_wake(found_stream, new_shard);
    RETURN new_event_id;
END;
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_append_many(
    stream text, keys text[], types text[], payloads jsonb[], headers jsonb[] DEFAULT NULL, key_seqs bigint[] DEFAULT NULL
) RETURNS uuid[]
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    found_stream outbox_stream;
    num_events integer := cardinality($2);
    event_ids uuid[];
    refused record;
BEGIN
    SELECT * INTO found_stream FROM outbox_stream AS s WHERE s.stream = $1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'append to outbox: there is no stream %', coalesce(quote_literal($1), 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The streams are in table outbox_stream.';
    END IF;
    IF num_events IS NULL THEN
        RAISE EXCEPTION 'append to outbox stream %: keys must not be NULL', $1 USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF num_events = 0 THEN
        RETURN '{}';
    END IF;
    IF num_events IS DISTINCT FROM cardinality($3) OR num_events IS DISTINCT FROM cardinality($4)
        OR num_events <> coalesce(cardinality($5), num_events) OR num_events <> coalesce(cardinality($6), num_events) THEN
        RAISE EXCEPTION 'append to outbox stream %: keys, types, payloads, headers and key_seqs must have one element per event', $1
            USING ERRCODE = 'invalid_parameter_value';
    END IF;

    SELECT given.n, given.reason
    INTO refused
    FROM (
        SELECT u.n, outbox_refusal(found_stream, u.key, u.type, u.payload, coalesce(u.header, '{}'), u.key_seq) AS reason
        FROM unnest($2, $3, $4, $5, $6) WITH ORDINALITY AS u (key, type, payload, header, key_seq, n)
        -- Keeps the function from being called a second time for the condition.
        OFFSET 0
    ) AS given
    WHERE given.reason IS NOT NULL
    ORDER BY given.n
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'append to outbox stream %, event %: %', $1, refused.n, refused.reason
            USING ERRCODE = 'invalid_parameter_value';
    END IF;

    -- Keys are counted in their order, so that two calls never deadlock.
    WITH given AS (
        SELECT u.n::integer AS n, u.key, u.type, u.payload, coalesce(u.header, '{}') AS headers, u.key_seq,
            count(*) OVER (PARTITION BY u.key) AS num_of_key,
            row_number() OVER (PARTITION BY u.key ORDER BY u.n) AS nth_of_key,
            outbox_new_event_id() AS event_id
        FROM unnest($2, $3, $4, $5, $6) WITH ORDINALITY AS u (key, type, payload, header, key_seq, n)
    ), counted AS (
        INSERT INTO outbox_key AS k (stream, key, last_seq)
        SELECT $1, given.key, count(*) FROM given
        WHERE found_stream.key_seq_source = 'counted'
        GROUP BY given.key ORDER BY given.key
        ON CONFLICT (stream, key) DO UPDATE SET last_seq = k.last_seq + excluded.last_seq
        RETURNING k.key, k.last_seq
    ), stored AS (
        INSERT INTO outbox_event (event_id, headers, key, key_seq, payload, shard, stream, type)
        SELECT given.event_id, given.headers, given.key,
            coalesce(given.key_seq, counted.last_seq - given.num_of_key + given.nth_of_key),
            given.payload,
            outbox_shard_of(given.key, found_stream.num_shards),
            $1, given.type
        FROM given LEFT JOIN counted ON counted.key = given.key
        ORDER BY given.n
    )
    SELECT array_agg(given.event_id ORDER BY given.n) INTO event_ids FROM given;

    PERFORM outbox_wake(found_stream, woken.shard)
    FROM (
        SELECT DISTINCT outbox_shard_of(u.key, found_stream.num_shards) AS shard
        FROM unnest($2) AS u (key)
    ) AS woken;
    RETURN event_ids;
END;
$$;
-- +goose StatementEnd

UPDATE outbox_event AS event
SET
    attempts = delivery.attempts,
    broker_ref = delivery.broker_ref,
    discard_reason = delivery.discard_reason,
    discarded_at = delivery.discarded_at,
    discarded_by = delivery.discarded_by,
    failures = delivery.failures,
    last_attempt_at = delivery.last_attempt_at,
    last_error = delivery.last_error,
    last_error_class = delivery.last_error_class,
    not_before = delivery.not_before,
    park_reason = delivery.park_reason,
    parked_at = delivery.parked_at,
    published_at = delivery.published_at
FROM outbox_delivery AS delivery
WHERE delivery.id = event.id;
DROP TABLE outbox_delivery;
DROP FUNCTION outbox_delivery_refuse_change();
