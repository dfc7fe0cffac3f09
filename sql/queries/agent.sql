-- name: AgentLockTree :exec
-- AgentLockTree makes whoever changes agents wait for all others who do, and for
-- those who hold [Queries.AgentLockTreeShared]. Taken before any wallet is
-- locked; held to the end of the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('agent tree', 0));

-- name: AgentLockTreeShared :exec
-- AgentLockTreeShared keeps agents as they are to the end of the transaction.
SELECT pg_advisory_xact_lock_shared(hashtextextended('agent tree', 0));

-- name: AgentFind :many
-- AgentFind returns the agents of these codes, or all agents.
SELECT
    agent.id,
    agent.code
FROM agent
WHERE @everyone::boolean
    OR agent.code = ANY(@codes::text[])
ORDER BY agent.id;

-- name: AgentInsert :many
-- AgentInsert adds agents without their parents, which may be among them and are
-- filled in by [Queries.AgentUpdate].
WITH given AS (
    SELECT
        unnest(@as_of::timestamptz[]) AS as_of,
        unnest(@code::text[]) AS code,
        unnest(@registered_at::timestamptz[]) AS registered_at,
        unnest(@rolling_ppm::integer[]) AS rolling_ppm
)
INSERT INTO agent (as_of, code, registered_at, rolling_ppm)
SELECT as_of, code, registered_at, rolling_ppm
FROM given
RETURNING agent.id, agent.code;

-- name: AgentUpdate :exec
-- AgentUpdate brings agents to what their newest line says. Parent 0 is none.
WITH given AS (
    SELECT
        unnest(@id::bigint[]) AS id,
        unnest(@as_of::timestamptz[]) AS as_of,
        unnest(@parent_id::bigint[]) AS parent_id,
        unnest(@registered_at::timestamptz[]) AS registered_at,
        unnest(@rolling_ppm::integer[]) AS rolling_ppm
)
UPDATE agent
SET
    as_of = given.as_of,
    parent_id = nullif(given.parent_id, 0),
    registered_at = given.registered_at,
    rolling_ppm = given.rolling_ppm
FROM given
WHERE agent.id = given.id;

-- name: AgentLineFind :many
-- AgentLineFind returns the lines of the agents of these codes, or of all, each
-- agent's by time. Parent 0 is none.
SELECT
    agent_line.agent_id,
    agent_line.at,
    coalesce(agent_line.parent_id, 0)::bigint AS parent_id,
    agent_line.rolling_ppm
FROM agent_line
JOIN agent ON agent.id = agent_line.agent_id
WHERE @everyone::boolean
    OR agent.code = ANY(@codes::text[])
ORDER BY agent_line.agent_id, agent_line.at;

-- name: AgentLineInsert :exec
-- AgentLineInsert adds lines to the history of agents. Parent 0 is none.
WITH given AS (
    SELECT
        unnest(@agent_id::bigint[]) AS agent_id,
        unnest(@at::timestamptz[]) AS at,
        unnest(@parent_id::bigint[]) AS parent_id,
        unnest(@rolling_ppm::integer[]) AS rolling_ppm
)
INSERT INTO agent_line (agent_id, at, parent_id, rolling_ppm)
SELECT agent_id, at, nullif(parent_id, 0), rolling_ppm
FROM given;
