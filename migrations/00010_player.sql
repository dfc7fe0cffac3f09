-- Why:   players and the agents above them, with the history that settlements
--        and commissions of past days need.
-- Locks: none; new tables.
-- Undo:  drops them.

-- +goose Up
CREATE TABLE agent (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    as_of timestamptz NOT NULL,
    code text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    parent_id bigint REFERENCES agent (id),
    registered_at timestamptz NOT NULL,
    rolling_ppm integer NOT NULL,
    CONSTRAINT code_length CHECK (length(code) BETWEEN 1 AND 128),
    CONSTRAINT rolling_ppm_is_a_share CHECK (rolling_ppm BETWEEN 0 AND 1000000),
    CONSTRAINT parent_is_another CHECK (parent_id <> id)
);
COMMENT ON TABLE agent IS 'Agents as their newest line left them; as_of is that line''s time, registered_at the oldest line''s.';
COMMENT ON COLUMN agent.rolling_ppm IS 'Share of the turnover below this agent, in millionths. Never above the parent''s.';
-- For the children of an agent.
CREATE INDEX agent_parent_id_idx ON agent (parent_id) WHERE parent_id IS NOT NULL;

CREATE TABLE agent_line (
    agent_id bigint NOT NULL REFERENCES agent (id),
    at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    parent_id bigint REFERENCES agent (id),
    rolling_ppm integer NOT NULL,
    PRIMARY KEY (agent_id, at)
);
COMMENT ON TABLE agent_line IS 'Every agent line that was ever imported: who an agent''s parent was, and its rate, from a given time on.';

CREATE TABLE player (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent_id bigint REFERENCES agent (id),
    as_of timestamptz NOT NULL,
    code text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    currency text NOT NULL,
    registered_at timestamptz NOT NULL,
    rolling_ppm integer NOT NULL,
    status text NOT NULL,
    vip integer NOT NULL,
    CONSTRAINT code_length CHECK (length(code) BETWEEN 1 AND 128),
    CONSTRAINT currency_is_iso4217 CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT rolling_ppm_is_a_share CHECK (rolling_ppm BETWEEN 0 AND 1000000),
    CONSTRAINT status_is_known CHECK (status IN ('active', 'frozen', 'closed', 'self_excluded')),
    CONSTRAINT vip_not_negative CHECK (vip >= 0)
);
COMMENT ON TABLE player IS 'Players as their newest line left them; as_of is that line''s time, registered_at the oldest line''s. A player''s currency never changes.';
-- For the players below an agent.
CREATE INDEX player_agent_id_idx ON player (agent_id) WHERE agent_id IS NOT NULL;

CREATE TABLE player_line (
    player_id bigint NOT NULL REFERENCES player (id),
    at timestamptz NOT NULL,
    agent_id bigint REFERENCES agent (id),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    rolling_ppm integer NOT NULL,
    status text NOT NULL,
    vip integer NOT NULL,
    PRIMARY KEY (player_id, at)
);
COMMENT ON TABLE player_line IS 'Every player line that was ever imported: agent, rate, status and VIP level from a given time on.';

-- +goose Down
DROP TABLE player_line;
DROP TABLE player;
DROP TABLE agent_line;
DROP TABLE agent;
