-- Why:   delivered events leave the table that must stay quick, and in the end the
--        database; and an event without a row of its delivery, which nothing would
--        ever publish, is found.
-- Locks: ACCESS EXCLUSIVE on the view audit_findings for an instant.
-- Undo:  drops the functions and the view; what was moved stays in outbox_history.

-- +goose Up
-- +goose StatementBegin
CREATE FUNCTION outbox_history_make(p_first date, p_last date) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    each date := p_first;
    name text;
    num_made bigint := 0;
BEGIN
    WHILE each <= p_last LOOP
        name := 'outbox_history_' || to_char(each, 'YYYYMMDD');
        IF to_regclass(quote_ident(name)) IS NULL THEN
            -- Attached rather than created in place: that would lock out all readers.
            EXECUTE format('CREATE TABLE %I (LIKE outbox_history INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
            EXECUTE format('COMMENT ON TABLE %I IS %L', name, 'Delivered events of ' || each || ' (UTC); a partition of outbox_history.');
            EXECUTE format('ALTER TABLE outbox_history ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                name, each::timestamp AT TIME ZONE 'UTC', (each + 1)::timestamp AT TIME ZONE 'UTC');
            num_made := num_made + 1;
        END IF;
        each := each + 1;
    END LOOP;
    RETURN num_made;
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION outbox_history_make IS 'Makes the partitions of outbox_history for the days from p_first to p_last (UTC) that are missing. Returns how many it made.';

-- +goose StatementBegin
CREATE FUNCTION outbox_history_move(p_before timestamptz, p_after_id bigint, p_window integer) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    first_day date;
    last_day date;
    last_id bigint;
    movable bigint[];
    num_old bigint;
BEGIN
    SELECT
        max(seen.id),
        count(*) FILTER (WHERE seen.created_at < p_before),
        array_agg(seen.id) FILTER (WHERE seen.resolved_at < p_before),
        (min(seen.resolved_at) FILTER (WHERE seen.resolved_at < p_before) AT TIME ZONE 'UTC')::date,
        (max(seen.resolved_at) FILTER (WHERE seen.resolved_at < p_before) AT TIME ZONE 'UTC')::date
    INTO last_id, num_old, movable, first_day, last_day
    FROM (
        SELECT delivery.id, delivery.created_at, coalesce(delivery.published_at, delivery.discarded_at) AS resolved_at
        FROM outbox_delivery AS delivery
        WHERE delivery.id > p_after_id
        ORDER BY delivery.id
        LIMIT p_window
    ) AS seen;
    IF movable IS NOT NULL THEN
        PERFORM outbox_history_make(first_day, last_day);
        INSERT INTO outbox_history (
            id, stream, shard, key, key_seq, event_id, type, payload, headers, created_at, resolved_at, attempts, failures, last_attempt_at,
            last_error, last_error_class, not_before, published_at, broker_ref, parked_at, park_reason, discarded_at, discarded_by, discard_reason
        )
        SELECT
            event.id, event.stream, event.shard, event.key, event.key_seq, event.event_id, event.type, event.payload, event.headers, event.created_at,
            coalesce(delivery.published_at, delivery.discarded_at), delivery.attempts, delivery.failures, delivery.last_attempt_at,
            delivery.last_error, delivery.last_error_class, delivery.not_before, delivery.published_at, delivery.broker_ref,
            delivery.parked_at, delivery.park_reason, delivery.discarded_at, delivery.discarded_by, delivery.discard_reason
        FROM outbox_event AS event
        JOIN outbox_delivery AS delivery ON delivery.id = event.id
        WHERE event.id = ANY (movable);
        DELETE FROM outbox_event WHERE id = ANY (movable);
        DELETE FROM outbox_delivery WHERE id = ANY (movable);
    END IF;
    RETURN ARRAY[coalesce(cardinality(movable), 0), coalesce(num_old, 0), coalesce(last_id, p_after_id)];
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION outbox_history_move IS 'Moves delivered events that were resolved before p_before to outbox_history, out of the p_window events that follow the id p_after_id. The caller keeps two moves from running at once. Returns how many it moved, how many of those it looked at were appended before p_before, and the last id that it looked at: the search is over once none was.';

-- +goose StatementBegin
CREATE FUNCTION outbox_history_drop(p_before date) RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
    holds boolean;
    kept text[] := '{}';
    old record;
BEGIN
    FOR old IN
        SELECT child.relname, to_date(right(child.relname, 8), 'YYYYMMDD') AS day
        FROM pg_inherits AS inherits
        JOIN pg_class AS child ON child.oid = inherits.inhrelid
        WHERE inherits.inhparent = 'outbox_history'::regclass
            AND child.relname ~ '^outbox_history_[0-9]{8}$'
        ORDER BY child.relname
    LOOP
        CONTINUE WHEN old.day >= p_before;
        EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE published_at IS NULL AND discarded_at IS NULL)', old.relname) INTO holds;
        IF holds THEN
            kept := kept || old.relname::text;
            CONTINUE;
        END IF;
        EXECUTE format('DROP TABLE %I', old.relname);
    END LOOP;
    INSERT INTO outbox_retention AS retention (dropped_before)
    VALUES (p_before::timestamp AT TIME ZONE 'UTC')
    ON CONFLICT (singleton) DO UPDATE SET dropped_before = greatest(retention.dropped_before, excluded.dropped_before);
    RETURN kept;
END;
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION outbox_history_drop IS 'Drops the partitions of outbox_history of days before p_before (UTC). One that holds an undelivered event is not dropped, whatever its age; the names of such are returned.';

CREATE VIEW audit_outbox_delivery AS
SELECT
    coalesce(event.event_id::text, 'delivery ' || delivery.id) AS subject,
    CASE
        WHEN delivery.id IS NULL THEN format('event %s of stream %s has no delivery: nothing will ever publish it', event.id, event.stream)
        WHEN event.id IS NULL THEN format('delivery of stream %s has no event', delivery.stream)
        ELSE format('event %s stands at shard %s of key %s in stream %s, its delivery at shard %s of key %s in stream %s',
            event.id, event.shard, event.key, event.stream, delivery.shard, delivery.key, delivery.stream)
    END::text AS detail
FROM outbox_event AS event
FULL JOIN outbox_delivery AS delivery ON delivery.id = event.id
WHERE event.id IS NULL
    OR delivery.id IS NULL
    OR row(event.stream, event.shard, event.key) <> row(delivery.stream, delivery.shard, delivery.key);
COMMENT ON VIEW audit_outbox_delivery IS 'Each event of outbox_event has its row of outbox_delivery, of the same stream, shard and key, and the other way round.';

CREATE OR REPLACE VIEW audit_findings AS
SELECT 'audit_ledger_balanced'::text AS audit, subject, detail FROM audit_ledger_balanced
UNION ALL SELECT 'audit_wallet_balanced', subject, detail FROM audit_wallet_balanced
UNION ALL SELECT 'audit_wallet_floor', subject, detail FROM audit_wallet_floor
UNION ALL SELECT 'audit_settlement_origin', subject, detail FROM audit_settlement_origin
UNION ALL SELECT 'audit_settlement_entitled_once', subject, detail FROM audit_settlement_entitled_once
UNION ALL SELECT 'audit_settlement_basis', subject, detail FROM audit_settlement_basis
UNION ALL SELECT 'audit_settlement_amount', subject, detail FROM audit_settlement_amount
UNION ALL SELECT 'audit_settlement_reason', subject, detail FROM audit_settlement_reason
UNION ALL SELECT 'audit_settlement_totals', subject, detail FROM audit_settlement_totals
UNION ALL SELECT 'audit_settlement_reference', subject, detail FROM audit_settlement_reference
UNION ALL SELECT 'audit_settlement_event', subject, detail FROM audit_settlement_event
UNION ALL SELECT 'audit_settlement_attempt', subject, detail FROM audit_settlement_attempt
UNION ALL SELECT 'audit_settlement_outcome', subject, detail FROM audit_settlement_outcome
UNION ALL SELECT 'audit_settlement_job_end', subject, detail FROM audit_settlement_job_end
UNION ALL SELECT 'audit_outbox_delivery', subject, detail FROM audit_outbox_delivery;

-- +goose Down
CREATE OR REPLACE VIEW audit_findings AS
SELECT 'audit_ledger_balanced'::text AS audit, subject, detail FROM audit_ledger_balanced
UNION ALL SELECT 'audit_wallet_balanced', subject, detail FROM audit_wallet_balanced
UNION ALL SELECT 'audit_wallet_floor', subject, detail FROM audit_wallet_floor
UNION ALL SELECT 'audit_settlement_origin', subject, detail FROM audit_settlement_origin
UNION ALL SELECT 'audit_settlement_entitled_once', subject, detail FROM audit_settlement_entitled_once
UNION ALL SELECT 'audit_settlement_basis', subject, detail FROM audit_settlement_basis
UNION ALL SELECT 'audit_settlement_amount', subject, detail FROM audit_settlement_amount
UNION ALL SELECT 'audit_settlement_reason', subject, detail FROM audit_settlement_reason
UNION ALL SELECT 'audit_settlement_totals', subject, detail FROM audit_settlement_totals
UNION ALL SELECT 'audit_settlement_reference', subject, detail FROM audit_settlement_reference
UNION ALL SELECT 'audit_settlement_event', subject, detail FROM audit_settlement_event
UNION ALL SELECT 'audit_settlement_attempt', subject, detail FROM audit_settlement_attempt
UNION ALL SELECT 'audit_settlement_outcome', subject, detail FROM audit_settlement_outcome
UNION ALL SELECT 'audit_settlement_job_end', subject, detail FROM audit_settlement_job_end;
DROP VIEW audit_outbox_delivery;
DROP FUNCTION outbox_history_drop;
DROP FUNCTION outbox_history_move;
DROP FUNCTION outbox_history_make;
