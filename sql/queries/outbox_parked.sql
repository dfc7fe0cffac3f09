-- name: OutboxParkedSelect :many
-- OutboxParkedSelect returns the ids of up to max_events parked events, those first
-- that are parked for longest, and with each how many match in all. Empty texts and
-- NULL moments do not restrict. A moment is an instant, or an age by the database's
-- clock.
SELECT
    parked.event_id,
    (count(*) OVER ())::bigint AS num_matching
FROM outbox_parked AS parked
WHERE (@stream::text = '' OR parked.stream = @stream)
    AND (@key::text = '' OR parked.key = @key)
    AND (@type::text = '' OR parked.type = @type)
    AND (@park_reason::text = '' OR parked.park_reason = @park_reason)
    AND (@error_class::text = '' OR parked.last_error_class = @error_class)
    AND coalesce(
        parked.parked_at >= coalesce(sqlc.narg('parked_after')::timestamptz, clock_timestamp() - sqlc.narg('parked_after_age')::interval), true)
    AND coalesce(
        parked.parked_at < coalesce(sqlc.narg('parked_before')::timestamptz, clock_timestamp() - sqlc.narg('parked_before_age')::interval), true)
ORDER BY parked.parked_at, parked.id
LIMIT @max_events::integer;

-- name: OutboxParkedList :many
-- OutboxParkedList returns those of the events given that are not delivered, those
-- first that are parked for longest, and those last that are not parked.
SELECT
    event.event_id,
    delivery.attempts,
    event.created_at,
    delivery.failures,
    event.key,
    event.key_seq,
    coalesce(delivery.last_error, '')::text AS last_error,
    coalesce(delivery.last_error_class, '')::text AS last_error_class,
    stream.park_policy,
    coalesce(delivery.park_reason, '')::text AS park_reason,
    coalesce(clock_timestamp() - delivery.parked_at, '0')::interval AS parked_age,
    delivery.parked_at,
    event.stream,
    event.type
FROM outbox_event AS event
JOIN outbox_delivery AS delivery ON delivery.id = event.id
JOIN outbox_stream AS stream ON stream.stream = event.stream
WHERE event.event_id = ANY (@event_ids::uuid[])
    AND delivery.published_at IS NULL
    AND delivery.discarded_at IS NULL
ORDER BY delivery.parked_at, delivery.id;

-- name: OutboxParkedUnfit :many
-- OutboxParkedUnfit returns the first of the events given that is not parked, or that
-- is not undelivered where those that are not parked are fit too, with its state,
-- 'unknown' for one that does not exist; nothing when all are fit.
WITH given AS (
    SELECT unnest(@event_ids::uuid[]) AS event_id
)
SELECT
    given.event_id::uuid AS event_id,
    coalesce(events.state, 'unknown')::text AS state
FROM given
LEFT JOIN outbox_events AS events ON events.event_id = given.event_id
WHERE CASE
    WHEN @fit_unparked::boolean THEN events.state IS NULL OR events.state IN ('published', 'discarded')
    ELSE events.state IS DISTINCT FROM 'parked'
END
LIMIT 1;

-- name: OutboxParkedPerStream :many
-- OutboxParkedPerStream counts the events given by stream, whatever became of them,
-- in order of the streams' names.
SELECT
    event.stream,
    stream.park_policy,
    count(*) AS num_events,
    count(*) FILTER (WHERE event.type = 'truegreen.gap.v1') AS num_markers
FROM outbox_event AS event
JOIN outbox_stream AS stream ON stream.stream = event.stream
WHERE event.event_id = ANY (@event_ids::uuid[])
GROUP BY event.stream, stream.park_policy
ORDER BY event.stream;

-- name: OutboxParkedDiscard :one
-- OutboxParkedDiscard gives undelivered events up; see the SQL function outbox_discard.
SELECT outbox_discard(@event_ids::uuid[], @by_whom::text, @reason::text)::bigint AS num_events;

-- name: OutboxParkedRedrive :one
-- OutboxParkedRedrive sends parked events again; see the SQL function
-- outbox_redrive.
SELECT outbox_redrive(@event_ids::uuid[], @by_whom::text, @reason::text)::bigint AS num_events;
