-- name: OutboxStreamList :many
-- OutboxStreamList returns every stream, in order of name.
SELECT
    stream,
    job_kind,
    key_seq_source,
    max_event_bytes,
    num_shards,
    park_policy,
    provisioned_at,
    queue
FROM outbox_stream
ORDER BY stream;

-- name: OutboxStreamProvision :execrows
-- OutboxStreamProvision stores what the broker takes, for outbox_append to check.
UPDATE outbox_stream
SET
    max_event_bytes = @max_event_bytes,
    provisioned_at = clock_timestamp()
WHERE stream = @stream;

-- name: OutboxStatusList :many
-- OutboxStatusList returns the view outbox_status: each stream's events by state.
SELECT
    stream::text AS stream,
    pending::bigint AS pending,
    delayed::bigint AS delayed,
    blocked::bigint AS blocked,
    parked::bigint AS parked,
    published::bigint AS published,
    oldest_due_age,
    last_published_at,
    clock_timestamp()::timestamptz AS now
FROM outbox_status
ORDER BY stream;
