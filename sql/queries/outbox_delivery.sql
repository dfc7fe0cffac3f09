-- name: OutboxDeliveryClaim :many
-- OutboxDeliveryClaim reads up to max_events due events of one shard, in order of
-- their places, above after_place, and notes on the shard that they are in
-- flight. They have max_bytes together at most, or are a single event. It locks no
-- event: the caller holds the shard's lease, and gets nothing once it was lost. Left out are events that wait after a failure of their own,
-- parked ones, those behind such an event of their key, and those of closed_keys, so
-- that a failing key never fills the batch.
--
-- is_late says that an event above safe_place is due that stands at or below
-- after_place: its transaction took its place early and committed late. Later
-- events of its key may be in the claim, of which nothing must be sent then; it is
-- to be made again from place 0. Whatever stands at or below the last place of a
-- claim is seen by all claims whose snapshot_xmin is not below its snapshot_xmax: a
-- transaction has its number before it takes a place.
--
-- is_cut says that more were due and left out for their bytes. What the events say is
-- read by OutboxEventRead: a link that is slow for it must not hold the shard's row.
WITH held AS MATERIALIZED (
    SELECT
        held.key,
        min(held.place) AS first_place
    FROM outbox_delivery AS held
    WHERE held.stream = @stream
        AND held.shard = @shard
        AND held.published_at IS NULL
        AND held.discarded_at IS NULL
        AND (held.parked_at IS NOT NULL OR held.not_before IS NOT NULL)
        AND (
            (held.parked_at IS NOT NULL AND @parked_rows_block::boolean)
            -- What became due behind after_place holds its key until it is come to.
            OR (held.parked_at IS NULL AND (held.not_before > statement_timestamp() OR held.place <= @after_place))
        )
    GROUP BY held.key
), due AS MATERIALIZED (
    SELECT
        delivery.id,
        delivery.attempts,
        delivery.place
    FROM outbox_delivery AS delivery
    LEFT JOIN held ON held.key = delivery.key
    WHERE delivery.stream = @stream
        AND delivery.shard = @shard
        AND delivery.place > @after_place
        AND delivery.published_at IS NULL
        AND delivery.parked_at IS NULL
        AND delivery.discarded_at IS NULL
        AND (delivery.not_before IS NULL OR delivery.not_before <= statement_timestamp())
        AND (held.key IS NULL OR delivery.place < held.first_place)
        AND delivery.key <> ALL (@closed_keys::text[])
    ORDER BY delivery.place, delivery.id
    LIMIT @max_events::integer
), measured AS (
    SELECT
        due.attempts,
        due.place,
        event.created_at,
        event.event_id,
        event.id,
        event.key,
        event.key_seq,
        event.type,
        coalesce(
            event.num_bytes,
            CASE WHEN pg_column_size(event.payload) + pg_column_size(event.headers) > 1000 OR pg_column_compression(event.payload) IS NOT NULL
                -- Appended before sizes were noted.
                THEN octet_length(event.payload::text) + octet_length(event.headers::text)
                ELSE pg_column_size(event.payload) + pg_column_size(event.headers)
            END
        )::bigint AS num_bytes
    FROM due
    JOIN outbox_event AS event ON event.id = due.id
), summed AS (
    SELECT
        measured.*,
        (sum(measured.num_bytes) OVER (ORDER BY measured.place, measured.id))::bigint AS num_bytes_so_far
    FROM measured
), claimed AS MATERIALIZED (
    SELECT summed.*
    FROM summed
    -- Nothing comes before the first event.
    WHERE summed.num_bytes_so_far <= @max_bytes::bigint
        OR summed.num_bytes_so_far = summed.num_bytes
), noted AS (
    UPDATE outbox_shard AS shard
    SET
        inflight_first = flight.first_place,
        inflight_id = flight.alone_id,
        inflight_last = flight.last_place,
        inflight_num = flight.num_events,
        lease_expires_at = clock_timestamp() + @lease_ttl::interval
    FROM (
        SELECT
            CASE WHEN count(*) = 1 THEN min(claimed.id) END AS alone_id,
            min(claimed.place) AS first_place,
            max(claimed.place) AS last_place,
            count(*)::integer AS num_events
        FROM claimed
    ) AS flight
    WHERE shard.stream = @stream
        AND shard.shard = @shard
        AND shard.lease_epoch = @lease_epoch
        AND shard.lease_owner IS NOT NULL
        -- As it was when the events were read: see outbox_decide.
        AND shard.num_decisions = (
            SELECT seen.num_decisions
            FROM outbox_shard AS seen
            WHERE seen.stream = @stream
                AND seen.shard = @shard
        )
        AND flight.num_events > 0
    RETURNING shard.shard
)
SELECT
    claimed.id,
    claimed.attempts,
    claimed.created_at,
    claimed.event_id,
    ((SELECT count(*) FROM due) > (SELECT count(*) FROM claimed))::boolean AS is_cut,
    (SELECT EXISTS (
        SELECT
        FROM outbox_delivery AS late
        WHERE late.stream = @stream
            AND late.shard = @shard
            AND late.place > @safe_place
            AND late.place <= @after_place
            AND late.published_at IS NULL
            AND late.parked_at IS NULL
            AND late.discarded_at IS NULL
            -- Those that failed, and those behind them, hold their keys by themselves.
            AND late.not_before IS NULL
            AND NOT EXISTS (SELECT FROM held WHERE held.key = late.key)
            AND late.key <> ALL (@closed_keys::text[])
    ))::boolean AS is_late,
    claimed.key,
    claimed.key_seq,
    claimed.num_bytes,
    claimed.place,
    (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint)::bigint AS snapshot_xmax,
    (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint)::bigint AS snapshot_xmin,
    claimed.type
FROM claimed
WHERE EXISTS (SELECT FROM noted)
ORDER BY claimed.place, claimed.id;

-- name: OutboxDeliveryHasNew :one
-- OutboxDeliveryHasNew says whether a claim might find anything above safe_place that
-- has not failed: a claim that finds nothing costs ten times as much.
SELECT EXISTS (
    SELECT
    FROM outbox_delivery AS delivery
    WHERE delivery.stream = @stream
        AND delivery.shard = @shard
        AND delivery.place > @safe_place
        AND delivery.published_at IS NULL
        AND delivery.parked_at IS NULL
        AND delivery.discarded_at IS NULL
        AND delivery.not_before IS NULL
) AS has_new;

-- name: OutboxDeliveryDiscarded :many
-- OutboxDeliveryDiscarded returns those of the events given that were given up.
SELECT delivery.id
FROM outbox_delivery AS delivery
WHERE delivery.id = ANY (@ids::bigint[])
    AND delivery.discarded_at IS NOT NULL
ORDER BY delivery.id;

-- name: OutboxDeliveryUnmarked :many
-- OutboxDeliveryUnmarked returns those of the events given that this transaction was to
-- mark and did not: they stand as if nothing had been sent.
SELECT delivery.id
FROM outbox_delivery AS delivery
WHERE delivery.id = ANY (@ids::bigint[])
    AND num_nonnulls(delivery.published_at, delivery.parked_at, delivery.discarded_at) = 0
    AND (delivery.last_attempt_at IS NULL OR delivery.last_attempt_at < now())
ORDER BY delivery.id;

-- name: OutboxDeliveryHoldReleased :exec
-- OutboxDeliveryHoldReleased is for events that were published by anybody but their
-- leaseholder; see the SQL function outbox_hold_released.
SELECT outbox_hold_released(@ids::bigint[]);

-- name: OutboxDeliveryMarkFailed :many
-- OutboxDeliveryMarkFailed records what went wrong with each event, and returns
-- those that it parked. add_failures is 1 for a failure of the event itself, which
-- then waits for delay; 0 for an outage, which delays the shard instead. An event
-- is parked at once if its failure is permanent, and otherwise after its own
-- failures number park_after_failures, the first of them park_after ago. Events
-- that a late acknowledgement published meanwhile stay as they are, and so does
-- everything once the shard's lease is no longer the one of lease_epoch.
WITH failed AS (
    SELECT
        unnest(@ids::bigint[]) AS id,
        unnest(@errors::text[]) AS error,
        unnest(@classes::text[]) AS class,
        unnest(@add_failures::integer[]) AS add_failures
), judged AS (
    SELECT
        failed.id,
        failed.add_failures,
        failed.class,
        failed.error,
        CASE
            WHEN failed.class = 'permanent' THEN 'permanent'
            WHEN failed.add_failures > 0
                AND delivery.failures + failed.add_failures >= @park_after_failures::integer
                AND coalesce(delivery.first_failed_at, clock_timestamp()) <= clock_timestamp() - @park_after::interval
            THEN 'row'
        END AS park_reason
    FROM failed
    JOIN outbox_delivery AS delivery ON delivery.id = failed.id
    JOIN outbox_shard AS shard ON shard.stream = delivery.stream AND shard.shard = delivery.shard
    WHERE shard.lease_epoch = @lease_epoch
), marked AS (
    UPDATE outbox_delivery AS delivery
    SET
        attempts = delivery.attempts + 1,
        failures = delivery.failures + judged.add_failures,
        first_failed_at = CASE WHEN judged.add_failures > 0 THEN coalesce(delivery.first_failed_at, clock_timestamp()) ELSE delivery.first_failed_at END,
        last_attempt_at = clock_timestamp(),
        last_error = left(judged.error, 2000),
        last_error_class = judged.class,
        not_before = CASE WHEN judged.add_failures > 0 THEN clock_timestamp() + @delay::interval ELSE delivery.not_before END,
        park_reason = judged.park_reason,
        parked_at = CASE WHEN judged.park_reason IS NOT NULL THEN clock_timestamp() END
    FROM judged
    WHERE delivery.id = judged.id
        -- Not IS NULL: see OutboxDeliveryMarkPublished.
        AND num_nonnulls(delivery.published_at, delivery.parked_at, delivery.discarded_at) = 0
    RETURNING delivery.id, delivery.park_reason
)
SELECT marked.id
FROM marked
WHERE marked.park_reason IS NOT NULL
ORDER BY marked.id;

-- name: OutboxDeliveryMarkPublished :execrows
-- OutboxDeliveryMarkPublished stores the broker's acknowledgements. It asks for no
-- lease: that the broker has an event is a fact, whoever was told. An event that
-- was marked before keeps its first acknowledgement; one that was parked
-- meanwhile is published.
WITH acknowledged AS (
    SELECT
        unnest(@ids::bigint[]) AS id,
        unnest(@broker_refs::text[]) AS broker_ref
)
UPDATE outbox_delivery AS delivery
SET
    attempts = delivery.attempts + 1,
    broker_ref = acknowledged.broker_ref,
    last_attempt_at = clock_timestamp(),
    published_at = clock_timestamp()
FROM acknowledged
WHERE delivery.id = acknowledged.id
    -- Not IS NULL: statistics of a moment when all was published would have the
    -- planner expect one such row, and join by comparing each with each.
    AND num_nonnulls(delivery.published_at, delivery.discarded_at) = 0;

-- name: OutboxDeliveryTakeOver :many
-- OutboxDeliveryTakeOver records that the events of a shard from first_place to
-- last_place were in flight and that what became of them was not stored: the broker may
-- have them. Events between those places that wait behind a held one of their key were
-- not in flight; of others that were not, such as those whose transactions committed
-- since, it is said all the same, since which they are is not known. alone says that it
-- was one event, alone_id if known, with which a worker died; the second that dies with
-- it alone parks it. It returns all of them; one that is not recorded was delivered, parked
-- or given up in between, or the database did not keep what was to be recorded.
WITH flown AS (
    SELECT delivery.id
    FROM outbox_delivery AS delivery
    WHERE delivery.stream = @stream
        AND delivery.shard = @shard
        AND delivery.place BETWEEN @first_place AND @last_place
        AND delivery.published_at IS NULL
        AND delivery.parked_at IS NULL
        AND delivery.discarded_at IS NULL
        AND (delivery.not_before IS NULL OR delivery.not_before <= clock_timestamp())
        AND NOT EXISTS (
            SELECT
            FROM outbox_delivery AS held
            WHERE held.stream = delivery.stream
                AND held.shard = delivery.shard
                AND held.key = delivery.key
                AND held.place < delivery.place
                AND held.published_at IS NULL
                AND held.discarded_at IS NULL
                AND (held.parked_at IS NOT NULL OR held.not_before IS NOT NULL)
                AND (
                    (held.parked_at IS NOT NULL AND @parked_rows_block::boolean)
                    OR (held.parked_at IS NULL AND held.not_before > clock_timestamp())
                )
        )
    -- A gap marker stands in the place of its event, which may have been redriven since.
    ORDER BY delivery.id IS DISTINCT FROM sqlc.narg('alone_id')::bigint, delivery.place, delivery.id
    LIMIT CASE WHEN @alone THEN 1 END
), taken AS (
    UPDATE outbox_delivery AS delivery
    SET
        attempts = delivery.attempts + 1,
        crashes = delivery.crashes + CASE WHEN @alone::boolean THEN 1 ELSE 0 END,
        last_attempt_at = clock_timestamp(),
        last_error = @error::text,
        last_error_class = 'ambiguous',
        park_reason = CASE WHEN @alone::boolean AND delivery.crashes >= 1 THEN 'crash' END,
        parked_at = CASE WHEN @alone::boolean AND delivery.crashes >= 1 THEN clock_timestamp() END
    WHERE delivery.id IN (SELECT flown.id FROM flown)
        AND num_nonnulls(delivery.published_at, delivery.parked_at, delivery.discarded_at) = 0
    RETURNING delivery.id, delivery.park_reason
)
SELECT
    flown.id,
    coalesce(taken.park_reason IS NOT NULL, false)::boolean AS is_parked,
    (taken.id IS NOT NULL)::boolean AS is_recorded
FROM flown
LEFT JOIN taken ON taken.id = flown.id
ORDER BY flown.id;

-- name: OutboxDeliveryLeaveGaps :one
-- OutboxDeliveryLeaveGaps appends a gap marker in the place of each event; see the
-- SQL function outbox_leave_gaps.
SELECT outbox_leave_gaps(@ids::bigint[], @reason::text)::bigint AS num_left;
