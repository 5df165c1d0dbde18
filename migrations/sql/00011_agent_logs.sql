-- What agents wrote on their standard error, line by line as their supervisors let it leave: the latest thousand lines of
-- each agent, of the last day.
-- +goose Up
CREATE TABLE agent_logs (
    id       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic    text        NOT NULL,
    name     text        NOT NULL,
    instance text        NOT NULL,
    at       timestamptz NOT NULL,
    line     text        NOT NULL
);
CREATE INDEX agent_logs_by_agent ON agent_logs (topic, name, id);
