-- Why:   what the outbox loops have left to do is on outbox_delivery now.
-- Locks: ACCESS EXCLUSIVE on the view for an instant.
-- Undo:  the view reads outbox_event again.

-- +goose Up
-- Settlement's part is as it was.
CREATE OR REPLACE VIEW loop_due AS
SELECT
    stream.job_kind AS loop,
    shard.shard::text AS part,
    least(fresh.due_at, held.due_at, CASE WHEN refused.since IS NOT NULL THEN greatest(held.oldest_at, refused.since) END)::timestamptz AS oldest_due_at,
    shard.last_published_at AS last_moved_at,
    coalesce(held.num_failing, 0)::integer AS num_failing,
    coalesce(held.num_parked, 0)::integer AS num_parked,
    0::integer AS num_failed
FROM outbox_stream AS stream
CROSS JOIN LATERAL (
    -- One reading of the clock for all ages of a stream.
    SELECT
        clock_timestamp() AS now,
        coalesce(max(each.last_published_at), '-infinity') AS last_published_at
    FROM outbox_shard AS each
    WHERE each.stream = stream.stream
) AS seen
LEFT JOIN LATERAL (
    -- Two keys failed since the stream's last acknowledgement: it refuses
    -- everything, and what it holds back is due. The second key's first such
    -- event is the earliest that this can have begun.
    SELECT min(failing.created_at) AS since
    FROM outbox_shard AS each
    CROSS JOIN LATERAL (
        SELECT
            event.key,
            event.created_at,
            event.failures,
            event.last_attempt_at,
            event.parked_at
        FROM outbox_delivery AS event
        WHERE event.stream = each.stream
            AND event.shard = each.shard
            AND event.published_at IS NULL
            AND event.discarded_at IS NULL
            AND (event.parked_at IS NOT NULL OR event.not_before IS NOT NULL)
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
JOIN outbox_shard AS shard ON shard.stream = stream.stream
LEFT JOIN LATERAL (
    -- The first event that never failed and waits for none of its key. Behind
    -- very many that wait, the search ends with the last one that it looked at:
    -- what was not looked at counts as due.
    SELECT event.created_at AS due_at
    FROM (
        SELECT
            undelivered.id,
            undelivered.created_at,
            undelivered.key,
            undelivered.not_before,
            undelivered.place,
            row_number() OVER (ORDER BY undelivered.place, undelivered.id) AS nth
        FROM outbox_delivery AS undelivered
        WHERE undelivered.stream = shard.stream
            AND undelivered.shard = shard.shard
            AND undelivered.published_at IS NULL
            AND undelivered.parked_at IS NULL
            AND undelivered.discarded_at IS NULL
        ORDER BY undelivered.place, undelivered.id
        LIMIT 10000
    ) AS event
    WHERE event.nth = 10000
        OR (
            event.not_before IS NULL
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
                -- Keeps the planner from joining two whole backlogs for one row.
                OFFSET 0
            )
        )
    ORDER BY event.place, event.id
    LIMIT 1
) AS fresh ON true
LEFT JOIN LATERAL (
    -- Events that failed, each the first of its key: due again once their wait is
    -- over. They are searched apart, since one that fails every few seconds would
    -- hide older ones behind its young age.
    SELECT
        min(greatest(event.created_at, event.not_before)) FILTER (
            WHERE event.parked_at IS NULL AND event.not_before <= seen.now
        ) AS due_at,
        min(event.created_at) AS oldest_at,
        count(*) FILTER (WHERE event.parked_at IS NULL) AS num_failing,
        count(*) FILTER (WHERE event.parked_at IS NOT NULL) AS num_parked
    FROM (
        SELECT
            held_back.created_at,
            held_back.not_before,
            held_back.parked_at
        FROM outbox_delivery AS held_back
        WHERE held_back.stream = shard.stream
            AND held_back.shard = shard.shard
            AND held_back.published_at IS NULL
            AND held_back.discarded_at IS NULL
            AND (held_back.parked_at IS NOT NULL OR held_back.not_before IS NOT NULL)
        LIMIT 10000
    ) AS event
) AS held ON true

UNION ALL

SELECT
    'settlement_' || programme.kind AS loop,
    run.id::text AS part,
    -- A run that waits for its inputs or for a person has alerts of its own.
    (CASE
        WHEN run.state NOT IN ('done', 'aborted', 'awaiting_approval')
            AND (run.state <> 'waiting_inputs' OR run.inputs_deadline_at < clock_timestamp())
        THEN CASE run.state WHEN 'waiting_inputs' THEN greatest(run.able_since, run.inputs_deadline_at) ELSE run.able_since END
    END)::timestamptz AS oldest_due_at,
    run.calculated_at AS last_moved_at,
    0::integer AS num_failing,
    (run.outcome IS NOT DISTINCT FROM 'partial')::integer AS num_parked,
    (run.state = 'aborted' OR run.outcome IS NOT DISTINCT FROM 'none_delivered')::integer AS num_failed
FROM settlement_run AS run
JOIN settlement_period AS period ON period.id = run.period_id
JOIN programme ON programme.id = period.programme_id
-- The condition of settlement_run_unsettled_idx, to the letter.
WHERE run.state NOT IN ('done', 'aborted')
    OR (run.acknowledged_at IS NULL AND (run.state = 'aborted' OR run.outcome IN ('partial', 'none_delivered')));

-- +goose Down
CREATE OR REPLACE VIEW loop_due AS
SELECT
    stream.job_kind AS loop,
    shard.shard::text AS part,
    least(fresh.due_at, held.due_at, CASE WHEN refused.since IS NOT NULL THEN greatest(held.oldest_at, refused.since) END)::timestamptz AS oldest_due_at,
    shard.last_published_at AS last_moved_at,
    coalesce(held.num_failing, 0)::integer AS num_failing,
    coalesce(held.num_parked, 0)::integer AS num_parked,
    0::integer AS num_failed
FROM outbox_stream AS stream
CROSS JOIN LATERAL (
    -- One reading of the clock for all ages of a stream.
    SELECT
        clock_timestamp() AS now,
        coalesce(max(each.last_published_at), '-infinity') AS last_published_at
    FROM outbox_shard AS each
    WHERE each.stream = stream.stream
) AS seen
LEFT JOIN LATERAL (
    -- Two keys failed since the stream's last acknowledgement: it refuses
    -- everything, and what it holds back is due. The second key's first such
    -- event is the earliest that this can have begun.
    SELECT min(failing.created_at) AS since
    FROM outbox_shard AS each
    CROSS JOIN LATERAL (
        SELECT
            event.key,
            event.created_at,
            event.failures,
            event.last_attempt_at,
            event.parked_at
        FROM outbox_event AS event
        WHERE event.stream = each.stream
            AND event.shard = each.shard
            AND event.published_at IS NULL
            AND event.discarded_at IS NULL
            AND (event.parked_at IS NOT NULL OR event.not_before IS NOT NULL)
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
JOIN outbox_shard AS shard ON shard.stream = stream.stream
LEFT JOIN LATERAL (
    -- The first event that never failed and waits for none of its key. Behind
    -- very many that wait, the search ends with the last one that it looked at:
    -- what was not looked at counts as due.
    SELECT event.created_at AS due_at
    FROM (
        SELECT
            undelivered.id,
            undelivered.created_at,
            undelivered.key,
            undelivered.not_before,
            row_number() OVER (ORDER BY undelivered.id) AS nth
        FROM outbox_event AS undelivered
        WHERE undelivered.stream = shard.stream
            AND undelivered.shard = shard.shard
            AND undelivered.published_at IS NULL
            AND undelivered.parked_at IS NULL
            AND undelivered.discarded_at IS NULL
        ORDER BY undelivered.id
        LIMIT 10000
    ) AS event
    WHERE event.nth = 10000
        OR (
            event.not_before IS NULL
            AND NOT EXISTS (
                SELECT
                FROM outbox_event AS earlier
                WHERE earlier.stream = shard.stream
                    AND earlier.shard = shard.shard
                    AND earlier.key = event.key
                    AND earlier.id < event.id
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
        )
    ORDER BY event.id
    LIMIT 1
) AS fresh ON true
LEFT JOIN LATERAL (
    -- Events that failed, each the first of its key: due again once their wait is
    -- over. They are searched apart, since one that fails every few seconds would
    -- hide older ones behind its young age.
    SELECT
        min(greatest(event.created_at, event.not_before)) FILTER (
            WHERE event.parked_at IS NULL AND event.not_before <= seen.now
        ) AS due_at,
        min(event.created_at) AS oldest_at,
        count(*) FILTER (WHERE event.parked_at IS NULL) AS num_failing,
        count(*) FILTER (WHERE event.parked_at IS NOT NULL) AS num_parked
    FROM (
        SELECT
            held_back.created_at,
            held_back.not_before,
            held_back.parked_at
        FROM outbox_event AS held_back
        WHERE held_back.stream = shard.stream
            AND held_back.shard = shard.shard
            AND held_back.published_at IS NULL
            AND held_back.discarded_at IS NULL
            AND (held_back.parked_at IS NOT NULL OR held_back.not_before IS NOT NULL)
        LIMIT 10000
    ) AS event
) AS held ON true

UNION ALL

SELECT
    'settlement_' || programme.kind AS loop,
    run.id::text AS part,
    -- A run that waits for its inputs or for a person has alerts of its own.
    (CASE
        WHEN run.state NOT IN ('done', 'aborted', 'awaiting_approval')
            AND (run.state <> 'waiting_inputs' OR run.inputs_deadline_at < clock_timestamp())
        THEN CASE run.state WHEN 'waiting_inputs' THEN greatest(run.able_since, run.inputs_deadline_at) ELSE run.able_since END
    END)::timestamptz AS oldest_due_at,
    run.calculated_at AS last_moved_at,
    0::integer AS num_failing,
    (run.outcome IS NOT DISTINCT FROM 'partial')::integer AS num_parked,
    (run.state = 'aborted' OR run.outcome IS NOT DISTINCT FROM 'none_delivered')::integer AS num_failed
FROM settlement_run AS run
JOIN settlement_period AS period ON period.id = run.period_id
JOIN programme ON programme.id = period.programme_id
-- The condition of settlement_run_unsettled_idx, to the letter.
WHERE run.state NOT IN ('done', 'aborted')
    OR (run.acknowledged_at IS NULL AND (run.state = 'aborted' OR run.outcome IN ('partial', 'none_delivered')));
