-- name: RiverJobFetchTry :execrows
-- RiverJobFetchTry does to a job what River's fetch from one of queues would, as far as
-- privileges, locks and waits go. Its transaction is rolled back.
WITH fetched AS (
    SELECT job.id
    FROM river_job AS job
    WHERE job.state = 'available'
        AND job.queue = ANY(@queues::text[])
        AND job.scheduled_at <= clock_timestamp()
    ORDER BY job.priority, job.scheduled_at, job.id
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
UPDATE river_job
SET
    attempt = river_job.attempt + 1,
    attempted_at = clock_timestamp(),
    attempted_by = array_append(river_job.attempted_by, 'probe'),
    state = 'running'
FROM fetched
WHERE river_job.id = fetched.id;
