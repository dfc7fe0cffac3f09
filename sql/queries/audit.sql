-- name: AuditPlanScans :exec
-- AuditPlanScans makes the planner plan the rest of the transaction for reading
-- whole tables: it must not probe an index per row because statistics are older
-- than what was loaded since, nor compile what it reads once.
SELECT
    set_config('enable_nestloop', 'off', true),
    set_config('jit', 'off', true);

-- name: AuditCount :one
-- AuditCount returns how many audits the schema has.
SELECT count(*)
FROM pg_catalog.pg_class AS audit
WHERE audit.relnamespace = current_schema()::regnamespace
    AND audit.relkind = 'v'
    AND audit.relname LIKE 'audit\_%'
    AND audit.relname <> 'audit_findings';

-- name: AuditFindingList :many
-- AuditFindingList returns up to max_findings findings, in no promised order.
SELECT
    audit::text AS audit,
    detail::text AS detail,
    subject::text AS subject
FROM audit_findings
LIMIT @max_findings::int;
