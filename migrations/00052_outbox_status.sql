-- Why:   outbox_status read every delivery that was still among the undelivered ones, a
--        day's, each time that a dashboard asked.
-- Locks: ACCESS EXCLUSIVE on the view for an instant.
-- Undo:  it reads all of them again.

-- +goose Up
SET LOCAL lock_timeout = '2s';
CREATE OR REPLACE VIEW outbox_status AS
SELECT
    stream.stream,
    open_rows.pending,
    open_rows.delayed,
    open_rows.blocked,
    open_rows.parked,
    shards.published,
    (CASE WHEN open_rows.oldest_due_at IS NOT NULL THEN clock_timestamp() - open_rows.oldest_due_at END)::interval AS oldest_due_age,
    shards.last_published_at
FROM outbox_stream AS stream
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE events.state = 'pending') AS pending,
        count(*) FILTER (WHERE events.state = 'delayed') AS delayed,
        count(*) FILTER (WHERE events.state = 'blocked') AS blocked,
        count(*) FILTER (WHERE events.state = 'parked') AS parked,
        min(greatest(events.created_at, events.not_before)) FILTER (WHERE events.state = 'pending') AS oldest_due_at
    FROM (
        SELECT
            undelivered.created_at,
            undelivered.not_before,
            CASE
                WHEN undelivered.parked_at IS NOT NULL THEN 'parked'
                WHEN undelivered.not_before > clock_timestamp() THEN 'delayed'
                WHEN EXISTS (
                    SELECT FROM outbox_delivery AS earlier
                    WHERE earlier.stream = undelivered.stream
                        AND earlier.shard = undelivered.shard
                        AND earlier.key = undelivered.key
                        AND earlier.place < undelivered.place
                        AND earlier.published_at IS NULL
                        AND earlier.discarded_at IS NULL
                        AND (earlier.parked_at IS NOT NULL OR earlier.not_before IS NOT NULL)
                        AND (
                            (earlier.parked_at IS NOT NULL AND stream.park_policy = 'block')
                            OR (earlier.parked_at IS NULL AND earlier.not_before > clock_timestamp())
                        )
                ) THEN 'blocked'
                ELSE 'pending'
            END AS state
        FROM (
            SELECT stream, shard, key, place, created_at, NULL::timestamptz AS not_before, NULL::timestamptz AS parked_at FROM outbox_fresh
            UNION ALL
            SELECT stream, shard, key, place, created_at, not_before, parked_at FROM outbox_waiting
        ) AS undelivered
        WHERE undelivered.stream = stream.stream
    ) AS events
) AS open_rows
CROSS JOIN LATERAL (
    SELECT
        coalesce(sum(shard.num_published), 0)::bigint AS published,
        max(shard.last_published_at)::timestamptz AS last_published_at
    FROM outbox_shard AS shard
    WHERE shard.stream = stream.stream
) AS shards;
COMMENT ON VIEW outbox_status IS 'Each stream: undelivered events by state, counted exactly; published, a count of all events ever that is kept with each acknowledgement; the age of the oldest due event, and the last acknowledgement. Costs as much as there is undelivered, whatever was delivered.';

-- +goose Down
CREATE OR REPLACE VIEW outbox_status AS
SELECT
    stream.stream,
    open_rows.pending,
    open_rows.delayed,
    open_rows.blocked,
    open_rows.parked,
    shards.published,
    (CASE WHEN open_rows.oldest_due_at IS NOT NULL THEN clock_timestamp() - open_rows.oldest_due_at END)::interval AS oldest_due_age,
    shards.last_published_at
FROM outbox_stream AS stream
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE events.state = 'pending') AS pending,
        count(*) FILTER (WHERE events.state = 'delayed') AS delayed,
        count(*) FILTER (WHERE events.state = 'blocked') AS blocked,
        count(*) FILTER (WHERE events.state = 'parked') AS parked,
        min(greatest(events.created_at, events.not_before)) FILTER (WHERE events.state = 'pending') AS oldest_due_at
    FROM outbox_open AS events
    WHERE events.stream = stream.stream
) AS open_rows
CROSS JOIN LATERAL (
    SELECT
        coalesce(sum(shard.num_published), 0)::bigint AS published,
        max(shard.last_published_at)::timestamptz AS last_published_at
    FROM outbox_shard AS shard
    WHERE shard.stream = stream.stream
) AS shards;
COMMENT ON VIEW outbox_status IS 'Each stream: open events by state, how many were published ever, the age of the oldest due one, and the last acknowledgement. Counts the open rows, so it costs as much as the backlog is long.';
