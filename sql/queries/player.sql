-- name: PlayerFindAbove :many
-- PlayerFindAbove returns the players who have or had a line below one of these
-- agents with a rate above the one given for it.
WITH given AS (
    SELECT
        unnest(@agent_id::bigint[]) AS agent_id,
        unnest(@rolling_ppm::integer[]) AS rolling_ppm
)
SELECT
    player.id,
    player.code
FROM player
WHERE EXISTS (
    SELECT
    FROM player_line
    JOIN given ON given.agent_id = player_line.agent_id
    WHERE player_line.player_id = player.id
        AND player_line.rolling_ppm > given.rolling_ppm
)
ORDER BY player.id;

-- name: PlayerInsert :many
-- PlayerInsert adds players. Agent 0 is none.
WITH given AS (
    SELECT
        unnest(@agent_id::bigint[]) AS agent_id,
        unnest(@as_of::timestamptz[]) AS as_of,
        unnest(@code::text[]) AS code,
        unnest(@currency::text[]) AS currency,
        unnest(@registered_at::timestamptz[]) AS registered_at,
        unnest(@rolling_ppm::integer[]) AS rolling_ppm,
        unnest(@status::text[]) AS status,
        unnest(@vip::integer[]) AS vip
)
INSERT INTO player (agent_id, as_of, code, currency, registered_at, rolling_ppm, status, vip)
SELECT nullif(agent_id, 0), as_of, code, currency, registered_at, rolling_ppm, status, vip
FROM given
RETURNING player.id, player.code;

-- name: PlayerUpdate :exec
-- PlayerUpdate brings players to what their newest line says. Agent 0 is none.
WITH given AS (
    SELECT
        unnest(@id::bigint[]) AS id,
        unnest(@agent_id::bigint[]) AS agent_id,
        unnest(@as_of::timestamptz[]) AS as_of,
        unnest(@registered_at::timestamptz[]) AS registered_at,
        unnest(@rolling_ppm::integer[]) AS rolling_ppm,
        unnest(@status::text[]) AS status,
        unnest(@vip::integer[]) AS vip
)
UPDATE player
SET
    agent_id = nullif(given.agent_id, 0),
    as_of = given.as_of,
    registered_at = given.registered_at,
    rolling_ppm = given.rolling_ppm,
    status = given.status,
    vip = given.vip
FROM given
WHERE player.id = given.id;

-- name: PlayerLineFind :many
-- PlayerLineFind returns the lines of the players of these codes, each player's
-- by time. Agent 0 is none.
SELECT
    player.code,
    coalesce(agent.code, '')::text AS agent_code,
    coalesce(player_line.agent_id, 0)::bigint AS agent_id,
    player_line.at,
    player_line.rolling_ppm,
    player_line.status,
    player_line.vip
FROM player_line
JOIN player ON player.id = player_line.player_id
LEFT JOIN agent ON agent.id = player_line.agent_id
WHERE player.code = ANY(@player_codes::text[])
ORDER BY player_line.player_id, player_line.at;

-- name: PlayerLineInsert :exec
-- PlayerLineInsert adds lines to the history of players. Agent 0 is none.
WITH given AS (
    SELECT
        unnest(@player_id::bigint[]) AS player_id,
        unnest(@agent_id::bigint[]) AS agent_id,
        unnest(@at::timestamptz[]) AS at,
        unnest(@rolling_ppm::integer[]) AS rolling_ppm,
        unnest(@status::text[]) AS status,
        unnest(@vip::integer[]) AS vip
)
INSERT INTO player_line (player_id, agent_id, at, rolling_ppm, status, vip)
SELECT player_id, nullif(agent_id, 0), at, rolling_ppm, status, vip
FROM given;
