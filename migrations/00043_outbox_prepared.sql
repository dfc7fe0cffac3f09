-- Why:   PREPARE TRANSACTION after an append failed now and then: when the append had to
--        wake a worker, and so notified, which Postgres does not prepare.
-- Locks: none; a function.
-- Undo:  the function is as it was.

-- +goose Up
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_wake(p_stream outbox_stream, p_shard integer) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    looked_after boolean;
BEGIN
    -- A leaseholder that is awake finds the row by itself; a shard in backoff has
    -- an errored job that comes back. Reading needs no lock, so no append waits
    -- for another. A wake-up that gets lost between the two is the sweep's.
    SELECT greatest(shard.awake_until, shard.backoff_until) > clock_timestamp()
    INTO looked_after
    FROM outbox_shard AS shard
    WHERE shard.stream = p_stream.stream AND shard.shard = p_shard;
    IF looked_after THEN
        RETURN false;
    END IF;

    INSERT INTO river_job (args, kind, max_attempts, queue)
    SELECT jsonb_build_object('shard', p_shard), p_stream.job_kind, 20, p_stream.queue
    WHERE NOT EXISTS (
        SELECT FROM river_job AS job
        WHERE job.state = 'available'
            AND job.queue = p_stream.queue
            AND job.kind = p_stream.job_kind
            AND job.args = jsonb_build_object('shard', p_shard)
            AND job.scheduled_at <= clock_timestamp() + interval '1 second'
    );
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- A transaction that notifies cannot be prepared (PREPARE TRANSACTION). Where the server
    -- allows that, the job waits until somebody polls, as after any lost wake-up.
    IF current_setting('max_prepared_transactions') <> '0' THEN
        RETURN true;
    END IF;
    PERFORM pg_notify(current_schema() || '.river_insert', json_build_object('queue', p_stream.queue)::text);
    RETURN true;
END;
$$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_wake(p_stream outbox_stream, p_shard integer) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    looked_after boolean;
BEGIN
    -- A leaseholder that is awake finds the row by itself; a shard in backoff has
    -- an errored job that comes back. Reading needs no lock, so no append waits
    -- for another. A wake-up that gets lost between the two is the sweep's.
    SELECT greatest(shard.awake_until, shard.backoff_until) > clock_timestamp()
    INTO looked_after
    FROM outbox_shard AS shard
    WHERE shard.stream = p_stream.stream AND shard.shard = p_shard;
    IF looked_after THEN
        RETURN false;
    END IF;

    INSERT INTO river_job (args, kind, max_attempts, queue)
    SELECT jsonb_build_object('shard', p_shard), p_stream.job_kind, 20, p_stream.queue
    WHERE NOT EXISTS (
        SELECT FROM river_job AS job
        WHERE job.state = 'available'
            AND job.queue = p_stream.queue
            AND job.kind = p_stream.job_kind
            AND job.args = jsonb_build_object('shard', p_shard)
            AND job.scheduled_at <= clock_timestamp() + interval '1 second'
    );
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM pg_notify(current_schema() || '.river_insert', json_build_object('queue', p_stream.queue)::text);
    RETURN true;
END;
$$;
-- +goose StatementEnd
