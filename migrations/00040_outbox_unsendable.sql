-- Why:   a broker's headers carry no space at either end of a value: consumers would read
--        'trail' where the key is 'trail ', take two keys for one, and drop events. Such
--        keys and values are refused, and so is a content-type header, which was dropped.
-- Locks: none; functions.
-- Undo:  the functions are as they were.

-- +goose Up
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_refusal(
    p_stream outbox_stream, p_key text, p_type text, p_payload jsonb, p_headers jsonb, p_key_seq bigint
) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    -- Escapes that mean the same whatever the caller has set, and no [[:cntrl:]], which
    -- depends on the collation.
    control CONSTANT text := E'[\\u0001-\\u001f\\u007f-\\u009f\\u2028\\u2029]';
    outer_space CONSTANT text := E'^[\\u0020\\u00a0\\u1680\\u2000-\\u200a\\u202f\\u205f\\u3000\\ufeff]+|[\\u0020\\u00a0\\u1680\\u2000-\\u200a\\u202f\\u205f\\u3000\\ufeff]+$';
    num_bytes integer;
    header record;
BEGIN
    IF p_stream.key_seq_source = 'supplied' AND (p_key_seq IS NULL OR p_key_seq < 1) THEN
        RETURN format('key_seq must be given and above 0: stream %s takes the version of the caller''s aggregate', p_stream.stream);
    END IF;
    IF p_stream.key_seq_source = 'counted' AND p_key_seq IS NOT NULL THEN
        RETURN format('key_seq must be left out: stream %s counts per key by itself', p_stream.stream);
    END IF;
    IF p_key IS NULL OR length(p_key) NOT BETWEEN 1 AND 260 THEN
        RETURN 'key must have 1 to 260 characters';
    END IF;
    IF p_key ~ control THEN
        RETURN format('key must not have control characters: character %s is U+%s',
            position(substring(p_key FROM control) IN p_key), lpad(upper(to_hex(ascii(substring(p_key FROM control)))), 4, '0'));
    END IF;
    IF p_key ~ outer_space THEN
        RETURN format('key %L must not begin or end with a space, which the broker does not carry: use %L', p_key, regexp_replace(p_key, outer_space, '', 'g'));
    END IF;
    IF p_type IS NULL OR length(p_type) > 128 OR p_type !~ '^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+){0,7}$' THEN
        RETURN format('type %s must be 1 to 8 tokens of A-Z a-z 0-9 _ - joined by dots, at most 128 bytes', coalesce(quote_literal(p_type), 'NULL'));
    END IF;
    IF starts_with(p_type, 'truegreen.') THEN
        RETURN format('type %L must not start with truegreen., which is for the outbox''s own markers', p_type);
    END IF;
    IF p_payload IS NULL THEN
        RETURN 'payload must not be NULL';
    END IF;
    num_bytes := octet_length(p_payload::text);
    IF p_headers IS NULL OR jsonb_typeof(p_headers) <> 'object' THEN
        RETURN 'headers must be a JSON object';
    END IF;
    IF p_headers <> '{}' THEN
        IF octet_length(p_headers::text) > 32768 THEN
            RETURN format('headers have %s bytes, more than the 32768 that go along with a message', octet_length(p_headers::text));
        END IF;
        num_bytes := num_bytes + octet_length(p_headers::text);
        FOR header IN SELECT name, value FROM jsonb_each(p_headers) AS h (name, value) LOOP
            IF header.name !~ '^[A-Za-z0-9_-]{1,64}$' OR header.name ~* '^(ce|nats)-' THEN
                RETURN format('header name %L must be 1 to 64 of A-Z a-z 0-9 _ - and must not start with ce- or Nats-', header.name);
            END IF;
            IF header.name IN ('traceparent', 'tracestate') AND octet_length(header.value #>> '{}') > 512 THEN
                RETURN format('header %s must have at most 512 bytes', header.name);
            END IF;
            IF lower(header.name) = 'content-type' THEN
                RETURN format('header %s is not for the caller: the outbox sets it to application/json, so leave it out', header.name);
            END IF;
            IF jsonb_typeof(header.value) <> 'string' THEN
                RETURN format('header %s must be a string', header.name);
            END IF;
            IF header.value #>> '{}' ~ control THEN
                RETURN format('header %s must not have control characters: character %s is U+%s', header.name,
                    position(substring(header.value #>> '{}' FROM control) IN header.value #>> '{}'),
                    lpad(upper(to_hex(ascii(substring(header.value #>> '{}' FROM control)))), 4, '0'));
            END IF;
            IF header.value #>> '{}' ~ outer_space THEN
                RETURN format('header %s is %L and must not begin or end with a space, which the broker does not carry: use %L',
                    header.name, header.value #>> '{}', regexp_replace(header.value #>> '{}', outer_space, '', 'g'));
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

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_append(
    stream text, key text, type text, payload jsonb, headers jsonb DEFAULT '{}', key_seq bigint DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    found_stream outbox_stream;
    looked_after boolean;
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
    -- What is usual passes by one expression: each one of a function costs time in
    -- every transaction anew. Whatever it does not know is judged by outbox_refusal.
    IF (
        CASE found_stream.key_seq_source WHEN 'supplied' THEN $6 >= 1 ELSE $6 IS NULL END
        AND length($2) BETWEEN 1 AND 260 AND $2 !~ E'[\\u0001-\\u001f\\u007f-\\u009f\\u2028\\u2029]|^[\\u0020\\u00a0\\u1680\\u2000-\\u200a\\u202f\\u205f\\u3000\\ufeff]|[\\u0020\\u00a0\\u1680\\u2000-\\u200a\\u202f\\u205f\\u3000\\ufeff]$'
        AND length($3) <= 128 AND $3 ~ '^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+){0,7}$' AND NOT starts_with($3, 'truegreen.')
        AND $5 = '{}'
        AND octet_length($4::text) <= found_stream.max_event_bytes
    ) IS NOT TRUE THEN
        refusal := outbox_refusal(found_stream, $2, $3, $4, $5, $6);
        IF refusal IS NOT NULL THEN
            RAISE EXCEPTION 'append to outbox stream %: %', $1, refusal USING ERRCODE = 'invalid_parameter_value';
        END IF;
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
    ), undelivered AS (
        INSERT INTO outbox_delivery (id, created_at, key, place, shard, stream)
        SELECT stored.id, stored.created_at, $2, stored.id, new_shard, $1 FROM stored
    )
    -- As outbox_wake asks first.
    SELECT greatest(shard.awake_until, shard.backoff_until) > clock_timestamp()
    INTO looked_after
    FROM outbox_shard AS shard
    WHERE shard.stream = $1 AND shard.shard = new_shard;
    IF looked_after IS NOT TRUE THEN
        PERFORM outbox_wake(found_stream, new_shard);
    END IF;
    RETURN new_event_id;
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
    looked_after boolean;
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
    -- What is usual passes by one expression: each one of a function costs time in
    -- every transaction anew. Whatever it does not know is judged by outbox_refusal.
    IF (
        CASE found_stream.key_seq_source WHEN 'supplied' THEN $6 >= 1 ELSE $6 IS NULL END
        AND length($2) BETWEEN 1 AND 260 AND $2 !~ '[[:cntrl:]]'
        AND length($3) <= 128 AND $3 ~ '^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){0,7}$' AND NOT starts_with($3, 'truegreen.')
        AND $5 = '{}'
        AND octet_length($4::text) <= found_stream.max_event_bytes
    ) IS NOT TRUE THEN
        refusal := outbox_refusal(found_stream, $2, $3, $4, $5, $6);
        IF refusal IS NOT NULL THEN
            RAISE EXCEPTION 'append to outbox stream %: %', $1, refusal USING ERRCODE = 'invalid_parameter_value';
        END IF;
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
    ), undelivered AS (
        INSERT INTO outbox_delivery (id, created_at, key, place, shard, stream)
        SELECT stored.id, stored.created_at, $2, stored.id, new_shard, $1 FROM stored
    )
    -- As outbox_wake asks first.
    SELECT greatest(shard.awake_until, shard.backoff_until) > clock_timestamp()
    INTO looked_after
    FROM outbox_shard AS shard
    WHERE shard.stream = $1 AND shard.shard = new_shard;
    IF looked_after IS NOT TRUE THEN
        PERFORM outbox_wake(found_stream, new_shard);
    END IF;
    RETURN new_event_id;
END;
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_refusal(
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
    IF starts_with(p_type, 'truegreen.') THEN
        RETURN format('type %L must not start with truegreen., which is for the outbox''s own markers', p_type);
    END IF;
    IF p_payload IS NULL THEN
        RETURN 'payload must not be NULL';
    END IF;
    num_bytes := octet_length(p_payload::text);
    IF p_headers IS NULL OR jsonb_typeof(p_headers) <> 'object' THEN
        RETURN 'headers must be a JSON object';
    END IF;
    IF p_headers <> '{}' THEN
        IF octet_length(p_headers::text) > 32768 THEN
            RETURN format('headers have %s bytes, more than the 32768 that go along with a message', octet_length(p_headers::text));
        END IF;
        num_bytes := num_bytes + octet_length(p_headers::text);
        FOR header IN SELECT name, value FROM jsonb_each(p_headers) AS h (name, value) LOOP
            IF header.name !~ '^[A-Za-z0-9_-]{1,64}$' OR header.name ~* '^(ce|nats)-' THEN
                RETURN format('header name %L must be 1 to 64 of A-Z a-z 0-9 _ - and must not start with ce- or Nats-', header.name);
            END IF;
            IF header.name IN ('traceparent', 'tracestate') AND octet_length(header.value #>> '{}') > 512 THEN
                RETURN format('header %s must have at most 512 bytes', header.name);
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
