-- What people asked for of dead letters, and how far it has come.
-- +goose Up
CREATE TABLE dlq_orders (
    id           text        PRIMARY KEY, -- the command's
    topic        text        NOT NULL,
    name         text        NOT NULL,
    verb         text        NOT NULL,
    command      jsonb,                   -- as it was issued; null for one that only its reports tell of
    matched      bigint      NOT NULL DEFAULT 0,
    requested_by text        NOT NULL DEFAULT '',
    requested_at timestamptz NOT NULL,
    sent_at      timestamptz NOT NULL,    -- the command expires some hours later, and is issued again until the order has ended
    state        text        NOT NULL,
    reason       text        NOT NULL DEFAULT '',
    moved        bigint      NOT NULL DEFAULT 0,
    completed    bigint      NOT NULL DEFAULT 0,
    came_back    bigint      NOT NULL DEFAULT 0,
    kept         bigint      NOT NULL DEFAULT 0,
    guarded      bigint      NOT NULL DEFAULT 0,
    updated_at   timestamptz NOT NULL
);
CREATE INDEX dlq_orders_by_agent ON dlq_orders (topic, name, requested_at DESC);
CREATE INDEX dlq_orders_open ON dlq_orders (sent_at) WHERE state NOT IN ('done', 'stopped', 'refused');
