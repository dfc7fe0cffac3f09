package reconcile

import "strings"

// A completed publish job tells in its output what it did:
//
//	first_id, last_id  the lowest and the highest id that it claimed
//	num_failed         events that it sent without being told that they arrived
//	num_published      events that were acknowledged
//	num_sent           events that it handed to the broker
//
// What a job does not tell is not judged. Sent means sent: an event that was claimed
// and left to the job's successor is not counted.

// jobSlack is how much later than the end of its job a row may have been resolved
// and still count as the job's: rows have the database's time, and the end of a job
// the time of its process. It is as far as these may be apart before readiness says
// so. What the sweep mends within it is taken for the job's own work.
const jobSlack = "5 seconds"

// insertJobs reads what the stream's completed jobs tell. What is no number is taken
// for not told.
const insertJobs = `
INSERT INTO reconcile_job (id, attempted_at, ended_before, finalized_at, first_id, last_id, num_failed, num_published, num_sent, shard)
SELECT
    job.id,
    job.attempted_at,
    -- Begun by the database's clock: it did not end before.
    greatest(job.finalized_at, job.attempted_at) + interval '` + jobSlack + `',
    job.finalized_at,
    %s,
    %s,
    coalesce(%s, 0),
    coalesce(%s, 0),
    coalesce(%s, 0),
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

// insertResolved lists the rows that jobs are held against. was_passed says that
// some job which had come as far as the row, or further, ended before the row was
// resolved: few are, such as those of keys that failed. All others were resolved
// before the end of each job between whose ends they stand, so that for these it is
// enough to count.
const insertResolved = `
INSERT INTO reconcile_resolved (id, resolved_at, shard, was_passed)
SELECT
    line.id,
    line.resolved_at,
    line.shard,
    coalesce(line.resolved_at >= line.first_end, false)
FROM (
    SELECT
        point.id,
        point.resolved_at,
        point.shard,
        min(point.ended_before) OVER (PARTITION BY point.shard ORDER BY point.id DESC, point.is_row) AS first_end,
        point.is_row
    FROM (
        SELECT job.last_id AS id, NULL::timestamptz AS resolved_at, job.shard, job.ended_before, false AS is_row
        FROM reconcile_job AS job
        WHERE job.last_id >= job.first_id
            AND job.shard IS NOT NULL
        UNION ALL
        SELECT event.id, least(event.published_at, event.parked_at, event.discarded_at), outbox_shard_of(event.key, scope.num_shards), NULL, true
        FROM reconcile_row AS event
        CROSS JOIN reconcile_scope AS scope
        WHERE num_nonnulls(event.published_at, event.parked_at, event.discarded_at) > 0
            AND event.id >= (SELECT min(job.first_id) FROM reconcile_job AS job)
    ) AS point
) AS line
WHERE line.is_row`

// jobAdvice is what to do about a job that should have failed.
const jobAdvice = `; the sweep sends what is undelivered, but the worker that completed the job is broken: keep its log, and report it`

// findContradictions finds completed jobs that left something undone. A row that a
// job published stays published, with the time of that, so each of these stays true.
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
    NULL,
    NULL,
    NULL,
    format('job %s completed and tells of %s delivered events with ids from %s to %s, but only %s of its shard were published, parked or discarded there by its end, %s',
        judged.id, judged.num_told, judged.first_id, judged.last_id, judged.num_rows - judged.num_later, judged.finalized_at)
        || CASE
            WHEN judged.num_rows >= judged.num_told THEN '; the rest is by now, so nothing is lost, but its worker is broken, or its clock is behind the database''s: keep its log, and report it'
            ELSE '` + jobAdvice + `'
        END,
    false
FROM (
    SELECT
        job.*,
        held.num_rows,
        held.num_told,
        -- Looked for only where it may matter.
        CASE WHEN held.num_rows - held.num_passed >= held.num_told THEN 0 ELSE (
            SELECT count(*)
            FROM reconcile_resolved AS passed
            WHERE passed.was_passed
                AND passed.shard = job.shard
                AND passed.id BETWEEN job.first_id AND job.last_id
                AND passed.resolved_at >= job.ended_before
        ) END AS num_later
    FROM (` + countHeld + `) AS held
    JOIN reconcile_job AS job ON job.id = held.job_id
    OFFSET 0
) AS judged
WHERE judged.num_rows - judged.num_later < judged.num_told`

// countHeld counts the resolved rows between the ends of each job that tells of
// deliveries, and those of them that a job passed by. The jobs of a shard and its
// rows stand in one line, so that each is looked at once however the jobs overlap.
const countHeld = `
SELECT
    line.job_id,
    max(line.num_told) AS num_told,
    max(line.num_before) FILTER (WHERE line.side = 2) - max(line.num_before) FILTER (WHERE line.side = 0) AS num_rows,
    max(line.num_passed_before) FILTER (WHERE line.side = 2) - max(line.num_passed_before) FILTER (WHERE line.side = 0) AS num_passed
FROM (
    SELECT
        point.job_id,
        point.num_told,
        point.side,
        count(*) FILTER (WHERE point.side = 1) OVER along AS num_before,
        count(*) FILTER (WHERE point.was_passed) OVER along AS num_passed_before
    FROM (
        SELECT side.id, side.side, job.shard, job.id AS job_id, false AS was_passed, greatest(job.num_published, job.num_sent) AS num_told
        FROM reconcile_job AS job
        CROSS JOIN LATERAL (VALUES (job.first_id, 0), (job.last_id, 2)) AS side (id, side)
        WHERE job.last_id >= job.first_id
            AND job.shard IS NOT NULL
        UNION ALL
        SELECT resolved.id, 1, resolved.shard, NULL, resolved.was_passed, NULL
        FROM reconcile_resolved AS resolved
    ) AS point
    WINDOW along AS (PARTITION BY point.shard ORDER BY point.id, point.side)
) AS line
WHERE line.job_id IS NOT NULL
GROUP BY line.job_id`
