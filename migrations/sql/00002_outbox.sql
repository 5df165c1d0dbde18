-- What is to be published to the control topic, written in the transaction of the change. value NULL is a tombstone.
-- +goose Up
CREATE TABLE outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key        text        NOT NULL,
    value      text,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Who does what only one registry may do. The epoch grows with every new holder.
CREATE TABLE leases (
    name       text PRIMARY KEY,
    holder     text        NOT NULL,
    epoch      bigint      NOT NULL,
    expires_at timestamptz NOT NULL
);
