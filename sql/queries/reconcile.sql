-- name: ReconcileAdopt :one
-- ReconcileAdopt marks events as published where the broker is known to hold them,
-- each at its element of broker_refs, and returns how many it marked; see the SQL
-- function outbox_adopt.
SELECT outbox_adopt(@event_ids::uuid[], @broker_refs::text[], @by_whom::text)::bigint AS num_adopted;

-- name: ReconcileKeyLift :execrows
-- ReconcileKeyLift raises the last numbers of keys of a counted stream to last_seqs,
-- which event_ids have at the broker, and records who did. A key whose last number
-- is that high already stays as it is. It returns how many it raised.
WITH given AS (
    SELECT
        unnest(@event_ids::uuid[]) AS event_id,
        unnest(@keys::text[]) AS key,
        unnest(@last_seqs::bigint[]) AS last_seq
), lifted AS (
    INSERT INTO outbox_key AS known (stream, key, last_seq)
    SELECT
        @stream::text,
        given.key,
        given.last_seq
    FROM given
    -- As appends of many events do, so that none waits for the other in turn.
    ORDER BY given.key
    ON CONFLICT (stream, key) DO UPDATE
    SET last_seq = excluded.last_seq
    WHERE known.last_seq < excluded.last_seq
    RETURNING known.key, known.last_seq
)
INSERT INTO outbox_intervention (act, by_whom, event_id, key, key_seq, reason, stream)
SELECT
    'adopt',
    @by_whom::text,
    given.event_id,
    lifted.key,
    lifted.last_seq,
    'the broker holds it: the next number of its key follows this one',
    @stream::text
FROM lifted
JOIN given ON given.key = lifted.key;

-- name: ReconcilePlanLookups :exec
-- ReconcilePlanLookups makes the planner plan the rest of the session for looking up
-- some rows in large tables, and each statement for the rows that it is given.
SELECT
    set_config('enable_nestloop', 'on', false),
    set_config('plan_cache_mode', 'force_custom_plan', false);

-- name: ReconcilePlanScans :exec
-- ReconcilePlanScans makes the planner plan the rest of the session for reading
-- whole tables, and bounds what each step of a plan holds in memory.
SELECT
    set_config('enable_nestloop', 'off', false),
    set_config('jit', 'off', false),
    set_config('work_mem', '64MB', false);

-- name: ReconcileStreamList :many
-- ReconcileStreamList returns every stream, in order of name.
SELECT
    stream,
    job_kind,
    key_seq_source,
    num_shards,
    park_policy
FROM outbox_stream
ORDER BY stream;

-- name: ReconcileUnpublished :many
-- ReconcileUnpublished returns which of some events are not published. Only recent
-- events and undelivered ones are known to it.
SELECT event.event_id
FROM outbox_event AS event
JOIN outbox_delivery AS delivery ON delivery.id = event.id
WHERE event.event_id = ANY (@event_ids::uuid[])
    AND delivery.published_at IS NULL;
