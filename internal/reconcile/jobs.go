package reconcile

import "strings"

// A completed publish job tells in its output what it did:
//
//	first_id, last_id  the lowest and the highest id that it claimed
//	num_failed         events that it sent without being told that they arrived
//	num_published      events that were acknowledged
//	num_sent           events that it handed to the broker
//	sent               their ids, joined by commas, if they are not too many
//
// What a job does not tell is not judged. Sent means sent: an event that was claimed
// and left to the job's successor must not be among the last two.

// insertJobs reads what the stream's completed jobs tell. What is no number is taken
// for not told.
const insertJobs = `
INSERT INTO reconcile_job (id, attempted_at, first_id, last_id, num_failed, num_published, num_sent, sent, shard)
SELECT
    job.id,
    job.attempted_at,
    %s,
    %s,
    coalesce(%s, 0),
    coalesce(%s, 0),
    coalesce(%s, 0),
    output.told ->> 'sent',
    CASE WHEN job.args ->> 'shard' ~ '^[0-9]{1,4}$' THEN (job.args ->> 'shard')::integer END
FROM reconcile_scope AS scope
JOIN river_job AS job ON job.kind = scope.job_kind
CROSS JOIN LATERAL (
    SELECT coalesce(job.metadata #> '{output,result}', job.metadata -> 'output') AS told
) AS output
WHERE job.state = 'completed'
    AND jsonb_typeof(output.told) = 'object'
    AND job.attempted_at IS NOT NULL`

func jobNumber(name string) string {
	return strings.ReplaceAll(`CASE WHEN output.told ->> '?' ~ '^[0-9]{1,18}$' THEN (output.told ->> '?')::bigint END`, "?", name)
}

// jobAdvice is what to do about a job that should have failed.
const jobAdvice = `; the sweep sends what is undelivered, but the worker that completed the job is broken: keep its log, and report it`

// findContradictions finds completed jobs that left something undone. A row that a
// job published stays published, so each of these stays true.
const findContradictions = `
SELECT
    NULL AS key,
    NULL::uuid AS event_id,
    NULL::bigint AS sequence,
    format('job %s completed, although %s of the events that it sent failed', job.id, job.num_failed)
        || '` + jobAdvice + `' AS detail,
    false AS mendable
FROM reconcile_job AS job
WHERE job.num_failed > 0

UNION ALL

SELECT
    NULL,
    NULL,
    NULL,
    format('job %s completed, although it sent %s events and was told that %s arrived', job.id, job.num_sent, job.num_published)
        || '` + jobAdvice + `',
    false
FROM reconcile_job AS job
WHERE job.num_sent > job.num_published + job.num_failed

UNION ALL

SELECT
    event.key,
    event.event_id,
    NULL,
    format('job %s completed, although event %s that it sent is neither published nor discarded', job.id, event.id)
        || CASE WHEN event.parked_at IS NOT NULL THEN ', and was parked' ELSE '' END
        || '` + jobAdvice + `',
    false
FROM reconcile_job AS job
CROSS JOIN LATERAL string_to_table(job.sent, ',') AS told (id)
JOIN reconcile_row AS event ON event.id = CASE WHEN told.id ~ '^[0-9]{1,18}$' THEN told.id::bigint END
WHERE event.published_at IS NULL
    AND event.discarded_at IS NULL

UNION ALL

-- The jobs of a shard and its resolved rows in one line: between the ends of a job
-- there are at least as many rows as it delivered.
SELECT
    NULL,
    NULL,
    NULL,
    format('job %s completed and tells of %s delivered events with ids from %s to %s, but only %s of its shard are published, parked or discarded there',
        job.id, greatest(job.num_published, job.num_sent), job.first_id, job.last_id, held.num_rows)
        || '` + jobAdvice + `',
    false
FROM (
    SELECT
        line.job_id,
        max(line.num_before) FILTER (WHERE line.side = 2) - max(line.num_before) FILTER (WHERE line.side = 0) AS num_rows
    FROM (
        SELECT
            point.job_id,
            point.side,
            count(*) FILTER (WHERE point.side = 1) OVER (PARTITION BY point.shard ORDER BY point.id, point.side) AS num_before
        FROM (
            SELECT job.first_id AS id, 0 AS side, job.shard, job.id AS job_id FROM reconcile_job AS job WHERE job.last_id >= job.first_id AND job.shard IS NOT NULL
            UNION ALL
            SELECT event.id, 1, outbox_shard_of(event.key, scope.num_shards), NULL
            FROM reconcile_row AS event
            CROSS JOIN reconcile_scope AS scope
            WHERE num_nonnulls(event.published_at, event.parked_at, event.discarded_at) > 0
                AND event.id >= (SELECT min(job.first_id) FROM reconcile_job AS job)
            UNION ALL
            SELECT job.last_id, 2, job.shard, job.id FROM reconcile_job AS job WHERE job.last_id >= job.first_id AND job.shard IS NOT NULL
        ) AS point
    ) AS line
    WHERE line.job_id IS NOT NULL
    GROUP BY line.job_id
) AS held
JOIN reconcile_job AS job ON job.id = held.job_id
WHERE held.num_rows < greatest(job.num_published, job.num_sent)`
