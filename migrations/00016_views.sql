-- Why:   what operators, dashboards and scripts read.
-- Locks: none; new views.
-- Undo:  drops them.

-- +goose Up
CREATE VIEW wallet_balances AS
SELECT
    player.code AS player,
    wallet.currency,
    wallet.balance_minor AS balance,
    player.status,
    wallet.version
FROM wallet
JOIN player ON player.id = wallet.player_id;
COMMENT ON VIEW wallet_balances IS 'Every wallet: balance in minor units, the player''s status, and the version that the next event follows.';

CREATE VIEW ledger_lines AS
SELECT
    txn.id AS txn_id,
    txn.reference,
    txn.kind,
    account.kind AS account,
    player.code AS player,
    account.currency,
    entry.amount_minor AS amount,
    entry.at,
    entry.created_at
FROM ledger_entry AS entry
JOIN ledger_txn AS txn ON txn.id = entry.txn_id
JOIN ledger_account AS account ON account.id = entry.account_id
LEFT JOIN player ON player.id = account.player_id;
COMMENT ON VIEW ledger_lines IS 'Every ledger entry with its transaction: amounts in minor units, at by the source, created_at when booked. The amounts of one txn_id sum to zero per currency.';

CREATE VIEW outbox_events AS
SELECT
    event.stream,
    event.id,
    event.event_id,
    event.key,
    event.key_seq,
    event.type,
    event.payload,
    event.headers,
    event.created_at,
    event.attempts,
    event.failures,
    event.last_error,
    event.last_error_class,
    event.not_before,
    event.published_at,
    event.broker_ref,
    event.parked_at,
    event.park_reason,
    event.discarded_at,
    CASE
        WHEN event.published_at IS NOT NULL THEN 'published'
        WHEN event.discarded_at IS NOT NULL THEN 'discarded'
        WHEN event.parked_at IS NOT NULL THEN 'parked'
        WHEN event.not_before > clock_timestamp() THEN 'delayed'
        WHEN EXISTS (
            SELECT FROM outbox_event AS earlier
            WHERE earlier.stream = event.stream
                AND earlier.shard = event.shard
                AND earlier.key = event.key
                AND earlier.id < event.id
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
FROM outbox_event AS event
JOIN outbox_stream AS stream ON stream.stream = event.stream;
COMMENT ON VIEW outbox_events IS 'Every event with its state: pending; delayed (waits after a failure of its own); blocked (an earlier event of its key must go first); parked (needs a person); published (acknowledged by the broker, see broker_ref); discarded (by an operator).';

CREATE VIEW outbox_status AS
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
    FROM outbox_events AS events
    WHERE events.stream = stream.stream
        AND events.published_at IS NULL
        AND events.discarded_at IS NULL
) AS open_rows
CROSS JOIN LATERAL (
    SELECT
        coalesce(sum(shard.num_published), 0)::bigint AS published,
        max(shard.last_published_at)::timestamptz AS last_published_at
    FROM outbox_shard AS shard
    WHERE shard.stream = stream.stream
) AS shards;
COMMENT ON VIEW outbox_status IS 'Each stream: open events by state, how many were published ever, the age of the oldest due one, and the last acknowledgement. Counts the open rows, so it costs as much as the backlog is long.';

CREATE VIEW job_failures AS
SELECT
    job.id AS job_id,
    job.kind,
    job.queue,
    job.state::text AS state,
    (failure.doc ->> 'attempt')::integer AS attempt,
    job.max_attempts::integer AS max_attempts,
    (failure.doc ->> 'at')::timestamptz AS failed_at,
    failure.doc ->> 'error' AS error
FROM river_job AS job
CROSS JOIN LATERAL (SELECT unnest(job.errors) AS doc) AS failure;
COMMENT ON VIEW job_failures IS 'One row per attempt that ended in an error, as long as River keeps the job.';

CREATE VIEW worker_heartbeats AS
SELECT worker_id, seen_at, ready_at, reasons, queues, version, started_at
FROM worker_heartbeat;
COMMENT ON VIEW worker_heartbeats IS 'Each process: seen_at moves while it lives, ready_at only while it is ready, reasons say why not.';

-- +goose Down
DROP VIEW worker_heartbeats;
DROP VIEW job_failures;
DROP VIEW outbox_status;
DROP VIEW outbox_events;
DROP VIEW ledger_lines;
DROP VIEW wallet_balances;
