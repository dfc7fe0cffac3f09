-- name: OutboxShardBackOff :execrows
-- OutboxShardBackOff gives the lease back and keeps everybody from the shard for
-- delay. No row changes if the lease was lost.
UPDATE outbox_shard
SET
    awake_until = NULL,
    backoff_until = clock_timestamp() + @delay::interval,
    inflight_first = NULL,
    inflight_last = NULL,
    inflight_num = NULL,
    lease_expires_at = NULL,
    lease_owner = NULL
WHERE stream = @stream
    AND shard = @shard
    AND lease_epoch = @lease_epoch
    AND lease_owner IS NOT NULL;

-- name: OutboxShardInFlight :one
-- OutboxShardInFlight returns what a lease has noted as in flight, and keeps others
-- from the shard until the transaction ends. No row: nothing, or the lease was lost.
SELECT
    inflight_first::bigint AS first_place,
    inflight_last::bigint AS last_place
FROM outbox_shard
WHERE stream = @stream
    AND shard = @shard
    AND lease_epoch = @lease_epoch
    AND lease_owner IS NOT NULL
    AND inflight_num IS NOT NULL
FOR UPDATE;

-- name: OutboxShardLease :one
-- OutboxShardLease leases a shard until lease_ttl from now, and returns the
-- lease's epoch, with what the holder before had in flight if it died; whoever
-- gives a lease back leaves none. No row: it is leased by another, or in backoff. Epoch
-- 0: it is free, and the lease was not stored.
WITH free AS MATERIALIZED (
    SELECT
        shard.shard,
        shard.stream
    FROM outbox_shard AS shard
    WHERE shard.stream = @stream
        AND shard.shard = @shard
        AND (shard.lease_expires_at IS NULL OR shard.lease_expires_at <= clock_timestamp())
        AND (shard.backoff_until IS NULL OR shard.backoff_until <= clock_timestamp())
    FOR NO KEY UPDATE
), leased AS (
    UPDATE outbox_shard AS shard
    SET
        awake_until = clock_timestamp() + @awake_for::interval,
        backoff_until = NULL,
        lease_epoch = shard.lease_epoch + 1,
        lease_expires_at = clock_timestamp() + @lease_ttl::interval,
        lease_owner = @lease_owner::text,
        leased_at = clock_timestamp()
    FROM free
    WHERE shard.stream = free.stream
        AND shard.shard = free.shard
    RETURNING shard.batch_limit, shard.inflight_first, shard.inflight_id, shard.inflight_last, shard.inflight_num, shard.lease_epoch, shard.shard
)
SELECT
    leased.batch_limit,
    leased.inflight_first,
    leased.inflight_id,
    leased.inflight_last,
    leased.inflight_num,
    coalesce(leased.lease_epoch, 0)::bigint AS lease_epoch
FROM free
LEFT JOIN leased ON leased.shard = free.shard;

-- name: OutboxShardExtend :execrows
-- OutboxShardExtend extends a lease whatever is in flight, and promises appends that
-- the leaseholder finds their rows. No row changes if the lease was lost.
UPDATE outbox_shard
SET
    awake_until = clock_timestamp() + @awake_for::interval,
    lease_expires_at = clock_timestamp() + @lease_ttl::interval
WHERE stream = @stream
    AND shard = @shard
    AND lease_epoch = @lease_epoch
    AND lease_owner IS NOT NULL;

-- name: OutboxShardHold :many
-- OutboxShardHold keeps others from the shard until the transaction ends. No row: the
-- lease was lost.
SELECT shard
FROM outbox_shard
WHERE stream = @stream
    AND shard = @shard
    AND lease_epoch = @lease_epoch
    AND lease_owner IS NOT NULL
FOR UPDATE;

-- name: OutboxShardRelease :execrows
-- OutboxShardRelease gives the lease back. No row changes if it was lost.
UPDATE outbox_shard
SET
    awake_until = NULL,
    inflight_first = NULL,
    inflight_last = NULL,
    inflight_num = NULL,
    lease_expires_at = NULL,
    lease_owner = NULL
WHERE stream = @stream
    AND shard = @shard
    AND lease_epoch = @lease_epoch
    AND lease_owner IS NOT NULL;

-- name: OutboxShardRenew :execrows
-- OutboxShardRenew extends a lease while nothing is in flight, says whether appends
-- may rely on the leaseholder to find their rows, and bounds what is sent at
-- once. No row changes if the lease was lost.
UPDATE outbox_shard
SET
    awake_until = CASE WHEN @awake::boolean THEN clock_timestamp() + @awake_for::interval END,
    batch_limit = sqlc.narg('batch_limit')::integer,
    inflight_first = NULL,
    inflight_last = NULL,
    inflight_num = NULL,
    lease_expires_at = clock_timestamp() + @lease_ttl::interval
WHERE stream = @stream
    AND shard = @shard
    AND lease_epoch = @lease_epoch
    AND lease_owner IS NOT NULL;

-- name: OutboxShardCountPublished :one
-- OutboxShardCountPublished adds to a shard's count of published events, moves its
-- last acknowledgement, and says whether the lease of lease_epoch holds. It asks for
-- none: see OutboxDeliveryMarkPublished.
UPDATE outbox_shard
SET
    last_published_at = CASE WHEN @num_published > 0 THEN clock_timestamp() ELSE last_published_at END,
    num_published = num_published + @num_published::bigint
WHERE stream = @stream
    AND shard = @shard
RETURNING (lease_epoch = @lease_epoch AND lease_owner IS NOT NULL)::boolean AS holds_lease;

-- name: OutboxShardWake :one
-- OutboxShardWake assures that a publish job for the shard will run, and says
-- whether it had to insert one.
SELECT outbox_wake(declared, @shard::integer)::boolean AS inserted
FROM outbox_stream AS declared
WHERE declared.stream = @stream;

-- name: OutboxShardHasDue :one
-- OutboxShardHasDue says whether a claim would find something.
SELECT EXISTS (
    SELECT
    FROM outbox_due AS due
    WHERE due.stream = @stream
        AND due.shard = @shard
        AND due.due_at IS NOT NULL
) AS has_due;
