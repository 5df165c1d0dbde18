-- What became of tasks' webhooks, as dispatchers tell: the latest of each task, for a week.
-- +goose Up
CREATE TABLE webhooks (
    topic       text        NOT NULL,
    name        text        NOT NULL,
    partition   integer     NOT NULL,
    "offset"    bigint      NOT NULL,
    topic_id    text        NOT NULL,
    redrives    integer     NOT NULL,
    attempts    integer     NOT NULL,
    webhook_id  text        NOT NULL,
    endpoint    text        NOT NULL,
    state       text        NOT NULL,
    status_code integer     NOT NULL,
    error_class text        NOT NULL,
    error       text        NOT NULL,
    next_at     timestamptz,
    updated_at  timestamptz NOT NULL,
    PRIMARY KEY (topic, name, partition, "offset")
);
CREATE INDEX webhooks_by_age ON webhooks (updated_at);
