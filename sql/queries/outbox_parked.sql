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
-- OutboxParkedList returns those of the events given that are parked, those first
-- that are parked for longest.
SELECT
    parked.event_id,
    parked.attempts,
    parked.created_at,
    parked.failures,
    parked.key,
    parked.key_seq,
    coalesce(parked.last_error, '')::text AS last_error,
    coalesce(parked.last_error_class, '')::text AS last_error_class,
    parked.park_policy,
    coalesce(parked.park_reason, '')::text AS park_reason,
    (clock_timestamp() - parked.parked_at)::interval AS parked_age,
    parked.parked_at::timestamptz AS parked_at,
    parked.stream,
    parked.type
FROM outbox_parked AS parked
WHERE parked.event_id = ANY (@event_ids::uuid[])
ORDER BY parked.parked_at, parked.id;

-- name: OutboxParkedUnfit :many
-- OutboxParkedUnfit returns the first of the events given that is not parked, with
-- its state, 'unknown' for one that there is not; nothing when all are parked.
WITH given AS (
    SELECT unnest(@event_ids::uuid[]) AS event_id
)
SELECT
    given.event_id::uuid AS event_id,
    coalesce(events.state, 'unknown')::text AS state
FROM given
LEFT JOIN outbox_events AS events ON events.event_id = given.event_id
WHERE events.state IS DISTINCT FROM 'parked'
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
-- OutboxParkedDiscard gives parked events up; see the SQL function outbox_discard.
SELECT outbox_discard(@event_ids::uuid[], @by_whom::text, @reason::text)::bigint AS num_events;

-- name: OutboxParkedRedrive :one
-- OutboxParkedRedrive sends parked events again; see the SQL function
-- outbox_redrive.
SELECT outbox_redrive(@event_ids::uuid[], @by_whom::text, @reason::text)::bigint AS num_events;
