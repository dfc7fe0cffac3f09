-- Why:   one append for every language, in the caller's transaction, which
--        refuses what the broker would refuse and assures a publish job.
-- Locks: none; new functions.
-- Undo:  drops them.

-- +goose Up
-- +goose StatementBegin
CREATE FUNCTION outbox_refusal(
    p_stream outbox_stream, p_key text, p_type text, p_payload jsonb, p_headers jsonb, p_key_seq bigint
) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    num_bytes integer;
    header record;
BEGIN
    IF p_stream.key_seq_source = 'supplied' AND (p_key_seq IS NULL OR p_key_seq < 1) THEN
        RETURN format('key_seq must be given and above 0: stream %s takes the version of the caller''s aggregate', p_stream.stream);
    END IF;
    IF p_stream.key_seq_source = 'counted' AND p_key_seq IS NOT NULL THEN
        RETURN format('key_seq must be left out: stream %s counts per key by itself', p_stream.stream);
    END IF;
    IF p_key IS NULL OR length(p_key) NOT BETWEEN 1 AND 260 OR p_key ~ '[[:cntrl:]]' THEN
        RETURN 'key must have 1 to 260 characters, none of them a control character';
    END IF;
    IF p_type IS NULL OR length(p_type) > 128 OR p_type !~ '^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){0,7}$' THEN
        RETURN format('type %s must be 1 to 8 tokens of A-Z a-z 0-9 _ - joined by dots, at most 128 bytes', coalesce(quote_literal(p_type), 'NULL'));
    END IF;
    IF p_payload IS NULL THEN
        RETURN 'payload must not be NULL';
    END IF;
    num_bytes := octet_length(p_payload::text);
    IF p_headers IS NULL OR jsonb_typeof(p_headers) <> 'object' THEN
        RETURN 'headers must be a JSON object';
    END IF;
    IF p_headers <> '{}' THEN
        num_bytes := num_bytes + octet_length(p_headers::text);
        FOR header IN SELECT name, value FROM jsonb_each(p_headers) AS h (name, value) LOOP
            IF header.name !~ '^[A-Za-z0-9_-]{1,64}$' OR header.name ~* '^(ce|nats)-' THEN
                RETURN format('header name %L must be 1 to 64 of A-Z a-z 0-9 _ - and must not start with ce- or Nats-', header.name);
            END IF;
            IF jsonb_typeof(header.value) <> 'string' OR header.value #>> '{}' ~ '[[:cntrl:]]' THEN
                RETURN format('header %s must be a string without control characters', header.name);
            END IF;
        END LOOP;
    END IF;
    IF num_bytes > p_stream.max_event_bytes THEN
        RETURN format('payload and headers have %s bytes, more than the %s that stream %s takes', num_bytes, p_stream.max_event_bytes, p_stream.stream);
    END IF;
    RETURN NULL;
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION outbox_refusal IS 'Why an event cannot be appended to a stream, in words for the caller; NULL if it can.';

-- Plain SQL, so that it is inlined where it is called.
CREATE FUNCTION outbox_shard_of(p_key text, p_num_shards integer) RETURNS integer
LANGUAGE sql IMMUTABLE
RETURN mod(hashtextextended(p_key, 0) & 9223372036854775807, p_num_shards)::integer;
COMMENT ON FUNCTION outbox_shard_of IS 'The shard of a key: the same for ever, so that one leaseholder sees a key''s events in order.';

-- +goose StatementBegin
CREATE FUNCTION outbox_wake(p_stream outbox_stream, p_shard integer) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    looked_after boolean;
BEGIN
    -- A leaseholder that is awake finds the row by itself; a shard in backoff has
    -- an errored job that comes back. Reading needs no lock, so no append waits
    -- for another. A wake-up that gets lost between the two is the sweep's.
    SELECT greatest(shard.awake_until, shard.backoff_until) > clock_timestamp()
    INTO looked_after
    FROM outbox_shard AS shard
    WHERE shard.stream = p_stream.stream AND shard.shard = p_shard;
    IF looked_after THEN
        RETURN false;
    END IF;

    INSERT INTO river_job (args, kind, max_attempts, queue)
    SELECT jsonb_build_object('shard', p_shard), p_stream.job_kind, 20, p_stream.queue
    WHERE NOT EXISTS (
        SELECT FROM river_job AS job
        WHERE job.state = 'available'
            AND job.queue = p_stream.queue
            AND job.kind = p_stream.job_kind
            AND job.args = jsonb_build_object('shard', p_shard)
            AND job.scheduled_at <= clock_timestamp() + interval '1 second'
    );
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM pg_notify(current_schema() || '.river_insert', json_build_object('queue', p_stream.queue)::text);
    RETURN true;
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION outbox_wake IS 'Assures that a publish job for the shard runs soon; true if it inserted one.';

-- +goose StatementBegin
CREATE FUNCTION outbox_append(
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
COMMENT ON FUNCTION outbox_append IS 'Stores an event in the caller''s transaction, and assures that it is published after the commit. Rolled back, nothing stays. Refuses what the broker would refuse. key: the ordering key; key_seq: the version of the caller''s aggregate for streams that take it, else left out. Returns the event''s id.';

-- +goose StatementBegin
CREATE FUNCTION outbox_append_many(
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
COMMENT ON FUNCTION outbox_append_many IS 'outbox_append for many events of one stream in one call, stored in the order given; all or none. Returns their ids in that order.';

-- +goose Down
DROP FUNCTION outbox_append_many;
DROP FUNCTION outbox_append;
DROP FUNCTION outbox_wake;
DROP FUNCTION outbox_shard_of;
DROP FUNCTION outbox_refusal;
