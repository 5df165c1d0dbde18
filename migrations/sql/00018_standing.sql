-- What stands until it is taken back: alerts, by the process that told of them, and what people want of tasks.
-- +goose Up
ALTER TABLE alerts ADD COLUMN service text NOT NULL DEFAULT '', ADD COLUMN node text NOT NULL DEFAULT '';
ALTER TABLE alerts DROP CONSTRAINT alerts_pkey, ADD PRIMARY KEY (topic, name, kind, subject, service, node);
UPDATE alerts SET service = 'registry' WHERE kind = 'retention_near';

CREATE TABLE wishes (
    id       text        PRIMARY KEY, -- the command's
    topic    text        NOT NULL,
    name     text        NOT NULL,
    command  jsonb       NOT NULL,    -- as it was first issued
    asked_at timestamptz NOT NULL,
    expires  timestamptz NOT NULL     -- of the command as it was issued last: before that it is issued again
);
CREATE INDEX wishes_by_expiry ON wishes (expires);
