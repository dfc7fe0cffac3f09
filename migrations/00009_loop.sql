-- Why:   what must keep happening, what did, and which processes live.
-- Locks: none; new tables.
-- Undo:  drops the tables with what they know of past progress.

-- +goose Up
CREATE TABLE loop_contract (
    loop text PRIMARY KEY,
    baseline_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    budget interval NOT NULL,
    gates_readiness boolean NOT NULL,
    item_red_after interval,
    job_kind text NOT NULL,
    late_after interval NOT NULL,
    pass_interval interval NOT NULL,
    paused_at timestamptz,
    pause_reason text,
    paused_by text,
    queue text NOT NULL,
    red_after interval NOT NULL,
    scheduled boolean NOT NULL DEFAULT false,
    sort_order integer NOT NULL,
    CONSTRAINT loop_is_a_short_name CHECK (loop ~ '^[a-z][a-z0-9_]{0,62}$'),
    CONSTRAINT late_before_red CHECK (late_after <= red_after),
    CONSTRAINT pause_has_all_or_nothing CHECK (
        (paused_at IS NULL) = (paused_by IS NULL)
        AND (paused_at IS NULL) = (pause_reason IS NULL)
    )
);
COMMENT ON TABLE loop_contract IS 'One row per loop that must keep happening, and how late it may be. Every process registers all of them, so a loop that never ran is missed rather than forgotten.';
COMMENT ON COLUMN loop_contract.baseline_at IS 'Ages count from here until the loop first succeeds: its creation, or the last resume. A restart does not move it.';
COMMENT ON COLUMN loop_contract.budget IS 'How long one pass may take.';
COMMENT ON COLUMN loop_contract.scheduled IS 'Works only when something falls due, such as the end of a week: its age counts from then, not from its last success.';
COMMENT ON COLUMN loop_contract.item_red_after IS 'How old the oldest due item may grow without progress; NULL where a loop has no items.';

CREATE TABLE loop_progress (
    loop text NOT NULL REFERENCES loop_contract (loop) ON DELETE CASCADE,
    worker_id text NOT NULL,
    consecutive_failures integer NOT NULL DEFAULT 0,
    last_error text,
    last_failure_at timestamptz,
    last_items_at timestamptz,
    last_neutral_at timestamptz,
    last_success_at timestamptz,
    PRIMARY KEY (loop, worker_id),
    CONSTRAINT worker_id_length CHECK (length(worker_id) BETWEEN 1 AND 200)
) WITH (fillfactor = 50);
COMMENT ON TABLE loop_progress IS 'What each worker achieved on each loop, written in the transaction of the effect. Worker id "retired" holds the last success of workers that are gone.';
COMMENT ON COLUMN loop_progress.last_items_at IS 'The last success that moved something, rather than finding nothing due.';
COMMENT ON COLUMN loop_progress.last_neutral_at IS 'The last pass that could tell neither success nor failure, such as one that found its shard leased.';

CREATE TABLE worker_heartbeat (
    worker_id text PRIMARY KEY,
    queues text[] NOT NULL,
    ready_at timestamptz,
    reasons text[] NOT NULL DEFAULT '{}',
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    version text NOT NULL,
    CONSTRAINT worker_id_length CHECK (length(worker_id) BETWEEN 1 AND 200)
) WITH (fillfactor = 50);
COMMENT ON TABLE worker_heartbeat IS 'One row per live process: seen_at always moves, ready_at only while the process is ready.';

CREATE TABLE schema_requirement (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    min_binary bigint NOT NULL
);
COMMENT ON TABLE schema_requirement IS 'min_binary: a binary whose newest known migration is older than this must not run here.';
INSERT INTO schema_requirement (min_binary) VALUES (0);

-- +goose Down
DROP TABLE schema_requirement;
DROP TABLE worker_heartbeat;
DROP TABLE loop_progress;
DROP TABLE loop_contract;
