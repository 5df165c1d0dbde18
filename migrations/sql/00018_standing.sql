-- What stands until it is taken back: alerts, by the process that told of them.
-- +goose Up
ALTER TABLE alerts ADD COLUMN service text NOT NULL DEFAULT '', ADD COLUMN node text NOT NULL DEFAULT '';
ALTER TABLE alerts DROP CONSTRAINT alerts_pkey, ADD PRIMARY KEY (topic, name, kind, subject, service, node);
UPDATE alerts SET service = 'registry' WHERE kind = 'retention_near';
