-- Why:   an event that cannot be delivered waits for a person, who sends it again
--        or gives it up, with a name and a reason; and a worker that died leaves
--        what it had in flight to be taken over with care.
-- Locks: ACCESS EXCLUSIVE on outbox_shard for an instant.
-- Undo:  drops who intervened and why; what was redriven or discarded stays so.

-- +goose Up
SET LOCAL lock_timeout = '2s';
ALTER TABLE outbox_shard
    ADD COLUMN batch_limit integer,
    ADD COLUMN inflight_first bigint,
    ADD COLUMN inflight_last bigint,
    ADD COLUMN inflight_num integer,
    ADD COLUMN leased_at timestamptz,
    ADD CONSTRAINT inflight_all_or_nothing CHECK (num_nonnulls(inflight_first, inflight_last, inflight_num) IN (0, 3));
COMMENT ON COLUMN outbox_shard.batch_limit IS 'The most that is sent at once, while the shard recovers from workers that died; NULL: no such bound.';
COMMENT ON COLUMN outbox_shard.inflight_first IS 'The first place of what the leaseholder has in flight; with inflight_last, and inflight_num events. Not NULL in an expired lease: its holder died with them.';
COMMENT ON COLUMN outbox_shard.leased_at IS 'When the present lease, or the last one, began.';

CREATE TABLE outbox_intervention (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    act text NOT NULL,
    by_whom text NOT NULL,
    event_id uuid NOT NULL,
    key text NOT NULL,
    key_seq bigint NOT NULL,
    reason text NOT NULL,
    stream text NOT NULL,
    CONSTRAINT act_is_known CHECK (act IN ('adopt', 'discard', 'redrive')),
    CONSTRAINT by_whom_length CHECK (length(by_whom) BETWEEN 1 AND 200),
    CONSTRAINT reason_length CHECK (length(reason) BETWEEN 1 AND 1000)
);
COMMENT ON TABLE outbox_intervention IS 'What people did to events, one row for each event: sent a parked one again (redrive), gave it up (discard), or took over from the broker that it was delivered (adopt). Only ever added to.';
CREATE INDEX outbox_intervention_event_idx ON outbox_intervention (event_id);
-- +goose StatementBegin
CREATE FUNCTION outbox_intervention_refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what was done to events is not changed or deleted: % is refused', TG_OP USING ERRCODE = 'restrict_violation';
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION outbox_intervention_refuse_change() IS 'Trigger: keeps the record of interventions as it was written.';
CREATE TRIGGER outbox_intervention_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON outbox_intervention
    FOR EACH STATEMENT
    EXECUTE FUNCTION outbox_intervention_refuse_change();

CREATE VIEW outbox_parked AS
SELECT
    delivery.stream,
    event.event_id,
    delivery.key,
    event.key_seq,
    event.type,
    delivery.parked_at,
    delivery.park_reason,
    delivery.last_error_class,
    delivery.last_error,
    delivery.attempts,
    delivery.failures,
    event.created_at,
    stream.park_policy,
    delivery.id
FROM outbox_delivery AS delivery
JOIN outbox_event AS event ON event.id = delivery.id
JOIN outbox_stream AS stream ON stream.stream = delivery.stream
WHERE delivery.parked_at IS NOT NULL
    AND delivery.published_at IS NULL
    AND delivery.discarded_at IS NULL;
COMMENT ON VIEW outbox_parked IS 'Events that wait for a person, and why. park_policy block: later events of the key wait too; skip: they went on, behind a gap marker. Decide with outbox_redrive or outbox_discard.';

-- +goose StatementBegin
CREATE FUNCTION outbox_leave_gaps(p_ids bigint[], p_reason text) RETURNS bigint
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
COMMENT ON FUNCTION outbox_leave_gaps IS 'Appends a gap marker for each event that is not to be sent: of its key and key_seq and in its place, so that consumers see why the sequence has a hole. One marker per event, however often it is called. Returns how many it appended.';

-- +goose StatementBegin
CREATE FUNCTION outbox_decide(p_act text, p_event_ids uuid[], p_by_whom text, p_reason text) RETURNS bigint
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
COMMENT ON FUNCTION outbox_decide IS 'What outbox_redrive and outbox_discard have in common: all given events or none.';

CREATE FUNCTION outbox_redrive(event_ids uuid[], by_whom text, reason text) RETURNS bigint
LANGUAGE sql
RETURN outbox_decide('redrive', event_ids, by_whom, reason);
COMMENT ON FUNCTION outbox_redrive IS 'Sends parked events again, as if they had never failed, and assures a job for it. All of them or none; recorded with who and why. On a stream whose park_policy is skip, an event is published behind later ones of its key. Waits for a lease that may still deliver one. Returns how many.';

CREATE FUNCTION outbox_discard(event_ids uuid[], by_whom text, reason text) RETURNS bigint
LANGUAGE sql
RETURN outbox_decide('discard', event_ids, by_whom, reason);
COMMENT ON FUNCTION outbox_discard IS 'Gives parked events up for good: each is replaced by a gap marker, behind which later events of its key go on. All of them or none; recorded with who and why. Waits for a lease that may still deliver one. Returns how many.';

-- +goose StatementBegin
CREATE FUNCTION outbox_adopt(event_ids uuid[], broker_refs text[], by_whom text) RETURNS bigint
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
COMMENT ON FUNCTION outbox_adopt IS 'Marks undelivered events as published where the broker is known to hold them already, as after the restore of an older backup of the database; recorded with who. Events that are published or discarded stay as they are. Returns how many it marked. ''truegreen outbox reconcile --adopt'' finds out which they are.';

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

-- +goose Down
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
DROP FUNCTION outbox_adopt;
DROP FUNCTION outbox_discard;
DROP FUNCTION outbox_redrive;
DROP FUNCTION outbox_decide;
DROP FUNCTION outbox_leave_gaps;
DROP VIEW outbox_parked;
DROP TABLE outbox_intervention;
DROP FUNCTION outbox_intervention_refuse_change();
ALTER TABLE outbox_shard
    DROP CONSTRAINT inflight_all_or_nothing,
    DROP COLUMN batch_limit,
    DROP COLUMN inflight_first,
    DROP COLUMN inflight_last,
    DROP COLUMN inflight_num,
    DROP COLUMN leased_at;
