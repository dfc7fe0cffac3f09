-- Why:   the views read what became of events where it is now, and delivered ones
--        of earlier days.
-- Locks: ACCESS EXCLUSIVE on the views for an instant.
-- Undo:  the views read outbox_event again; what is in outbox_history is not seen.

-- +goose Up
CREATE VIEW outbox_open AS
SELECT
    delivery.id,
    delivery.stream,
    delivery.shard,
    delivery.key,
    delivery.place,
    delivery.created_at,
    delivery.not_before,
    delivery.parked_at,
    (CASE
        WHEN delivery.parked_at IS NOT NULL THEN 'parked'
        WHEN delivery.not_before > clock_timestamp() THEN 'delayed'
        WHEN EXISTS (
            SELECT FROM outbox_delivery AS earlier
            WHERE earlier.stream = delivery.stream
                AND earlier.shard = delivery.shard
                AND earlier.key = delivery.key
                AND earlier.place < delivery.place
                AND earlier.published_at IS NULL
                AND earlier.discarded_at IS NULL
                AND (earlier.parked_at IS NOT NULL OR earlier.not_before IS NOT NULL)
                AND (
                    (earlier.parked_at IS NOT NULL AND stream.park_policy = 'block')
                    OR (earlier.parked_at IS NULL AND earlier.not_before > clock_timestamp())
                )
        ) THEN 'blocked'
        ELSE 'pending'
    END)::text AS state
FROM outbox_delivery AS delivery
JOIN outbox_stream AS stream ON stream.stream = delivery.stream
WHERE delivery.published_at IS NULL
    AND delivery.discarded_at IS NULL;
COMMENT ON VIEW outbox_open IS 'Every event that is neither published nor discarded, with its state: pending, delayed, blocked or parked. outbox_events has the same and all others, and what they say.';

CREATE OR REPLACE VIEW outbox_events AS
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
    delivery.attempts,
    delivery.failures,
    delivery.last_error,
    delivery.last_error_class,
    delivery.not_before,
    delivery.published_at,
    delivery.broker_ref,
    delivery.parked_at,
    delivery.park_reason,
    delivery.discarded_at,
    open.state AS state,
    delivery.discarded_by,
    delivery.discard_reason,
    delivery.last_attempt_at
FROM outbox_open AS open
JOIN outbox_delivery AS delivery ON delivery.id = open.id
JOIN outbox_event AS event ON event.id = open.id

UNION ALL

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
    delivery.attempts,
    delivery.failures,
    delivery.last_error,
    delivery.last_error_class,
    delivery.not_before,
    delivery.published_at,
    delivery.broker_ref,
    delivery.parked_at,
    delivery.park_reason,
    delivery.discarded_at,
    CASE WHEN delivery.published_at IS NOT NULL THEN 'published' ELSE 'discarded' END AS state,
    delivery.discarded_by,
    delivery.discard_reason,
    delivery.last_attempt_at
FROM outbox_delivery AS delivery
JOIN outbox_event AS event ON event.id = delivery.id
WHERE delivery.published_at IS NOT NULL
    OR delivery.discarded_at IS NOT NULL

UNION ALL

SELECT
    history.stream,
    history.id,
    history.event_id,
    history.key,
    history.key_seq,
    history.type,
    history.payload,
    history.headers,
    history.created_at,
    history.attempts,
    history.failures,
    history.last_error,
    history.last_error_class,
    history.not_before,
    history.published_at,
    history.broker_ref,
    history.parked_at,
    history.park_reason,
    history.discarded_at,
    CASE WHEN history.published_at IS NOT NULL THEN 'published' ELSE 'discarded' END AS state,
    history.discarded_by,
    history.discard_reason,
    history.last_attempt_at
FROM outbox_history AS history;

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

CREATE OR REPLACE VIEW audit_settlement_event AS
SELECT subject, detail
FROM (
    SELECT
        coalesce(credited.reference, told.reference)::text AS subject,
        CASE
            -- Delivered events are kept for a time only.
            WHEN told.reference IS NULL AND credited.credited_at < (SELECT dropped_before FROM outbox_retention) THEN ''
            WHEN told.reference IS NULL THEN format('run %s credited it, but no event tells of it', credited.run_id)
            WHEN credited.reference IS NULL THEN format('event %s has no credited item', told.first_id)
            WHEN told.num_events > 1 THEN format('has %s events', told.num_events)
            WHEN row(told.key, told.player, told.currency, told.amount)
                IS DISTINCT FROM row(credited.player || '/' || credited.currency, credited.player, credited.currency, credited.amount::text)
            THEN format('run %s credited %s %s, event %s of key %s tells that player %s got %s %s', credited.run_id, credited.amount, credited.currency,
                told.first_id, told.key, coalesce(told.player, 'none'), coalesce(told.amount, 'nothing'), coalesce(told.currency, 'of no currency'))
            ELSE ''
        END::text AS detail
    FROM (SELECT * FROM settlement_credits WHERE delivery = 'credited') AS credited
    FULL JOIN (
        SELECT
            event.payload ->> 'reference' AS reference,
            min(event.payload ->> 'amount') AS amount,
            min(event.payload ->> 'currency') AS currency,
            min(event.id) AS first_id,
            min(event.key) AS key,
            count(*) AS num_events,
            min(event.payload ->> 'player') AS player
        FROM (
            SELECT id, key, payload, stream, type FROM outbox_event
            UNION ALL
            SELECT id, key, payload, stream, type FROM outbox_history
        ) AS event
        WHERE event.stream = 'wallet'
            AND event.type = 'wallet.credited.v1'
            AND starts_with(event.payload ->> 'reference', 'settle/')
        GROUP BY event.payload ->> 'reference'
    ) AS told ON told.reference = credited.reference
) AS checked
WHERE detail <> '';

-- +goose Down
CREATE OR REPLACE VIEW audit_settlement_event AS
SELECT subject, detail
FROM (
    SELECT
        coalesce(credited.reference, told.reference)::text AS subject,
        CASE
            WHEN told.reference IS NULL THEN format('run %s credited it, but no event tells of it', credited.run_id)
            WHEN credited.reference IS NULL THEN format('event %s has no credited item', told.first_id)
            WHEN told.num_events > 1 THEN format('has %s events', told.num_events)
            WHEN row(told.key, told.player, told.currency, told.amount)
                IS DISTINCT FROM row(credited.player || '/' || credited.currency, credited.player, credited.currency, credited.amount::text)
            THEN format('run %s credited %s %s, event %s of key %s tells that player %s got %s %s', credited.run_id, credited.amount, credited.currency,
                told.first_id, told.key, coalesce(told.player, 'none'), coalesce(told.amount, 'nothing'), coalesce(told.currency, 'of no currency'))
            ELSE ''
        END::text AS detail
    FROM (SELECT * FROM settlement_credits WHERE delivery = 'credited') AS credited
    FULL JOIN (
        SELECT
            event.payload ->> 'reference' AS reference,
            min(event.payload ->> 'amount') AS amount,
            min(event.payload ->> 'currency') AS currency,
            min(event.id) AS first_id,
            min(event.key) AS key,
            count(*) AS num_events,
            min(event.payload ->> 'player') AS player
        FROM outbox_event AS event
        WHERE event.stream = 'wallet'
            AND event.type = 'wallet.credited.v1'
            AND starts_with(event.payload ->> 'reference', 'settle/')
        GROUP BY event.payload ->> 'reference'
    ) AS told ON told.reference = credited.reference
) AS checked
WHERE detail <> '';

DROP VIEW outbox_status;
DROP VIEW outbox_events;
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
DROP VIEW outbox_open;
