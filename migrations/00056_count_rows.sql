-- Why:   a trigger, a rule or a policy may keep a statement from its rows, and the database
--        reports no error then. An append returned the id of an event that was not stored,
--        a move removed delivered events that had not reached the history, a chunk credited
--        players without entries in the ledger or without events. Each function that
--        changes rows now counts them, and fails when they are fewer than they are to be.
-- Locks: each function's own, for a moment.
-- Undo:  down restores the functions as they were.

-- +goose Up
SET LOCAL lock_timeout = '2s';
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_adopt(event_ids uuid[], broker_refs text[], by_whom text)
 RETURNS bigint
 LANGUAGE plpgsql
AS $function$
DECLARE
    adopted_ids bigint[];
    num_recorded bigint;
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
        RETURNING id
    )
    SELECT array_agg(adopted.id), (SELECT count(*) FROM recorded) INTO adopted_ids, num_recorded FROM adopted;
    IF num_recorded <> coalesce(cardinality(adopted_ids), 0) THEN
        RAISE EXCEPTION 'adopt events: who adopted % events was recorded for % of them: nothing was changed', cardinality(adopted_ids), num_recorded
            USING ERRCODE = 'TG002';
    END IF;
    PERFORM outbox_hold_released(adopted_ids);
    RETURN coalesce(cardinality(adopted_ids), 0);
END;
$function$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_append(stream text, key text, type text, payload jsonb, headers jsonb DEFAULT '{}'::jsonb, key_seq bigint DEFAULT NULL::bigint)
 RETURNS uuid
 LANGUAGE plpgsql
AS $function$
#variable_conflict use_column
DECLARE
    found_stream outbox_stream;
    looked_after boolean;
    new_event_id uuid := outbox_new_event_id();
    new_key_seq bigint := $6;
    new_shard integer;
    num_stored bigint;
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
        RETURNING 1 -- no column: appending needs no right to read the table
    )
    -- As outbox_wake asks first.
    SELECT
        (SELECT count(*) FROM undelivered),
        (SELECT greatest(shard.awake_until, shard.backoff_until) > clock_timestamp()
            FROM outbox_shard AS shard
            WHERE shard.stream = $1 AND shard.shard = new_shard)
    INTO num_stored, looked_after;
    IF num_stored <> 1 THEN
        RAISE EXCEPTION 'append to outbox stream %: the event was not stored: does a trigger, rule or policy on outbox_event or outbox_delivery keep it from it?', $1
            USING ERRCODE = 'TG002';
    END IF;
    IF looked_after IS NOT TRUE THEN
        PERFORM outbox_wake(found_stream, new_shard);
    END IF;
    RETURN new_event_id;
END;
$function$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_append_many(stream text, keys text[], types text[], payloads jsonb[], headers jsonb[] DEFAULT NULL::jsonb[], key_seqs bigint[] DEFAULT NULL::bigint[])
 RETURNS uuid[]
 LANGUAGE plpgsql
AS $function$
#variable_conflict use_column
DECLARE
    found_stream outbox_stream;
    num_events integer := cardinality($2);
    num_stored bigint;
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
        RETURNING 1 -- no column: appending needs no right to read the table
    )
    SELECT array_agg(given.event_id ORDER BY given.n), (SELECT count(*) FROM undelivered) INTO event_ids, num_stored FROM given;
    IF num_stored <> num_events THEN
        RAISE EXCEPTION 'append to outbox stream %: % of % events were stored: does a trigger, rule or policy on outbox_event or outbox_delivery keep them from it?',
            $1, num_stored, num_events USING ERRCODE = 'TG002';
    END IF;

    PERFORM outbox_wake(found_stream, woken.shard)
    FROM (
        SELECT DISTINCT outbox_shard_of(u.key, found_stream.num_shards) AS shard
        FROM unnest($2) AS u (key)
    ) AS woken;
    RETURN event_ids;
END;
$function$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_decide(p_act text, p_event_ids uuid[], p_by_whom text, p_reason text)
 RETURNS bigint
 LANGUAGE plpgsql
AS $function$
DECLARE
    decided bigint[];
    give_up_at timestamptz := clock_timestamp() + interval '30 seconds';
    held record;
    num_changed bigint;
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
    GET DIAGNOSTICS num_changed = ROW_COUNT;
    IF num_changed <> num_wanted THEN
        RAISE EXCEPTION '% events: % of % were recorded: does a trigger, rule or policy on outbox_intervention keep them from it? nothing was changed',
            p_act, num_changed, num_wanted USING ERRCODE = 'TG002';
    END IF;

    IF p_act = 'redrive' THEN
        -- Not without a not_before: a pass that has come further by now must see that
        -- this event goes before those of its key that follow.
        UPDATE outbox_delivery
        SET crashes = 0, failures = 0, first_failed_at = NULL, not_before = clock_timestamp(), park_reason = NULL, parked_at = NULL
        WHERE id = ANY (decided);
        GET DIAGNOSTICS num_changed = ROW_COUNT;
    ELSE
        UPDATE outbox_delivery
        SET discard_reason = p_reason, discarded_at = clock_timestamp(), discarded_by = p_by_whom
        WHERE id = ANY (decided);
        GET DIAGNOSTICS num_changed = ROW_COUNT;
        PERFORM outbox_leave_gaps(decided, p_reason);
        -- Where a marker was left it holds the key; where none was, this does.
        PERFORM outbox_hold_released(decided);
    END IF;
    IF num_changed <> num_wanted THEN
        RAISE EXCEPTION '% events: % of % were changed: does a trigger, rule or policy on outbox_delivery keep them from it? nothing was changed',
            p_act, num_changed, num_wanted USING ERRCODE = 'TG002';
    END IF;

    PERFORM outbox_wake(declared, woken.shard)
    FROM (SELECT DISTINCT delivery.stream, delivery.shard FROM outbox_delivery AS delivery WHERE delivery.id = ANY (decided)) AS woken
    JOIN outbox_stream AS declared ON declared.stream = woken.stream;
    RETURN num_wanted;
END;
$function$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_history_move(p_before timestamp with time zone, p_after_id bigint, p_window integer)
 RETURNS bigint[]
 LANGUAGE plpgsql
AS $function$
DECLARE
    first_day date;
    last_day date;
    last_id bigint;
    movable bigint[];
    num_changed bigint;
    num_old bigint;
BEGIN
    SELECT
        max(seen.id),
        count(*) FILTER (WHERE seen.created_at < p_before),
        array_agg(seen.id) FILTER (WHERE seen.resolved_at < p_before),
        (min(seen.resolved_at) FILTER (WHERE seen.resolved_at < p_before) AT TIME ZONE 'UTC')::date,
        (max(seen.resolved_at) FILTER (WHERE seen.resolved_at < p_before) AT TIME ZONE 'UTC')::date
    INTO last_id, num_old, movable, first_day, last_day
    FROM (
        SELECT delivery.id, delivery.created_at, coalesce(delivery.published_at, delivery.discarded_at) AS resolved_at
        FROM outbox_delivery AS delivery
        WHERE delivery.id > p_after_id
        ORDER BY delivery.id
        LIMIT p_window
    ) AS seen;
    IF movable IS NOT NULL THEN
        PERFORM outbox_history_make(first_day, last_day);
        INSERT INTO outbox_history (
            id, stream, shard, key, key_seq, event_id, type, payload, headers, created_at, resolved_at, attempts, failures, last_attempt_at,
            last_error, last_error_class, not_before, published_at, broker_ref, parked_at, park_reason, discarded_at, discarded_by, discard_reason
        )
        SELECT
            event.id, event.stream, event.shard, event.key, event.key_seq, event.event_id, event.type, event.payload, event.headers, event.created_at,
            coalesce(delivery.published_at, delivery.discarded_at), delivery.attempts, delivery.failures, delivery.last_attempt_at,
            delivery.last_error, delivery.last_error_class, delivery.not_before, delivery.published_at, delivery.broker_ref,
            delivery.parked_at, delivery.park_reason, delivery.discarded_at, delivery.discarded_by, delivery.discard_reason
        FROM outbox_event AS event
        JOIN outbox_delivery AS delivery ON delivery.id = event.id
        WHERE event.id = ANY (movable);
        GET DIAGNOSTICS num_changed = ROW_COUNT;
        IF num_changed <> cardinality(movable) THEN
            RAISE EXCEPTION 'move delivered events: % of % were stored in outbox_history: nothing was changed', num_changed, cardinality(movable) USING ERRCODE = 'TG002';
        END IF;
        DELETE FROM outbox_event WHERE id = ANY (movable);
        GET DIAGNOSTICS num_changed = ROW_COUNT;
        IF num_changed <> cardinality(movable) THEN
            RAISE EXCEPTION 'move delivered events: % of % were removed from outbox_event: nothing was changed', num_changed, cardinality(movable) USING ERRCODE = 'TG002';
        END IF;
        DELETE FROM outbox_delivery WHERE id = ANY (movable);
        GET DIAGNOSTICS num_changed = ROW_COUNT;
        IF num_changed <> cardinality(movable) THEN
            RAISE EXCEPTION 'move delivered events: % of % were removed from outbox_delivery: nothing was changed', num_changed, cardinality(movable) USING ERRCODE = 'TG002';
        END IF;
    END IF;
    RETURN ARRAY[coalesce(cardinality(movable), 0), coalesce(num_old, 0), coalesce(last_id, p_after_id)];
END;
$function$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_leave_gaps(p_ids bigint[], p_reason text)
 RETURNS bigint
 LANGUAGE plpgsql
AS $function$
DECLARE
    num_left bigint;
    num_wanted bigint;
BEGIN
    SELECT count(*) INTO num_wanted
    FROM outbox_delivery AS delivery
    JOIN outbox_event AS event ON event.id = delivery.id
    WHERE delivery.id = ANY (p_ids)
        AND delivery.gap_left_at IS NULL
        AND event.type <> 'truegreen.gap.v1';
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
    IF num_left <> num_wanted THEN
        RAISE EXCEPTION 'leave gap markers: % of % were stored', num_left, num_wanted USING ERRCODE = 'TG002';
    END IF;
    RETURN num_left;
END;
$function$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION settlement_credit_chunk(p_run_id bigint, p_attempt integer, p_job_id bigint, p_after_player_id bigint, p_max integer, p_skip_locked boolean)
 RETURNS bigint[]
 LANGUAGE plpgsql
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
 SET enable_seqscan TO 'off'
 SET jit TO 'off'
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$
DECLARE
    booked_at timestamptz;
    claimed record;
    done record;
    event_at text;
    locked bigint[];
    num_claimed integer;
    settled record;
BEGIN
    SELECT run.currency, period.key, programme.code,
        (SELECT stream.num_shards FROM outbox_stream AS stream WHERE stream.stream = 'wallet') AS num_shards,
        (SELECT account.id FROM ledger_account AS account
            WHERE account.kind = 'promotion' AND account.currency = run.currency AND account.player_id IS NULL) AS promotion_id
    INTO settled
    FROM settlement_run AS run
    JOIN settlement_period AS period ON period.id = run.period_id
    JOIN programme ON programme.id = period.programme_id
    WHERE run.id = p_run_id;

    SELECT * INTO claimed FROM settlement_claim(p_run_id, p_after_player_id, p_max);
    num_claimed := coalesce(cardinality(claimed.item_ids), 0);
    IF num_claimed = 0 THEN
        RETURN ARRAY[0, 0, 0, p_after_player_id];
    END IF;

    -- In the order in which everybody locks wallets.
    IF p_skip_locked THEN
        SELECT array_agg(free.player_id) INTO locked
        FROM (
            SELECT wallet.player_id FROM wallet WHERE wallet.player_id = ANY (claimed.player_ids)
            ORDER BY wallet.account_id FOR NO KEY UPDATE SKIP LOCKED
        ) AS free;
    ELSE
        PERFORM FROM wallet WHERE wallet.player_id = ANY (claimed.player_ids)
        ORDER BY wallet.account_id FOR NO KEY UPDATE;
    END IF;
    booked_at := clock_timestamp();
    event_at := to_char(booked_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

    -- A statement of its own, so that it sees what was committed before the locks:
    -- whoever changes a player's status holds the wallet.
    WITH judged AS MATERIALIZED (
        SELECT
            item.id,
            item.adj,
            item.amount_minor,
            item.currency,
            player.code AS player,
            wallet.account_id,
            wallet.balance_minor,
            wallet.version,
            CASE
                WHEN player.status = 'self_excluded' THEN 'self_excluded'
                WHEN player.status <> 'active' THEN 'wallet_' || player.status
                WHEN wallet.currency IS DISTINCT FROM item.currency THEN 'wallet_missing'
                WHEN p_skip_locked AND NOT coalesce(item.player_id = ANY (locked), false) THEN 'wallet_locked'
                WHEN wallet.balance_minor > 9223372036854775807 - item.amount_minor THEN 'balance_too_large'
            END AS refusal
        FROM settlement_item AS item
        JOIN player ON player.id = item.player_id
        LEFT JOIN wallet ON wallet.player_id = item.player_id
        WHERE item.id = ANY (claimed.item_ids)
    ), credit AS MATERIALIZED (
        SELECT
            judged.*,
            nextval('ledger_txn_id_seq') AS txn_id,
            settlement_reference(settled.code, settled.key, judged.player, judged.currency, judged.adj) AS reference
        FROM judged
        WHERE judged.refusal IS NULL
    ), moved AS (
        UPDATE wallet
        SET balance_minor = wallet.balance_minor + credit.amount_minor, version = wallet.version + 1
        FROM credit
        WHERE wallet.account_id = credit.account_id AND wallet.version = credit.version
        RETURNING wallet.account_id
    ), txn AS (
        INSERT INTO ledger_txn (id, at, kind, reference)
        OVERRIDING SYSTEM VALUE
        SELECT credit.txn_id, booked_at, 'credit', credit.reference FROM credit
        RETURNING id
    ), entry AS (
        INSERT INTO ledger_entry (txn_id, account_id, amount_minor, at)
        SELECT
            credit.txn_id,
            unnest(ARRAY[credit.account_id, settled.promotion_id]),
            unnest(ARRAY[credit.amount_minor, -credit.amount_minor]),
            booked_at
        FROM credit
        RETURNING txn_id
    ), marked AS (
        UPDATE settlement_item AS item
        SET attempts = item.attempts + 1, credited_at = clock_timestamp(), delivery = 'credited', failure_class = NULL, failure_code = NULL
        FROM credit
        WHERE item.id = credit.id AND item.delivery IN ('pending', 'failed')
        RETURNING item.amount_minor
    ), refused AS (
        UPDATE settlement_item AS item
        SET
            attempts = item.attempts + 1,
            -- By law, so it is no failure of ours, and nobody is to try again.
            delivery = CASE judged.refusal WHEN 'self_excluded' THEN 'withheld' ELSE 'failed' END,
            failure_class = CASE judged.refusal WHEN 'self_excluded' THEN NULL WHEN 'wallet_locked' THEN 'transient' ELSE 'permanent' END,
            failure_code = judged.refusal
        FROM judged
        WHERE item.id = judged.id AND judged.refusal IS NOT NULL
        RETURNING item.id
    ), attempted AS (
        INSERT INTO settlement_attempt (item_id, run_id, attempt, failure_class, failure_code, job_id, result)
        SELECT
            judged.id,
            p_run_id,
            p_attempt,
            CASE WHEN judged.refusal <> 'self_excluded' THEN CASE judged.refusal WHEN 'wallet_locked' THEN 'transient' ELSE 'permanent' END END,
            judged.refusal,
            p_job_id,
            CASE WHEN judged.refusal IS NULL THEN 'credited' WHEN judged.refusal = 'self_excluded' THEN 'withheld' ELSE 'failed' END
        FROM judged
        RETURNING item_id
    ), stored AS (
        -- As outbox_append_many does, without its arrays: they cost as much as the rows.
        INSERT INTO outbox_event (key, key_seq, payload, shard, stream, type)
        SELECT
            credit.player || '/' || credit.currency,
            credit.version + 1,
            jsonb_build_object(
                'amount', credit.amount_minor::text,
                'at', event_at,
                'balance', (credit.balance_minor + credit.amount_minor)::text,
                'currency', credit.currency,
                'player', credit.player,
                'reference', credit.reference
            ),
            outbox_shard_of(credit.player || '/' || credit.currency, settled.num_shards),
            'wallet',
            'wallet.credited.v1'
        FROM credit
        RETURNING id, created_at, key, shard, stream
    ), undelivered AS (
        INSERT INTO outbox_delivery (id, created_at, key, place, shard, stream)
        SELECT stored.id, stored.created_at, stored.key, stored.id, stored.shard, stored.stream FROM stored
        RETURNING id
    )
    SELECT
        (SELECT count(*) FROM moved) AS num_moved,
        (SELECT count(*) FROM marked) AS num_marked,
        (SELECT coalesce(sum(marked.amount_minor), 0) FROM marked) AS marked_minor,
        (SELECT count(*) FROM refused) AS num_refused,
        (SELECT count(*) FROM txn) AS num_txns,
        (SELECT count(*) FROM entry) AS num_entries,
        (SELECT count(*) FROM attempted) AS num_attempted,
        (SELECT count(*) FROM undelivered) AS num_events,
        (SELECT array_agg(DISTINCT stored.shard) FROM stored) AS shards,
        count(*) AS num_credits,
        coalesce(sum(credit.amount_minor), 0)::bigint AS credited_minor
    INTO done
    FROM credit;

    IF done.num_moved <> done.num_credits OR done.num_marked <> done.num_credits OR done.marked_minor <> done.credited_minor
        OR done.num_credits + done.num_refused <> num_claimed THEN
        RAISE EXCEPTION 'of % claimed items % were credited with %, but % wallets were moved, % items marked with % and % refused',
            num_claimed, done.num_credits, done.credited_minor, done.num_moved, done.num_marked, done.marked_minor, done.num_refused
            USING ERRCODE = 'TG001';
    END IF;
    IF done.num_txns <> done.num_credits OR done.num_entries <> 2 * done.num_credits OR done.num_events <> done.num_credits
        OR done.num_attempted <> num_claimed THEN
        RAISE EXCEPTION 'of % claimed items % were credited, but % transactions with % entries, % events and % attempts were stored',
            num_claimed, done.num_credits, done.num_txns, done.num_entries, done.num_events, done.num_attempted USING ERRCODE = 'TG001';
    END IF;
    PERFORM outbox_wake(declared, woken.shard)
    FROM unnest(done.shards) AS woken (shard)
    CROSS JOIN outbox_stream AS declared
    WHERE declared.stream = 'wallet';
    UPDATE settlement_run SET cursor_player_id = claimed.player_ids[num_claimed] WHERE id = p_run_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the place that run % has come to was not stored', p_run_id USING ERRCODE = 'TG001';
    END IF;
    RETURN ARRAY[num_claimed, done.num_credits, done.credited_minor, claimed.player_ids[num_claimed]];
END;
$function$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION settlement_refuse_chunk(p_run_id bigint, p_attempt integer, p_job_id bigint, p_after_player_id bigint, p_max integer, p_class text, p_code text)
 RETURNS bigint[]
 LANGUAGE plpgsql
AS $function$
DECLARE
    claimed record;
    num_changed integer;
    num_claimed integer;
BEGIN
    SELECT * INTO claimed FROM settlement_claim(p_run_id, p_after_player_id, p_max);
    num_claimed := coalesce(cardinality(claimed.item_ids), 0);
    IF num_claimed = 0 THEN
        RETURN ARRAY[0, 0, 0, p_after_player_id];
    END IF;
    UPDATE settlement_item
    SET attempts = attempts + 1, delivery = 'failed', failure_class = p_class, failure_code = p_code
    WHERE id = ANY (claimed.item_ids);
    GET DIAGNOSTICS num_changed = ROW_COUNT;
    IF num_changed <> num_claimed THEN
        RAISE EXCEPTION 'of % claimed items % were marked as failed', num_claimed, num_changed USING ERRCODE = 'TG001';
    END IF;
    INSERT INTO settlement_attempt (item_id, run_id, attempt, failure_class, failure_code, job_id, result)
    SELECT unnest(claimed.item_ids), p_run_id, p_attempt, p_class, p_code, p_job_id, 'failed';
    GET DIAGNOSTICS num_changed = ROW_COUNT;
    IF num_changed <> num_claimed THEN
        RAISE EXCEPTION 'of % claimed items % attempts were stored', num_claimed, num_changed USING ERRCODE = 'TG001';
    END IF;
    UPDATE settlement_run SET cursor_player_id = claimed.player_ids[num_claimed] WHERE id = p_run_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the place that run % has come to was not stored', p_run_id USING ERRCODE = 'TG001';
    END IF;
    RETURN ARRAY[num_claimed, 0, 0, claimed.player_ids[num_claimed]];
END;
$function$;
-- +goose StatementEnd
-- +goose StatementBegin
DO $$
DECLARE
    home name := (
        SELECT namespace.nspname
        FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
        WHERE class.oid = 'outbox_event'::regclass
    );
    ours regprocedure;
BEGIN
    -- What is replaced loses it: see 00055.
    FOR ours IN
        SELECT proc.oid::regprocedure
        FROM pg_proc AS proc
        JOIN pg_namespace AS namespace ON namespace.oid = proc.pronamespace
        WHERE namespace.nspname = home
            AND proc.proname IN (
                'outbox_adopt',
                'outbox_append',
                'outbox_append_many',
                'outbox_decide',
                'outbox_history_move',
                'outbox_leave_gaps',
                'settlement_credit_chunk',
                'settlement_refuse_chunk'
            )
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', ours, home);
    END LOOP;
END $$;
-- +goose StatementEnd
ALTER FUNCTION outbox_history_move SET DateStyle = 'ISO, MDY';
ALTER FUNCTION outbox_history_move SET TimeZone = 'UTC';

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_adopt(event_ids uuid[], broker_refs text[], by_whom text)
 RETURNS bigint
 LANGUAGE plpgsql
AS $function$
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
$function$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_append(stream text, key text, type text, payload jsonb, headers jsonb DEFAULT '{}'::jsonb, key_seq bigint DEFAULT NULL::bigint)
 RETURNS uuid
 LANGUAGE plpgsql
AS $function$
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
$function$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_append_many(stream text, keys text[], types text[], payloads jsonb[], headers jsonb[] DEFAULT NULL::jsonb[], key_seqs bigint[] DEFAULT NULL::bigint[])
 RETURNS uuid[]
 LANGUAGE plpgsql
AS $function$
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
$function$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_decide(p_act text, p_event_ids uuid[], p_by_whom text, p_reason text)
 RETURNS bigint
 LANGUAGE plpgsql
AS $function$
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
$function$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_history_move(p_before timestamp with time zone, p_after_id bigint, p_window integer)
 RETURNS bigint[]
 LANGUAGE plpgsql
AS $function$
DECLARE
    first_day date;
    last_day date;
    last_id bigint;
    movable bigint[];
    num_old bigint;
BEGIN
    SELECT
        max(seen.id),
        count(*) FILTER (WHERE seen.created_at < p_before),
        array_agg(seen.id) FILTER (WHERE seen.resolved_at < p_before),
        (min(seen.resolved_at) FILTER (WHERE seen.resolved_at < p_before) AT TIME ZONE 'UTC')::date,
        (max(seen.resolved_at) FILTER (WHERE seen.resolved_at < p_before) AT TIME ZONE 'UTC')::date
    INTO last_id, num_old, movable, first_day, last_day
    FROM (
        SELECT delivery.id, delivery.created_at, coalesce(delivery.published_at, delivery.discarded_at) AS resolved_at
        FROM outbox_delivery AS delivery
        WHERE delivery.id > p_after_id
        ORDER BY delivery.id
        LIMIT p_window
    ) AS seen;
    IF movable IS NOT NULL THEN
        PERFORM outbox_history_make(first_day, last_day);
        INSERT INTO outbox_history (
            id, stream, shard, key, key_seq, event_id, type, payload, headers, created_at, resolved_at, attempts, failures, last_attempt_at,
            last_error, last_error_class, not_before, published_at, broker_ref, parked_at, park_reason, discarded_at, discarded_by, discard_reason
        )
        SELECT
            event.id, event.stream, event.shard, event.key, event.key_seq, event.event_id, event.type, event.payload, event.headers, event.created_at,
            coalesce(delivery.published_at, delivery.discarded_at), delivery.attempts, delivery.failures, delivery.last_attempt_at,
            delivery.last_error, delivery.last_error_class, delivery.not_before, delivery.published_at, delivery.broker_ref,
            delivery.parked_at, delivery.park_reason, delivery.discarded_at, delivery.discarded_by, delivery.discard_reason
        FROM outbox_event AS event
        JOIN outbox_delivery AS delivery ON delivery.id = event.id
        WHERE event.id = ANY (movable);
        DELETE FROM outbox_event WHERE id = ANY (movable);
        DELETE FROM outbox_delivery WHERE id = ANY (movable);
    END IF;
    RETURN ARRAY[coalesce(cardinality(movable), 0), coalesce(num_old, 0), coalesce(last_id, p_after_id)];
END;
$function$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_leave_gaps(p_ids bigint[], p_reason text)
 RETURNS bigint
 LANGUAGE plpgsql
AS $function$
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
$function$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION settlement_credit_chunk(p_run_id bigint, p_attempt integer, p_job_id bigint, p_after_player_id bigint, p_max integer, p_skip_locked boolean)
 RETURNS bigint[]
 LANGUAGE plpgsql
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
 SET enable_seqscan TO 'off'
 SET jit TO 'off'
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$
DECLARE
    booked_at timestamptz;
    claimed record;
    done record;
    event_at text;
    locked bigint[];
    num_claimed integer;
    settled record;
BEGIN
    SELECT run.currency, period.key, programme.code,
        (SELECT stream.num_shards FROM outbox_stream AS stream WHERE stream.stream = 'wallet') AS num_shards,
        (SELECT account.id FROM ledger_account AS account
            WHERE account.kind = 'promotion' AND account.currency = run.currency AND account.player_id IS NULL) AS promotion_id
    INTO settled
    FROM settlement_run AS run
    JOIN settlement_period AS period ON period.id = run.period_id
    JOIN programme ON programme.id = period.programme_id
    WHERE run.id = p_run_id;

    SELECT * INTO claimed FROM settlement_claim(p_run_id, p_after_player_id, p_max);
    num_claimed := coalesce(cardinality(claimed.item_ids), 0);
    IF num_claimed = 0 THEN
        RETURN ARRAY[0, 0, 0, p_after_player_id];
    END IF;

    -- In the order in which everybody locks wallets.
    IF p_skip_locked THEN
        SELECT array_agg(free.player_id) INTO locked
        FROM (
            SELECT wallet.player_id FROM wallet WHERE wallet.player_id = ANY (claimed.player_ids)
            ORDER BY wallet.account_id FOR NO KEY UPDATE SKIP LOCKED
        ) AS free;
    ELSE
        PERFORM FROM wallet WHERE wallet.player_id = ANY (claimed.player_ids)
        ORDER BY wallet.account_id FOR NO KEY UPDATE;
    END IF;
    booked_at := clock_timestamp();
    event_at := to_char(booked_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

    -- A statement of its own, so that it sees what was committed before the locks:
    -- whoever changes a player's status holds the wallet.
    WITH judged AS MATERIALIZED (
        SELECT
            item.id,
            item.adj,
            item.amount_minor,
            item.currency,
            player.code AS player,
            wallet.account_id,
            wallet.balance_minor,
            wallet.version,
            CASE
                WHEN player.status = 'self_excluded' THEN 'self_excluded'
                WHEN player.status <> 'active' THEN 'wallet_' || player.status
                WHEN wallet.currency IS DISTINCT FROM item.currency THEN 'wallet_missing'
                WHEN p_skip_locked AND NOT coalesce(item.player_id = ANY (locked), false) THEN 'wallet_locked'
                WHEN wallet.balance_minor > 9223372036854775807 - item.amount_minor THEN 'balance_too_large'
            END AS refusal
        FROM settlement_item AS item
        JOIN player ON player.id = item.player_id
        LEFT JOIN wallet ON wallet.player_id = item.player_id
        WHERE item.id = ANY (claimed.item_ids)
    ), credit AS MATERIALIZED (
        SELECT
            judged.*,
            nextval('ledger_txn_id_seq') AS txn_id,
            settlement_reference(settled.code, settled.key, judged.player, judged.currency, judged.adj) AS reference
        FROM judged
        WHERE judged.refusal IS NULL
    ), moved AS (
        UPDATE wallet
        SET balance_minor = wallet.balance_minor + credit.amount_minor, version = wallet.version + 1
        FROM credit
        WHERE wallet.account_id = credit.account_id AND wallet.version = credit.version
        RETURNING wallet.account_id
    ), txn AS (
        INSERT INTO ledger_txn (id, at, kind, reference)
        OVERRIDING SYSTEM VALUE
        SELECT credit.txn_id, booked_at, 'credit', credit.reference FROM credit
    ), entry AS (
        INSERT INTO ledger_entry (txn_id, account_id, amount_minor, at)
        SELECT
            credit.txn_id,
            unnest(ARRAY[credit.account_id, settled.promotion_id]),
            unnest(ARRAY[credit.amount_minor, -credit.amount_minor]),
            booked_at
        FROM credit
    ), marked AS (
        UPDATE settlement_item AS item
        SET attempts = item.attempts + 1, credited_at = clock_timestamp(), delivery = 'credited', failure_class = NULL, failure_code = NULL
        FROM credit
        WHERE item.id = credit.id AND item.delivery IN ('pending', 'failed')
        RETURNING item.amount_minor
    ), refused AS (
        UPDATE settlement_item AS item
        SET
            attempts = item.attempts + 1,
            -- By law, so it is no failure of ours, and nobody is to try again.
            delivery = CASE judged.refusal WHEN 'self_excluded' THEN 'withheld' ELSE 'failed' END,
            failure_class = CASE judged.refusal WHEN 'self_excluded' THEN NULL WHEN 'wallet_locked' THEN 'transient' ELSE 'permanent' END,
            failure_code = judged.refusal
        FROM judged
        WHERE item.id = judged.id AND judged.refusal IS NOT NULL
        RETURNING item.id
    ), attempted AS (
        INSERT INTO settlement_attempt (item_id, run_id, attempt, failure_class, failure_code, job_id, result)
        SELECT
            judged.id,
            p_run_id,
            p_attempt,
            CASE WHEN judged.refusal <> 'self_excluded' THEN CASE judged.refusal WHEN 'wallet_locked' THEN 'transient' ELSE 'permanent' END END,
            judged.refusal,
            p_job_id,
            CASE WHEN judged.refusal IS NULL THEN 'credited' WHEN judged.refusal = 'self_excluded' THEN 'withheld' ELSE 'failed' END
        FROM judged
    ), stored AS (
        -- As outbox_append_many does, without its arrays: they cost as much as the rows.
        INSERT INTO outbox_event (key, key_seq, payload, shard, stream, type)
        SELECT
            credit.player || '/' || credit.currency,
            credit.version + 1,
            jsonb_build_object(
                'amount', credit.amount_minor::text,
                'at', event_at,
                'balance', (credit.balance_minor + credit.amount_minor)::text,
                'currency', credit.currency,
                'player', credit.player,
                'reference', credit.reference
            ),
            outbox_shard_of(credit.player || '/' || credit.currency, settled.num_shards),
            'wallet',
            'wallet.credited.v1'
        FROM credit
        RETURNING id, created_at, key, shard, stream
    ), undelivered AS (
        INSERT INTO outbox_delivery (id, created_at, key, place, shard, stream)
        SELECT stored.id, stored.created_at, stored.key, stored.id, stored.shard, stored.stream FROM stored
    )
    SELECT
        (SELECT count(*) FROM moved) AS num_moved,
        (SELECT count(*) FROM marked) AS num_marked,
        (SELECT coalesce(sum(marked.amount_minor), 0) FROM marked) AS marked_minor,
        (SELECT count(*) FROM refused) AS num_refused,
        (SELECT array_agg(DISTINCT stored.shard) FROM stored) AS shards,
        count(*) AS num_credits,
        coalesce(sum(credit.amount_minor), 0)::bigint AS credited_minor
    INTO done
    FROM credit;

    IF done.num_moved <> done.num_credits OR done.num_marked <> done.num_credits OR done.marked_minor <> done.credited_minor
        OR done.num_credits + done.num_refused <> num_claimed THEN
        RAISE EXCEPTION 'of % claimed items % were credited with %, but % wallets were moved, % items marked with % and % refused',
            num_claimed, done.num_credits, done.credited_minor, done.num_moved, done.num_marked, done.marked_minor, done.num_refused
            USING ERRCODE = 'TG001';
    END IF;
    PERFORM outbox_wake(declared, woken.shard)
    FROM unnest(done.shards) AS woken (shard)
    CROSS JOIN outbox_stream AS declared
    WHERE declared.stream = 'wallet';
    UPDATE settlement_run SET cursor_player_id = claimed.player_ids[num_claimed] WHERE id = p_run_id;
    RETURN ARRAY[num_claimed, done.num_credits, done.credited_minor, claimed.player_ids[num_claimed]];
END;
$function$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION settlement_refuse_chunk(p_run_id bigint, p_attempt integer, p_job_id bigint, p_after_player_id bigint, p_max integer, p_class text, p_code text)
 RETURNS bigint[]
 LANGUAGE plpgsql
AS $function$
DECLARE
    claimed record;
    num_claimed integer;
BEGIN
    SELECT * INTO claimed FROM settlement_claim(p_run_id, p_after_player_id, p_max);
    num_claimed := coalesce(cardinality(claimed.item_ids), 0);
    IF num_claimed = 0 THEN
        RETURN ARRAY[0, 0, 0, p_after_player_id];
    END IF;
    UPDATE settlement_item
    SET attempts = attempts + 1, delivery = 'failed', failure_class = p_class, failure_code = p_code
    WHERE id = ANY (claimed.item_ids);
    INSERT INTO settlement_attempt (item_id, run_id, attempt, failure_class, failure_code, job_id, result)
    SELECT unnest(claimed.item_ids), p_run_id, p_attempt, p_class, p_code, p_job_id, 'failed';
    UPDATE settlement_run SET cursor_player_id = claimed.player_ids[num_claimed] WHERE id = p_run_id;
    RETURN ARRAY[num_claimed, 0, 0, claimed.player_ids[num_claimed]];
END;
$function$;
-- +goose StatementEnd
-- +goose StatementBegin
DO $$
DECLARE
    home name := (
        SELECT namespace.nspname
        FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
        WHERE class.oid = 'outbox_event'::regclass
    );
    ours regprocedure;
BEGIN
    -- What is replaced loses it: see 00055.
    FOR ours IN
        SELECT proc.oid::regprocedure
        FROM pg_proc AS proc
        JOIN pg_namespace AS namespace ON namespace.oid = proc.pronamespace
        WHERE namespace.nspname = home
            AND proc.proname IN (
                'outbox_adopt',
                'outbox_append',
                'outbox_append_many',
                'outbox_decide',
                'outbox_history_move',
                'outbox_leave_gaps',
                'settlement_credit_chunk',
                'settlement_refuse_chunk'
            )
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', ours, home);
    END LOOP;
END $$;
-- +goose StatementEnd
ALTER FUNCTION outbox_history_move SET DateStyle = 'ISO, MDY';
ALTER FUNCTION outbox_history_move SET TimeZone = 'UTC';
