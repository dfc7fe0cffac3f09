-- Why:   searches for undelivered events read the index entries of every event that was
--        published since the oldest snapshot, and of every event that is not committed
--        yet. During a backup that turned the whole fleet red. A cursor per shard now
--        remembers which transactions may still have left undelivered events.
-- Locks: ACCESS EXCLUSIVE on outbox_delivery while two indexes of the undelivered rows
--        are built, some seconds per million rows of the table; appends and workers wait.
-- Undo:  drops the cursor, the indexes and the column.

-- +goose Up
SET LOCAL lock_timeout = '10s';
-- Rows that exist already count as written by the first transaction of all: no
-- uncommitted one is among them while this lock is held.
ALTER TABLE outbox_delivery ADD COLUMN written_by bigint NOT NULL DEFAULT 1;
ALTER TABLE outbox_delivery ALTER COLUMN written_by SET DEFAULT (pg_current_xact_id()::text::bigint);
COMMENT ON COLUMN outbox_delivery.written_by IS 'The transaction that last wrote the row while it was undelivered. A search can skip a transaction that is still running, and all those that an outbox_cursor rules out.';

-- +goose StatementBegin
CREATE FUNCTION outbox_delivery_note_writer() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.written_by := pg_current_xact_id()::text::bigint;
    RETURN NEW;
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION outbox_delivery_note_writer() IS 'Trigger: notes the transaction that changes an undelivered event, so that no outbox_cursor hides the change.';
CREATE TRIGGER outbox_delivery_written BEFORE UPDATE ON outbox_delivery
    FOR EACH ROW
    WHEN (NEW.published_at IS NULL AND NEW.discarded_at IS NULL)
    EXECUTE FUNCTION outbox_delivery_note_writer();

CREATE INDEX outbox_delivery_cursor_fresh_idx ON outbox_delivery (stream, shard, written_by)
    WHERE published_at IS NULL AND parked_at IS NULL AND discarded_at IS NULL AND not_before IS NULL;
COMMENT ON INDEX outbox_delivery_cursor_fresh_idx IS 'For outbox_fresh and outbox_due_search: undelivered events that never failed.';
CREATE INDEX outbox_delivery_cursor_waiting_idx ON outbox_delivery (stream, shard, written_by)
    WHERE published_at IS NULL AND discarded_at IS NULL AND (parked_at IS NOT NULL OR not_before IS NOT NULL);
COMMENT ON INDEX outbox_delivery_cursor_waiting_idx IS 'For outbox_waiting and outbox_due_search: undelivered events that failed, are parked, or hold their key.';

-- Made again to be the younger ones: while the table looks empty, the planner finds all
-- four as cheap and takes the one that was made last, for as long as a plan is kept.
DROP INDEX outbox_delivery_due_idx;
CREATE INDEX outbox_delivery_due_idx ON outbox_delivery (stream, shard, place, id)
    WHERE published_at IS NULL AND parked_at IS NULL AND discarded_at IS NULL;
DROP INDEX outbox_delivery_held_idx;
CREATE INDEX outbox_delivery_held_idx ON outbox_delivery (stream, shard, key, place)
    WHERE published_at IS NULL AND discarded_at IS NULL AND (parked_at IS NOT NULL OR not_before IS NOT NULL);

CREATE TABLE outbox_cursor (
    stream text NOT NULL,
    shard integer NOT NULL,
    fresh_also bigint[] NOT NULL,
    fresh_from bigint NOT NULL,
    noted_at timestamptz NOT NULL,
    num_published bigint NOT NULL,
    server_started_at timestamptz NOT NULL,
    waiting_also bigint[] NOT NULL,
    waiting_from bigint NOT NULL,
    PRIMARY KEY (stream, shard),
    FOREIGN KEY (stream, shard) REFERENCES outbox_shard (stream, shard) ON DELETE CASCADE
) WITH (fillfactor = 50);
COMMENT ON TABLE outbox_cursor IS 'Where a search for undelivered events of a shard begins. An undelivered event was written by a transaction from ..._from on, or by one of ..._also: those that were running when this was noted, or had left undelivered events. Never an estimate: a change of an undelivered event is a new transaction. The sweep notes it; without a row, or after a restart or a restore, a search begins at the first transaction.';
COMMENT ON COLUMN outbox_cursor.fresh_from IS 'For events that never failed; waiting_from for those that failed, are parked or hold their key.';
COMMENT ON COLUMN outbox_cursor.num_published IS 'The shard''s num_published when this was noted: how much was delivered since.';
COMMENT ON COLUMN outbox_cursor.server_started_at IS 'The start of the server that this holds for. Transaction numbers of another server, such as that of a backup, mean nothing here.';

CREATE VIEW outbox_xact_gap AS
WITH running AS MATERIALIZED (
    SELECT xact::text::bigint AS xact
    FROM pg_snapshot_xip(pg_current_snapshot()) AS xact
    ORDER BY xact
    LIMIT 8
)
SELECT
    (1 + coalesce(lag(running.xact) OVER (ORDER BY running.xact), -1))::bigint AS first_xact,
    (running.xact - 1)::bigint AS last_xact
FROM running
UNION ALL
SELECT
    (1 + coalesce((SELECT max(running.xact) FROM running), -1))::bigint,
    9223372036854775807;
COMMENT ON VIEW outbox_xact_gap IS 'The ranges of transaction numbers between the oldest running transactions, of which nothing is visible. At most eight are left out: a long transaction is an old one.';

CREATE VIEW outbox_shard_now AS
SELECT
    stream.stream,
    numbered.shard,
    newest.last_published_at,
    noted.fresh_also,
    noted.fresh_from,
    noted.waiting_also,
    noted.waiting_from
FROM outbox_stream AS stream
CROSS JOIN LATERAL unnest(ARRAY(
    -- As an array, of which the planner expects few.
    SELECT generate_series(
        0,
        greatest(
            stream.num_shards - 1,
            (SELECT last.shard FROM outbox_shard AS last WHERE last.stream = stream.stream ORDER BY last.shard DESC LIMIT 1)
        )
    )
)) AS numbered (shard)
LEFT JOIN LATERAL (
    SELECT
        version.stream,
        version.shard,
        version.last_published_at
    FROM outbox_shard AS version
    WHERE (version.stream, version.shard) <= (stream.stream, numbered.shard)
    ORDER BY version.stream DESC, version.shard DESC
    LIMIT 1
) AS newest ON newest.stream = stream.stream AND newest.shard = numbered.shard
LEFT JOIN LATERAL (
    SELECT
        version.stream,
        version.shard,
        version.fresh_also,
        version.fresh_from,
        version.server_started_at,
        version.waiting_also,
        version.waiting_from
    FROM outbox_cursor AS version
    WHERE (version.stream, version.shard) <= (stream.stream, numbered.shard)
    ORDER BY version.stream DESC, version.shard DESC
    LIMIT 1
) AS noted
    ON noted.stream = stream.stream
    AND noted.shard = numbered.shard
    AND noted.server_started_at = pg_postmaster_start_time();
COMMENT ON VIEW outbox_shard_now IS 'Each shard with its cursor, read from the end of the index: behind a held snapshot a row that every pass writes has very many versions, of which the newest is the last.';

CREATE VIEW outbox_reach AS
SELECT
    noted.stream,
    noted.shard,
    kind.is_fresh,
    -- A listed transaction is a span of one, and stands before ..._from.
    (CASE
        WHEN span.first_xact = span.last_xact THEN span.first_xact
        ELSE greatest(span.first_xact, CASE WHEN kind.is_fresh THEN noted.fresh_from ELSE noted.waiting_from END)
    END)::bigint AS first_xact,
    span.last_xact
FROM outbox_shard_now AS noted
CROSS JOIN (SELECT true AS is_fresh UNION ALL SELECT false) AS kind
CROSS JOIN LATERAL (
    SELECT
        listed.xact AS first_xact,
        listed.xact AS last_xact
    FROM unnest(CASE WHEN kind.is_fresh THEN noted.fresh_also ELSE noted.waiting_also END) AS listed (xact)
    WHERE pg_visible_in_snapshot(listed.xact::text::xid8, pg_current_snapshot())
        OR listed.xact = pg_current_xact_id_if_assigned()::text::bigint
    UNION ALL
    SELECT
        gap.first_xact,
        gap.last_xact
    FROM outbox_xact_gap AS gap
    WHERE gap.last_xact >= coalesce(CASE WHEN kind.is_fresh THEN noted.fresh_from ELSE noted.waiting_from END, 0)
) AS span;
COMMENT ON VIEW outbox_reach IS 'Which transactions may have left undelivered events of a shard that are visible now: the spans of written_by that a search reads, for events that never failed (is_fresh) and for the others. Exact, whatever the age of the outbox_cursor.';

CREATE VIEW outbox_fresh AS
SELECT
    found.id,
    reach.stream,
    reach.shard,
    found.key,
    found.place,
    found.created_at
FROM outbox_reach AS reach
CROSS JOIN LATERAL (
    SELECT
        delivery.id,
        delivery.key,
        delivery.place,
        delivery.created_at
    FROM outbox_delivery AS delivery
    WHERE delivery.stream = reach.stream
        AND delivery.shard = reach.shard
        AND delivery.written_by BETWEEN reach.first_xact AND reach.last_xact
        AND delivery.published_at IS NULL
        AND delivery.parked_at IS NULL
        AND delivery.discarded_at IS NULL
        AND delivery.not_before IS NULL
    ORDER BY delivery.written_by
) AS found
WHERE reach.is_fresh;
COMMENT ON VIEW outbox_fresh IS 'Undelivered events that never failed.';

CREATE VIEW outbox_waiting AS
SELECT
    found.id,
    reach.stream,
    reach.shard,
    found.key,
    found.place,
    found.created_at,
    found.not_before,
    found.parked_at,
    found.failures,
    found.last_attempt_at
FROM outbox_reach AS reach
CROSS JOIN LATERAL (
    SELECT
        delivery.id,
        delivery.key,
        delivery.place,
        delivery.created_at,
        delivery.not_before,
        delivery.parked_at,
        delivery.failures,
        delivery.last_attempt_at
    FROM outbox_delivery AS delivery
    WHERE delivery.stream = reach.stream
        AND delivery.shard = reach.shard
        AND delivery.written_by BETWEEN reach.first_xact AND reach.last_xact
        AND delivery.published_at IS NULL
        AND delivery.discarded_at IS NULL
        AND (delivery.parked_at IS NOT NULL OR delivery.not_before IS NOT NULL)
    ORDER BY delivery.written_by
) AS found
WHERE NOT reach.is_fresh;
COMMENT ON VIEW outbox_waiting IS 'Undelivered events that failed, are parked, or hold their key.';

CREATE VIEW outbox_due_search AS
SELECT
    stream.stream,
    stream.job_kind AS loop,
    shard.shard,
    least(fresh.due_at, held.due_at)::timestamptz AS due_at,
    least(fresh.due_at, held.due_at, CASE WHEN refused.since IS NOT NULL THEN greatest(held.oldest_at, refused.since) END)::timestamptz AS oldest_due_at,
    shard.last_published_at AS last_moved_at,
    coalesce(held.num_failing, 0)::integer AS num_failing,
    coalesce(held.num_parked, 0)::integer AS num_parked
FROM outbox_stream AS stream
CROSS JOIN LATERAL (
    -- One reading of the clock for all ages of a stream.
    SELECT
        clock_timestamp() AS now,
        coalesce(max(each.last_published_at), '-infinity') AS last_published_at
    FROM outbox_shard_now AS each
    WHERE each.stream = stream.stream
) AS seen
LEFT JOIN LATERAL (
    -- Two keys failed since the stream's last acknowledgement: it refuses
    -- everything, and what it holds back is due. The second key's first such
    -- event is the earliest that this can have begun.
    SELECT min(failing.created_at) AS since
    FROM outbox_shard_now AS each
    CROSS JOIN LATERAL (
        SELECT
            event.key,
            event.created_at,
            event.failures,
            event.last_attempt_at,
            event.parked_at
        FROM outbox_waiting AS event
        WHERE event.stream = each.stream
            AND event.shard = each.shard
        LIMIT 10000
    ) AS failing
    WHERE each.stream = stream.stream
        AND (
            failing.parked_at > seen.last_published_at
            OR (failing.failures > 0 AND failing.last_attempt_at > seen.last_published_at)
        )
    GROUP BY failing.key
    ORDER BY since
    OFFSET 1
    LIMIT 1
) AS refused ON true
JOIN outbox_shard_now AS shard ON shard.stream = stream.stream
LEFT JOIN LATERAL (
    -- The oldest of the first few events that never failed and wait for none of
    -- their key: a transaction that took long may hold a younger one than the next.
    -- Behind very many that wait, the search ends with the last one that it looked
    -- at: what was not looked at counts as due.
    SELECT min(first.created_at) AS due_at
    FROM (
        SELECT event.created_at
        FROM (
            SELECT
                spanned.*,
                row_number() OVER () AS nth
            FROM (
                SELECT
                    undelivered.created_at,
                    undelivered.key,
                    undelivered.place
                FROM outbox_reach AS reach
                CROSS JOIN LATERAL (
                    SELECT
                        delivery.created_at,
                        delivery.key,
                        delivery.place
                    FROM outbox_delivery AS delivery
                    WHERE delivery.stream = reach.stream
                        AND delivery.shard = reach.shard
                        AND delivery.written_by BETWEEN reach.first_xact AND reach.last_xact
                        AND delivery.published_at IS NULL
                        AND delivery.parked_at IS NULL
                        AND delivery.discarded_at IS NULL
                        AND delivery.not_before IS NULL
                    ORDER BY delivery.written_by
                    LIMIT 10000
                ) AS undelivered
                WHERE reach.stream = shard.stream
                    AND reach.shard = shard.shard
                    AND reach.is_fresh
                LIMIT 10000
            ) AS spanned
        ) AS event
        WHERE event.nth = 10000
            OR NOT EXISTS (
                SELECT
                FROM outbox_delivery AS earlier
                WHERE earlier.stream = shard.stream
                    AND earlier.shard = shard.shard
                    AND earlier.key = event.key
                    AND earlier.place < event.place
                    AND earlier.published_at IS NULL
                    AND earlier.discarded_at IS NULL
                    AND (earlier.parked_at IS NOT NULL OR earlier.not_before IS NOT NULL)
                    AND (
                        (earlier.parked_at IS NOT NULL AND stream.park_policy = 'block')
                        OR (earlier.parked_at IS NULL AND earlier.not_before > seen.now)
                    )
                -- Keeps the planner from joining two whole backlogs for one row.
                OFFSET 0
            )
        LIMIT 10
    ) AS first
) AS fresh ON true
LEFT JOIN LATERAL (
    -- Events that failed: due again once their wait is over, unless an earlier one of
    -- their key still waits. They are searched apart, since one that fails every few
    -- seconds would hide older ones behind its young age.
    SELECT
        min(greatest(event.created_at, event.not_before)) FILTER (
            WHERE event.parked_at IS NULL
                AND event.not_before <= seen.now
                AND NOT EXISTS (
                    SELECT
                    FROM outbox_delivery AS earlier
                    WHERE earlier.stream = shard.stream
                        AND earlier.shard = shard.shard
                        AND earlier.key = event.key
                        AND earlier.place < event.place
                        AND earlier.published_at IS NULL
                        AND earlier.discarded_at IS NULL
                        AND (earlier.parked_at IS NOT NULL OR earlier.not_before IS NOT NULL)
                        AND (
                            (earlier.parked_at IS NOT NULL AND stream.park_policy = 'block')
                            OR (earlier.parked_at IS NULL AND earlier.not_before > seen.now)
                        )
                )
        ) AS due_at,
        min(event.created_at) AS oldest_at,
        count(*) FILTER (WHERE event.parked_at IS NULL) AS num_failing,
        count(*) FILTER (WHERE event.parked_at IS NOT NULL) AS num_parked
    FROM (
        SELECT
            waiting.key,
            waiting.place,
            waiting.created_at,
            waiting.not_before,
            waiting.parked_at
        FROM outbox_waiting AS waiting
        WHERE waiting.stream = shard.stream
            AND waiting.shard = shard.shard
        LIMIT 10000
    ) AS event
) AS held ON true;
COMMENT ON VIEW outbox_due_search IS 'The search behind outbox_due, which plans it once per session. Read that.';

-- +goose StatementBegin
CREATE FUNCTION outbox_due_of(p_stream text) RETURNS SETOF outbox_due_search
LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
BEGIN
    RETURN QUERY SELECT search.* FROM outbox_due_search AS search WHERE search.stream = p_stream;
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION outbox_due_of IS 'The rows of outbox_due of one stream, with the rights of the view''s owner.';

CREATE VIEW outbox_due AS
SELECT
    stream.stream,
    stream.job_kind AS loop,
    due.shard,
    due.due_at,
    due.oldest_due_at,
    due.last_moved_at,
    due.num_failing,
    due.num_parked
FROM outbox_stream AS stream
CROSS JOIN LATERAL outbox_due_of(stream.stream) AS due;
COMMENT ON VIEW outbox_due IS 'Each shard: since when its oldest event could be sent (due_at; NULL: nothing could), the same with what a stream holds back that refuses everything (oldest_due_at), its last acknowledgement, and how many events wait after failures of their own or for an operator, counted up to 10,000. Reads no event that was delivered or is not committed. An instant may be too young by as long as one transaction took to commit; whether anything is due is exact.';

-- +goose StatementBegin
CREATE FUNCTION outbox_cursor_next(
    p_stream text, p_shard integer, p_is_fresh boolean, OUT from_xact bigint, OUT also bigint[]
)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    -- Some rows of each span, in order. A span that has more says nothing of what
    -- follows the last one seen; above 64 transactions the list ends.
    WITH found AS (
        SELECT reach.first_xact, fresh.written_by
        FROM outbox_reach AS reach
        CROSS JOIN LATERAL (
            SELECT delivery.written_by
            FROM outbox_delivery AS delivery
            WHERE delivery.stream = p_stream
                AND delivery.shard = p_shard
                AND delivery.written_by BETWEEN reach.first_xact AND reach.last_xact
                AND delivery.published_at IS NULL
                AND delivery.parked_at IS NULL
                AND delivery.discarded_at IS NULL
                AND delivery.not_before IS NULL
            ORDER BY delivery.written_by
            LIMIT 200
        ) AS fresh
        WHERE p_is_fresh AND reach.stream = p_stream AND reach.shard = p_shard AND reach.is_fresh
        UNION ALL
        SELECT reach.first_xact, waiting.written_by
        FROM outbox_reach AS reach
        CROSS JOIN LATERAL (
            SELECT delivery.written_by
            FROM outbox_delivery AS delivery
            WHERE delivery.stream = p_stream
                AND delivery.shard = p_shard
                AND delivery.written_by BETWEEN reach.first_xact AND reach.last_xact
                AND delivery.published_at IS NULL
                AND delivery.discarded_at IS NULL
                AND (delivery.parked_at IS NOT NULL OR delivery.not_before IS NOT NULL)
            ORDER BY delivery.written_by
            LIMIT 200
        ) AS waiting
        WHERE NOT p_is_fresh AND reach.stream = p_stream AND reach.shard = p_shard AND NOT reach.is_fresh
    ), bound AS (
        SELECT least(
            pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
            (SELECT min(cut.last_seen) FROM (SELECT max(found.written_by) AS last_seen FROM found GROUP BY found.first_xact HAVING count(*) = 200) AS cut),
            (SELECT DISTINCT found.written_by FROM found ORDER BY found.written_by OFFSET 64 LIMIT 1)
        ) AS xact
    )
    SELECT
        bound.xact,
        ARRAY(
            SELECT listed.xact
            FROM (
                SELECT found.written_by FROM found
                UNION
                SELECT running.xact::text::bigint FROM pg_snapshot_xip(pg_current_snapshot()) AS running (xact)
                UNION
                SELECT pg_current_xact_id_if_assigned()::text::bigint
            ) AS listed (xact)
            WHERE listed.xact < bound.xact
            ORDER BY listed.xact
        )
    INTO from_xact, also
    FROM bound;
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION outbox_cursor_next IS 'What the outbox_cursor of a shard is to say from now on, for events that never failed (p_is_fresh) or for the others: all of one snapshot, the caller''s.';

-- +goose StatementBegin
DO $$
DECLARE
    home name := (
        SELECT namespace.nspname
        FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
        WHERE class.oid = 'outbox_event'::regclass
    );
    reader text;
    setting text;
BEGIN
    EXECUTE format('ALTER FUNCTION outbox_delivery_note_writer() SET search_path = %I, pg_temp', home);
    -- Planned once per session, the same way whatever the caller has set.
    FOREACH reader IN ARRAY ARRAY['outbox_cursor_next(text, integer, boolean)', 'outbox_due_of(text)'] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', reader, home);
        EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', reader);
        FOREACH setting IN ARRAY ARRAY['enable_bitmapscan', 'enable_hashjoin', 'enable_mergejoin', 'enable_seqscan', 'jit'] LOOP
            EXECUTE format('ALTER FUNCTION %s SET %I = off', reader, setting);
        END LOOP;
    END LOOP;
END;
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION outbox_cursor_next(text, integer, boolean);
DROP VIEW outbox_due;
DROP FUNCTION outbox_due_of(text);
DROP VIEW outbox_due_search;
DROP VIEW outbox_waiting;
DROP VIEW outbox_fresh;
DROP VIEW outbox_reach;
DROP VIEW outbox_shard_now;
DROP VIEW outbox_xact_gap;
DROP TABLE outbox_cursor;
DROP TRIGGER outbox_delivery_written ON outbox_delivery;
DROP FUNCTION outbox_delivery_note_writer();
DROP INDEX outbox_delivery_cursor_waiting_idx;
DROP INDEX outbox_delivery_cursor_fresh_idx;
ALTER TABLE outbox_delivery DROP COLUMN written_by;
