-- Agents as registered. record is the agent's spec with its desired state, as it goes to the control topic; the other
-- columns are what queries select by. A deleted agent stays, as phase terminated.
-- +goose Up
CREATE TABLE agents (
    topic          text        NOT NULL,
    name           text        NOT NULL,
    id             text        NOT NULL UNIQUE,
    phase          text        NOT NULL CHECK (phase IN ('created', 'initialized', 'active', 'paused', 'terminated', 'error')),
    generation     bigint      NOT NULL,
    record         jsonb       NOT NULL,
    initialized_at timestamptz,
    updated_at     timestamptz NOT NULL,
    PRIMARY KEY (topic, name)
);

-- Every change of an agent, with who did it and why.
CREATE TABLE agent_history (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic      text        NOT NULL,
    name       text        NOT NULL,
    at         timestamptz NOT NULL,
    action     text        NOT NULL,
    old_phase  text,
    phase      text        NOT NULL,
    generation bigint      NOT NULL,
    actor      text        NOT NULL,
    reason     text        NOT NULL DEFAULT ''
);
CREATE INDEX agent_history_by_agent ON agent_history (topic, name, id DESC);
