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

-- name: OutboxEventRead :many
-- OutboxEventRead returns what the events given say, in any order.
SELECT
    event.id,
    event.headers,
    event.payload
FROM outbox_event AS event
WHERE event.id = ANY (@ids::bigint[]);

-- name: OutboxEventTooLarge :many
-- OutboxEventTooLarge returns those of the events given that are larger than their
-- stream takes as it was last provisioned, or have more headers than any message may:
-- such were let in once.
SELECT event.id
FROM outbox_event AS event
JOIN outbox_stream AS stream ON stream.stream = event.stream
WHERE event.id = ANY (@ids::bigint[])
    AND (
        octet_length(event.headers::text) > 32768
        OR octet_length(event.payload::text)
            + CASE WHEN event.headers = '{}' THEN 0 ELSE octet_length(event.headers::text) END
            > stream.max_event_bytes
    );
