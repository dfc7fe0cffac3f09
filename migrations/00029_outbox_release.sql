-- Why:   a key that is released while a pass is past its events is held until they
--        are come to; an event leaves one gap marker for good, also when that marker
--        is in the history by now; an append that was under way while 00022 ran has
--        an event and no delivery, and is published after all; a transaction has its
--        number before it takes a place.
-- Locks: outbox_event and outbox_delivery, while events without a delivery are looked
--        for and an index on outbox_history is built, some seconds per million rows
--        each; appends and workers wait.
-- Undo:  the functions are as they were; what was mended stays.

-- +goose Up
-- In the order of an append, so that neither waits for the other.
LOCK TABLE outbox_event IN SHARE ROW EXCLUSIVE MODE;
ALTER TABLE outbox_delivery ADD COLUMN gap_left_at timestamptz;
COMMENT ON COLUMN outbox_delivery.gap_left_at IS 'When a gap marker was left in the event''s place. There is one for good, whatever becomes of the event.';
UPDATE outbox_delivery AS delivery
SET gap_left_at = coalesce(
    (SELECT min(marker.created_at) FROM outbox_event AS marker
        WHERE marker.stream = event.stream AND marker.key = event.key AND marker.key_seq = event.key_seq AND marker.type = 'truegreen.gap.v1'),
    (SELECT min(marker.created_at) FROM outbox_history AS marker
        WHERE marker.stream = event.stream AND marker.key = event.key AND marker.key_seq = event.key_seq AND marker.type = 'truegreen.gap.v1'))
FROM outbox_event AS event
WHERE event.id = delivery.id
    AND event.type <> 'truegreen.gap.v1'
    AND delivery.published_at IS NULL
    AND (delivery.parked_at IS NOT NULL OR delivery.not_before IS NOT NULL);

-- Behind later events of its key perhaps, but before those that are still to go.
INSERT INTO outbox_delivery (id, created_at, key, not_before, place, shard, stream)
SELECT event.id, event.created_at, event.key, clock_timestamp(), event.id, event.shard, event.stream
FROM outbox_event AS event
LEFT JOIN outbox_delivery AS delivery ON delivery.id = event.id
WHERE delivery.id IS NULL;

-- For the look whether a partition may be dropped; no row is ever in it.
CREATE INDEX outbox_history_undelivered_idx ON outbox_history (id) WHERE published_at IS NULL AND discarded_at IS NULL;

CREATE OR REPLACE FUNCTION outbox_new_event_id() RETURNS uuid
LANGUAGE sql VOLATILE
RETURN CASE WHEN pg_current_xact_id() IS NOT NULL THEN encode(
    set_bit(set_bit(
        overlay(
            uuid_send(gen_random_uuid())
            PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
            FROM 1 FOR 6
        ), 52, 1), 53, 1),
    'hex')::uuid END;
COMMENT ON FUNCTION outbox_new_event_id IS 'A new UUID of version 7: milliseconds first, the rest random. The transaction has a number from then on, and so before its event has a place: claims tell by the numbers which places may still be filled.';

-- +goose StatementBegin
CREATE FUNCTION outbox_hold_released(p_ids bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE outbox_delivery AS first
    SET not_before = clock_timestamp()
    WHERE first.not_before IS NULL
        AND first.published_at IS NULL
        AND first.parked_at IS NULL
        AND first.discarded_at IS NULL
        AND first.id IN (
            SELECT (
                SELECT later.id
                FROM outbox_delivery AS later
                WHERE later.stream = released.stream
                    AND later.shard = released.shard
                    AND later.key = released.key
                    AND later.place > released.place
                    AND later.published_at IS NULL
                    AND later.parked_at IS NULL
                    AND later.discarded_at IS NULL
                ORDER BY later.place, later.id
                LIMIT 1
            )
            FROM (
                SELECT delivery.stream, delivery.shard, delivery.key, min(delivery.place) AS place
                FROM outbox_delivery AS delivery
                WHERE delivery.id = ANY (p_ids)
                    AND (delivery.parked_at IS NOT NULL OR delivery.not_before IS NOT NULL)
                GROUP BY delivery.stream, delivery.shard, delivery.key
            ) AS released
        );
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION outbox_hold_released IS 'To be called where events that held back their keys are resolved by anybody but the leaseholder that comes to them: lets the next undelivered event of each key hold it instead, with a wait that is over at once. A pass that has come further must not send later ones before it.';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_leave_gaps(p_ids bigint[], p_reason text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    num_left bigint;
BEGIN
    WITH gap AS (
        UPDATE outbox_delivery AS delivery
        SET gap_left_at = clock_timestamp()
        FROM outbox_event AS event
        WHERE delivery.id = ANY (p_ids)
            AND delivery.gap_left_at IS NULL
            AND event.id = delivery.id
            -- A marker that is given up leaves no marker of its own.
            AND event.type <> 'truegreen.gap.v1'
        RETURNING delivery.place, event.event_id, event.id, event.key, event.key_seq, event.shard, event.stream, event.type
    ), marker AS (
        INSERT INTO outbox_event (key, key_seq, payload, shard, stream, type)
        SELECT
            gap.key,
            gap.key_seq,
            jsonb_build_object('event_id', gap.event_id, 'reason', p_reason, 'type', gap.type),
            gap.shard,
            gap.stream,
            'truegreen.gap.v1'
        FROM gap
        ORDER BY gap.id
        RETURNING id, created_at, key, key_seq, shard, stream
    )
    -- With a wait that is over at once: see outbox_decide.
    INSERT INTO outbox_delivery (id, created_at, key, not_before, place, shard, stream)
    SELECT marker.id, marker.created_at, marker.key, clock_timestamp(), gap.place, marker.shard, marker.stream
    FROM marker
    JOIN gap ON gap.stream = marker.stream AND gap.key = marker.key AND gap.key_seq = marker.key_seq;
    GET DIAGNOSTICS num_left = ROW_COUNT;
    RETURN num_left;
END;
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_adopt(event_ids uuid[], broker_refs text[], by_whom text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    adopted_ids bigint[];
BEGIN
    IF cardinality(event_ids) IS DISTINCT FROM cardinality(broker_refs) THEN
        RAISE EXCEPTION 'adopt events: event_ids and broker_refs must have one element per event' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    WITH held AS (
        SELECT delivery.id, event.event_id, event.key, event.key_seq, event.stream, given.broker_ref
        FROM unnest(outbox_adopt.event_ids, outbox_adopt.broker_refs) AS given (event_id, broker_ref)
        JOIN outbox_event AS event ON event.event_id = given.event_id
        JOIN outbox_delivery AS delivery ON delivery.id = event.id
        WHERE delivery.published_at IS NULL AND delivery.discarded_at IS NULL
        ORDER BY delivery.id
        FOR UPDATE OF delivery
    ), adopted AS (
        UPDATE outbox_delivery AS delivery
        SET attempts = greatest(delivery.attempts, 1), broker_ref = held.broker_ref, published_at = clock_timestamp()
        FROM held
        WHERE delivery.id = held.id
        RETURNING delivery.id, delivery.shard
    ), counted AS (
        UPDATE outbox_shard AS shard
        SET num_published = shard.num_published + per_shard.num
        FROM (SELECT held.stream, adopted.shard, count(*) AS num FROM adopted JOIN held ON held.id = adopted.id GROUP BY 1, 2) AS per_shard
        WHERE shard.stream = per_shard.stream AND shard.shard = per_shard.shard
    ), recorded AS (
        INSERT INTO outbox_intervention (act, by_whom, event_id, key, key_seq, reason, stream)
        SELECT 'adopt', outbox_adopt.by_whom, held.event_id, held.key, held.key_seq, 'the broker holds it as ' || held.broker_ref, held.stream
        FROM adopted JOIN held ON held.id = adopted.id
        ORDER BY held.id
    )
    SELECT array_agg(adopted.id) INTO adopted_ids FROM adopted;
    PERFORM outbox_hold_released(adopted_ids);
    RETURN coalesce(cardinality(adopted_ids), 0);
END;
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_decide(p_act text, p_event_ids uuid[], p_by_whom text, p_reason text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    decided bigint[];
    give_up_at timestamptz := clock_timestamp() + interval '30 seconds';
    held record;
    num_wanted bigint;
    unfit record;
BEGIN
    IF p_by_whom IS NULL OR length(p_by_whom) NOT BETWEEN 1 AND 200 THEN
        RAISE EXCEPTION '% events: by_whom must say who decides, in 1 to 200 characters', p_act USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF p_reason IS NULL OR length(p_reason) NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION '% events: reason must say why, in 1 to 1000 characters', p_act USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT count(DISTINCT given.event_id) INTO num_wanted FROM unnest(p_event_ids) AS given (event_id);
    IF num_wanted = 0 OR array_position(p_event_ids, NULL) IS NOT NULL THEN
        RAISE EXCEPTION '% events: event_ids must name at least one event, and none may be NULL', p_act USING ERRCODE = 'invalid_parameter_value';
    END IF;

    -- A lease in which an event was parked may still deliver it. Later leases leave
    -- parked events alone, and earlier ones ended before it was parked.
    LOOP
        SELECT shard.stream, shard.shard, shard.lease_owner
        INTO held
        FROM outbox_shard AS shard
        WHERE shard.lease_expires_at > clock_timestamp()
            AND EXISTS (
                SELECT FROM outbox_event AS event
                JOIN outbox_delivery AS delivery ON delivery.id = event.id
                WHERE event.event_id = ANY (p_event_ids)
                    AND delivery.stream = shard.stream
                    AND delivery.shard = shard.shard
                    AND delivery.parked_at >= shard.leased_at
            )
        LIMIT 1;
        EXIT WHEN NOT FOUND;
        IF clock_timestamp() > give_up_at THEN
            RAISE EXCEPTION '% events: worker % still holds shard % of stream %, in which one of them was parked; try again',
                p_act, held.lease_owner, held.shard, held.stream USING ERRCODE = 'lock_not_available';
        END IF;
        PERFORM pg_sleep(0.05);
    END LOOP;

    SELECT array_agg(locked.id ORDER BY locked.id)
    INTO decided
    FROM (
        SELECT delivery.id
        FROM outbox_delivery AS delivery
        JOIN outbox_event AS event ON event.id = delivery.id
        WHERE event.event_id = ANY (p_event_ids)
            AND delivery.parked_at IS NOT NULL
            AND delivery.published_at IS NULL
            AND delivery.discarded_at IS NULL
        ORDER BY delivery.id
        FOR UPDATE OF delivery
    ) AS locked;
    IF coalesce(cardinality(decided), 0) <> num_wanted THEN
        SELECT given.event_id, events.state
        INTO unfit
        FROM unnest(p_event_ids) AS given (event_id)
        LEFT JOIN outbox_events AS events ON events.event_id = given.event_id
        WHERE events.state IS DISTINCT FROM 'parked'
        LIMIT 1;
        RAISE EXCEPTION '% events: event % is %, and only parked events can be decided on; nothing was changed',
            p_act, unfit.event_id, coalesce(unfit.state, 'unknown') USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;

    INSERT INTO outbox_intervention (act, by_whom, event_id, key, key_seq, reason, stream)
    SELECT p_act, p_by_whom, event.event_id, event.key, event.key_seq, p_reason, event.stream
    FROM outbox_event AS event
    WHERE event.id = ANY (decided)
    ORDER BY event.id;

    IF p_act = 'redrive' THEN
        -- Not without a not_before: a pass that has come further by now must see that
        -- this event goes before those of its key that follow.
        UPDATE outbox_delivery
        SET crashes = 0, failures = 0, first_failed_at = NULL, not_before = clock_timestamp(), park_reason = NULL, parked_at = NULL
        WHERE id = ANY (decided);
    ELSE
        UPDATE outbox_delivery
        SET discard_reason = p_reason, discarded_at = clock_timestamp(), discarded_by = p_by_whom
        WHERE id = ANY (decided);
        PERFORM outbox_leave_gaps(decided, p_reason);
        -- Where a marker was left it holds the key; where none was, this does.
        PERFORM outbox_hold_released(decided);
    END IF;

    PERFORM outbox_wake(declared, woken.shard)
    FROM (SELECT DISTINCT delivery.stream, delivery.shard FROM outbox_delivery AS delivery WHERE delivery.id = ANY (decided)) AS woken
    JOIN outbox_stream AS declared ON declared.stream = woken.stream;
    RETURN num_wanted;
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
CREATE OR REPLACE FUNCTION outbox_decide(p_act text, p_event_ids uuid[], p_by_whom text, p_reason text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    decided bigint[];
    give_up_at timestamptz := clock_timestamp() + interval '30 seconds';
    held record;
    num_wanted bigint;
    unfit record;
BEGIN
    IF p_by_whom IS NULL OR length(p_by_whom) NOT BETWEEN 1 AND 200 THEN
        RAISE EXCEPTION '% events: by_whom must say who decides, in 1 to 200 characters', p_act USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF p_reason IS NULL OR length(p_reason) NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION '% events: reason must say why, in 1 to 1000 characters', p_act USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT count(DISTINCT given.event_id) INTO num_wanted FROM unnest(p_event_ids) AS given (event_id);
    IF num_wanted = 0 OR array_position(p_event_ids, NULL) IS NOT NULL THEN
        RAISE EXCEPTION '% events: event_ids must name at least one event, and none may be NULL', p_act USING ERRCODE = 'invalid_parameter_value';
    END IF;

    -- A lease in which an event was parked may still deliver it. Later leases leave
    -- parked events alone, and earlier ones ended before it was parked.
    LOOP
        SELECT shard.stream, shard.shard, shard.lease_owner
        INTO held
        FROM outbox_shard AS shard
        WHERE shard.lease_expires_at > clock_timestamp()
            AND EXISTS (
                SELECT FROM outbox_event AS event
                JOIN outbox_delivery AS delivery ON delivery.id = event.id
                WHERE event.event_id = ANY (p_event_ids)
                    AND delivery.stream = shard.stream
                    AND delivery.shard = shard.shard
                    AND delivery.parked_at >= shard.leased_at
            )
        LIMIT 1;
        EXIT WHEN NOT FOUND;
        IF clock_timestamp() > give_up_at THEN
            RAISE EXCEPTION '% events: worker % still holds shard % of stream %, in which one of them was parked; try again',
                p_act, held.lease_owner, held.shard, held.stream USING ERRCODE = 'lock_not_available';
        END IF;
        PERFORM pg_sleep(0.05);
    END LOOP;

    SELECT array_agg(locked.id ORDER BY locked.id)
    INTO decided
    FROM (
        SELECT delivery.id
        FROM outbox_delivery AS delivery
        JOIN outbox_event AS event ON event.id = delivery.id
        WHERE event.event_id = ANY (p_event_ids)
            AND delivery.parked_at IS NOT NULL
            AND delivery.published_at IS NULL
            AND delivery.discarded_at IS NULL
        ORDER BY delivery.id
        FOR UPDATE OF delivery
    ) AS locked;
    IF coalesce(cardinality(decided), 0) <> num_wanted THEN
        SELECT given.event_id, events.state
        INTO unfit
        FROM unnest(p_event_ids) AS given (event_id)
        LEFT JOIN outbox_events AS events ON events.event_id = given.event_id
        WHERE events.state IS DISTINCT FROM 'parked'
        LIMIT 1;
        RAISE EXCEPTION '% events: event % is %, and only parked events can be decided on; nothing was changed',
            p_act, unfit.event_id, coalesce(unfit.state, 'unknown') USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;

    INSERT INTO outbox_intervention (act, by_whom, event_id, key, key_seq, reason, stream)
    SELECT p_act, p_by_whom, event.event_id, event.key, event.key_seq, p_reason, event.stream
    FROM outbox_event AS event
    WHERE event.id = ANY (decided)
    ORDER BY event.id;

    IF p_act = 'redrive' THEN
        -- Not without a not_before: a pass that has come further by now must see that
        -- this event goes before those of its key that follow.
        UPDATE outbox_delivery
        SET crashes = 0, failures = 0, first_failed_at = NULL, not_before = clock_timestamp(), park_reason = NULL, parked_at = NULL
        WHERE id = ANY (decided);
    ELSE
        UPDATE outbox_delivery
        SET discard_reason = p_reason, discarded_at = clock_timestamp(), discarded_by = p_by_whom
        WHERE id = ANY (decided);
        PERFORM outbox_leave_gaps(decided, p_reason);
    END IF;

    PERFORM outbox_wake(declared, woken.shard)
    FROM (SELECT DISTINCT delivery.stream, delivery.shard FROM outbox_delivery AS delivery WHERE delivery.id = ANY (decided)) AS woken
    JOIN outbox_stream AS declared ON declared.stream = woken.stream;
    RETURN num_wanted;
END;
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_adopt(event_ids uuid[], broker_refs text[], by_whom text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    num_adopted bigint;
BEGIN
    IF cardinality(event_ids) IS DISTINCT FROM cardinality(broker_refs) THEN
        RAISE EXCEPTION 'adopt events: event_ids and broker_refs must have one element per event' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    WITH held AS (
        SELECT delivery.id, event.event_id, event.key, event.key_seq, event.stream, given.broker_ref
        FROM unnest(outbox_adopt.event_ids, outbox_adopt.broker_refs) AS given (event_id, broker_ref)
        JOIN outbox_event AS event ON event.event_id = given.event_id
        JOIN outbox_delivery AS delivery ON delivery.id = event.id
        WHERE delivery.published_at IS NULL AND delivery.discarded_at IS NULL
        ORDER BY delivery.id
        FOR UPDATE OF delivery
    ), adopted AS (
        UPDATE outbox_delivery AS delivery
        SET attempts = greatest(delivery.attempts, 1), broker_ref = held.broker_ref, published_at = clock_timestamp()
        FROM held
        WHERE delivery.id = held.id
        RETURNING delivery.id, delivery.shard
    ), counted AS (
        UPDATE outbox_shard AS shard
        SET num_published = shard.num_published + per_shard.num
        FROM (SELECT held.stream, adopted.shard, count(*) AS num FROM adopted JOIN held ON held.id = adopted.id GROUP BY 1, 2) AS per_shard
        WHERE shard.stream = per_shard.stream AND shard.shard = per_shard.shard
    )
    INSERT INTO outbox_intervention (act, by_whom, event_id, key, key_seq, reason, stream)
    SELECT 'adopt', outbox_adopt.by_whom, held.event_id, held.key, held.key_seq, 'the broker holds it as ' || held.broker_ref, held.stream
    FROM adopted JOIN held ON held.id = adopted.id
    ORDER BY held.id;
    GET DIAGNOSTICS num_adopted = ROW_COUNT;
    RETURN num_adopted;
END;
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_leave_gaps(p_ids bigint[], p_reason text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    num_left bigint;
BEGIN
    WITH marker AS (
        INSERT INTO outbox_event (key, key_seq, payload, shard, stream, type)
        SELECT
            event.key,
            event.key_seq,
            jsonb_build_object('event_id', event.event_id, 'reason', p_reason, 'type', event.type),
            event.shard,
            event.stream,
            'truegreen.gap.v1'
        FROM outbox_event AS event
        WHERE event.id = ANY (p_ids)
            -- A marker that is given up leaves no marker of its own.
            AND event.type <> 'truegreen.gap.v1'
        ORDER BY event.id
        ON CONFLICT (stream, key, key_seq) WHERE type = 'truegreen.gap.v1' DO NOTHING
        RETURNING id, created_at, key, key_seq, shard, stream
    )
    -- With a wait that is over at once: see outbox_decide.
    INSERT INTO outbox_delivery (id, created_at, key, not_before, place, shard, stream)
    SELECT marker.id, marker.created_at, marker.key, clock_timestamp(), delivery.place, marker.shard, marker.stream
    FROM marker
    JOIN outbox_event AS event
        ON event.stream = marker.stream AND event.key = marker.key AND event.key_seq = marker.key_seq AND event.type <> 'truegreen.gap.v1'
    JOIN outbox_delivery AS delivery ON delivery.id = event.id;
    GET DIAGNOSTICS num_left = ROW_COUNT;
    RETURN num_left;
END;
$$;
-- +goose StatementEnd

CREATE OR REPLACE FUNCTION outbox_new_event_id() RETURNS uuid
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
DROP FUNCTION outbox_hold_released(bigint[]);
DROP INDEX outbox_history_undelivered_idx;
ALTER TABLE outbox_delivery DROP COLUMN gap_left_at;
