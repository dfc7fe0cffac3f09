-- Why:   delivered events are kept for weeks, beside a table that must stay quick.
--        By the day, so that the oldest are dropped without touching a row.
-- Locks: none; new table.
-- Undo:  drops it, with the delivered events that had been moved there.

-- +goose Up
CREATE TABLE outbox_history (
    id bigint NOT NULL,
    stream text NOT NULL,
    shard integer NOT NULL,
    key text NOT NULL,
    key_seq bigint NOT NULL,
    event_id uuid NOT NULL,
    type text NOT NULL,
    payload jsonb NOT NULL,
    headers jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    resolved_at timestamptz NOT NULL,
    attempts integer NOT NULL,
    failures integer NOT NULL,
    last_attempt_at timestamptz,
    last_error text,
    last_error_class text,
    not_before timestamptz,
    published_at timestamptz,
    broker_ref text,
    parked_at timestamptz,
    park_reason text,
    discarded_at timestamptz,
    discarded_by text,
    discard_reason text,
    CONSTRAINT delivered_or_discarded CHECK (num_nonnulls(published_at, discarded_at) = 1),
    CONSTRAINT resolved_when_it_was CHECK (resolved_at = coalesce(published_at, discarded_at))
) PARTITION BY RANGE (resolved_at);
COMMENT ON TABLE outbox_history IS 'Events that were published or discarded some time ago, with what became of them; one partition per day (UTC) of resolved_at. The maintenance loop moves them here, makes the partitions ahead and drops them behind.';
CREATE INDEX outbox_history_event_id_idx ON outbox_history (event_id);
CREATE INDEX outbox_history_key_idx ON outbox_history (stream, key, key_seq);

CREATE TABLE outbox_retention (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    dropped_before timestamptz NOT NULL
);
COMMENT ON TABLE outbox_retention IS 'dropped_before: delivered events that were resolved before this are no longer kept. No row: none was dropped yet.';

-- +goose Down
DROP TABLE outbox_retention;
DROP TABLE outbox_history;
