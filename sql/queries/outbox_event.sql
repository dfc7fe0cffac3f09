-- name: OutboxEventAppend :one
-- OutboxEventAppend stores one event and assures its publish job; see the SQL
-- function of that name for what it refuses.
SELECT outbox_append(
    @stream::text, @key::text, @type::text, @payload::jsonb, @headers::jsonb, sqlc.narg('key_seq')::bigint
)::uuid AS event_id;

-- name: OutboxEventAppendMany :one
-- OutboxEventAppendMany stores the events of one stream in the order given. Its
-- key_seqs are nil for counted streams.
SELECT outbox_append_many(
    @stream::text, @keys::text[], @types::text[], @payloads::jsonb[], @headers::jsonb[], sqlc.narg('key_seqs')::bigint[]
)::uuid[] AS event_ids;

-- name: OutboxEventClaim :many
-- OutboxEventClaim reads up to max_events due events of one shard, oldest first,
-- whose id is above after_id. It locks nothing: the caller holds the shard's
-- lease. Left out are events that wait after a failure of their own, parked
-- ones, and those behind such an event of their key, so that a failing key never
-- fills the batch.
WITH held AS (
    SELECT
        held.key,
        min(held.id) AS first_id
    FROM outbox_event AS held
    WHERE held.stream = @stream
        AND held.shard = @shard
        AND held.published_at IS NULL
        AND held.discarded_at IS NULL
        AND (held.parked_at IS NOT NULL OR held.not_before IS NOT NULL)
        AND (
            (held.parked_at IS NOT NULL AND @parked_rows_block::boolean)
            OR (held.parked_at IS NULL AND held.not_before > clock_timestamp())
        )
    GROUP BY held.key
)
SELECT
    event.id,
    event.created_at,
    event.event_id,
    event.headers,
    event.key,
    event.key_seq,
    event.payload,
    event.type
FROM outbox_event AS event
LEFT JOIN held ON held.key = event.key
WHERE event.stream = @stream
    AND event.shard = @shard
    AND event.id > @after_id
    AND event.published_at IS NULL
    AND event.parked_at IS NULL
    AND event.discarded_at IS NULL
    AND (event.not_before IS NULL OR event.not_before <= clock_timestamp())
    AND (held.key IS NULL OR event.id < held.first_id)
ORDER BY event.id
LIMIT @max_events::integer;

-- name: OutboxEventMarkFailed :execrows
-- OutboxEventMarkFailed records what went wrong with each event. add_failures is
-- 1 for a failure of the event itself, which then waits for delay; 0 for an
-- outage, which delays the shard instead. Events that a late acknowledgement
-- published meanwhile stay as they are, and so does everything once the shard's
-- lease is no longer the one of lease_epoch.
WITH failed AS (
    SELECT
        unnest(@ids::bigint[]) AS id,
        unnest(@errors::text[]) AS error,
        unnest(@classes::text[]) AS class,
        unnest(@add_failures::integer[]) AS add_failures
)
UPDATE outbox_event AS event
SET
    attempts = event.attempts + 1,
    failures = event.failures + failed.add_failures,
    last_attempt_at = clock_timestamp(),
    last_error = failed.error,
    last_error_class = failed.class,
    not_before = CASE WHEN failed.add_failures > 0
        THEN clock_timestamp() + @delay::interval
        ELSE event.not_before
    END
FROM failed, outbox_shard AS shard
WHERE event.id = failed.id
    AND shard.stream = event.stream
    AND shard.shard = event.shard
    AND shard.lease_epoch = @lease_epoch
    -- Not IS NULL: see OutboxEventMarkPublished.
    AND num_nonnulls(event.published_at, event.discarded_at) = 0;

-- name: OutboxEventMarkPublished :execrows
-- OutboxEventMarkPublished stores the broker's acknowledgements. It asks for no
-- lease: that the broker has an event is a fact, whoever was told. An event that
-- was marked before keeps its first acknowledgement.
WITH acknowledged AS (
    SELECT
        unnest(@ids::bigint[]) AS id,
        unnest(@broker_refs::text[]) AS broker_ref
)
UPDATE outbox_event AS event
SET
    attempts = event.attempts + 1,
    broker_ref = acknowledged.broker_ref,
    last_attempt_at = clock_timestamp(),
    published_at = clock_timestamp()
FROM acknowledged
WHERE event.id = acknowledged.id
    -- Not IS NULL: statistics of a moment when all was published would have the
    -- planner expect one such row, and join by comparing each with each.
    AND num_nonnulls(event.published_at, event.discarded_at) = 0;
