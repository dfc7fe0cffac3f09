-- Why:   an operator can give up every event that is not delivered, and not only one that
--        is parked: an event that fails as if the broker were to blame is never parked.
-- Locks: ACCESS EXCLUSIVE on outbox_shard for an instant.
-- Undo:  only parked events can be given up.

-- +goose Up
SET LOCAL lock_timeout = '2s';
ALTER TABLE outbox_shard ADD COLUMN num_decisions bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN outbox_shard.num_decisions IS 'How often an operator gave up events of the shard that were not parked. A claim that began before such a decision and waited for it finds nothing: it read the events as they were.';

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
    -- parked events alone, and earlier ones ended before it was parked. One that is not
    -- parked may be delivered by a lease that has it in flight. Nobody puts it in flight
    -- while its shard is locked here; a claim that began before sees num_decisions change.
    LOOP
        BEGIN
            -- In the order in which marks lock them: events, then their shard.
            SELECT array_agg(locked.id ORDER BY locked.id)
            INTO decided
            FROM (
                SELECT delivery.id
                FROM outbox_delivery AS delivery
                JOIN outbox_event AS event ON event.id = delivery.id
                WHERE event.event_id = ANY (p_event_ids)
                    AND (delivery.parked_at IS NOT NULL OR p_act = 'discard')
                    AND delivery.published_at IS NULL
                    AND delivery.discarded_at IS NULL
                ORDER BY delivery.id
                FOR UPDATE OF delivery
            ) AS locked;
            PERFORM
            FROM outbox_shard AS shard
            WHERE (shard.stream, shard.shard) IN (
                SELECT delivery.stream, delivery.shard
                FROM outbox_delivery AS delivery
                WHERE delivery.id = ANY (decided)
                    AND delivery.parked_at IS NULL
            )
            ORDER BY shard.stream, shard.shard
            FOR UPDATE;
            SELECT shard.stream, shard.shard, shard.lease_owner
            INTO held
            FROM outbox_shard AS shard
            WHERE shard.lease_expires_at > clock_timestamp()
                AND EXISTS (
                    SELECT FROM outbox_delivery AS delivery
                    WHERE delivery.id = ANY (decided)
                        AND delivery.stream = shard.stream
                        AND delivery.shard = shard.shard
                        AND (
                            delivery.parked_at >= shard.leased_at
                            OR (delivery.parked_at IS NULL AND delivery.place BETWEEN shard.inflight_first AND shard.inflight_last)
                        )
                )
            LIMIT 1;
            EXIT WHEN NOT FOUND;
            -- Lets go of the locks, which the lease needs to come to its end.
            RAISE EXCEPTION 'still held' USING ERRCODE = 'TGHLD';
        EXCEPTION
            WHEN SQLSTATE 'TGHLD' THEN NULL;
        END;
        IF clock_timestamp() > give_up_at THEN
            RAISE EXCEPTION '% events: worker % still holds shard % of stream % and may deliver one of them; try again',
                p_act, held.lease_owner, held.shard, held.stream USING ERRCODE = 'lock_not_available';
        END IF;
        PERFORM pg_sleep(0.05);
    END LOOP;

    IF coalesce(cardinality(decided), 0) <> num_wanted THEN
        SELECT given.event_id, events.state
        INTO unfit
        FROM unnest(p_event_ids) AS given (event_id)
        LEFT JOIN outbox_events AS events ON events.event_id = given.event_id
        WHERE CASE
            WHEN p_act = 'discard' THEN events.state IS NULL OR events.state IN ('published', 'discarded')
            ELSE events.state IS DISTINCT FROM 'parked'
        END
        LIMIT 1;
        RAISE EXCEPTION '% events: event % is %, and only % events can be %; nothing was changed',
            p_act, unfit.event_id, coalesce(unfit.state, 'unknown'),
            CASE p_act WHEN 'discard' THEN 'undelivered' ELSE 'parked' END,
            CASE p_act WHEN 'discard' THEN 'discarded' ELSE 'redriven' END
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    UPDATE outbox_shard AS shard
    SET num_decisions = shard.num_decisions + 1
    WHERE (shard.stream, shard.shard) IN (
        SELECT delivery.stream, delivery.shard
        FROM outbox_delivery AS delivery
        WHERE delivery.id = ANY (decided)
            AND delivery.parked_at IS NULL
    );

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
COMMENT ON FUNCTION outbox_discard IS 'Gives undelivered events up for good, parked or not: each is replaced by a gap marker, after which later events of its key continue. All of them or none; recorded with who and why. Waits for a lease that may still deliver one. Returns how many.';

-- +goose Down
SET LOCAL lock_timeout = '2s';
COMMENT ON FUNCTION outbox_discard IS 'Gives parked events up for good: each is replaced by a gap marker, behind which later events of its key go on. All of them or none; recorded with who and why. Waits for a lease that may still deliver one. Returns how many.';
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
ALTER TABLE outbox_shard DROP COLUMN num_decisions;
