-- name: ProgrammeLock :one
-- ProgrammeLock locks a programme to the end of the transaction: its versions
-- and periods are added one at a time.
SELECT *
FROM programme
WHERE code = @code
FOR NO KEY UPDATE;

-- name: ProgrammeInsert :exec
-- ProgrammeInsert adds a programme; a known code is left alone.
INSERT INTO programme (code, currency, kind, period, time_zone)
VALUES (@code, @currency, @kind, @period, @time_zone)
ON CONFLICT (code) DO NOTHING;

-- name: ProgrammeCodes :many
-- ProgrammeCodes returns the codes of the programmes that have an approved
-- version, in order.
SELECT programme.code
FROM programme
WHERE EXISTS (
    SELECT
    FROM programme_version AS version
    WHERE version.programme_id = programme.id
        AND version.approved_at IS NOT NULL
)
ORDER BY programme.code;

-- name: ProgrammeAllCodes :many
-- ProgrammeAllCodes returns the codes of all programmes, in order.
SELECT code
FROM programme
ORDER BY code
LIMIT @max_rows;

-- name: ProgrammeVersionInsert :one
-- ProgrammeVersionInsert adds a version that waits for its approval.
INSERT INTO programme_version (created_by, effective_from, programme_id, rules, rules_hash, version)
VALUES (@created_by, @effective_from, @programme_id, @rules, @rules_hash, @version)
RETURNING *;

-- name: ProgrammeVersionApprove :one
-- ProgrammeVersionApprove approves a version that waits for it. No row: there is
-- none.
UPDATE programme_version
SET
    approved_at = clock_timestamp(),
    approved_by = @approved_by::text
WHERE id = @id
    AND approved_at IS NULL
RETURNING *;

-- name: ProgrammeVersionList :many
-- ProgrammeVersionList returns the versions of one programme, or of all (an
-- empty code), in order of programme and version.
SELECT
    programme.code,
    programme.currency,
    programme.kind,
    programme.period,
    programme.time_zone,
    version.id,
    version.approved_at,
    version.approved_by,
    version.created_at,
    version.created_by,
    version.effective_from,
    version.programme_id,
    version.rules,
    version.rules_hash,
    version.version
FROM programme_version AS version
JOIN programme ON programme.id = version.programme_id
WHERE @code::text = '' OR programme.code = @code
ORDER BY programme.code, version.version;
