-- How far each partition of a projected topic has been read. Stored in the transaction of the rows that came of it.
-- +goose Up
CREATE TABLE projections (
    name        text        NOT NULL,
    partition   integer     NOT NULL,
    topic_id    text        NOT NULL, -- the UUID of the topic that the offset belongs to
    next_offset bigint      NOT NULL,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, partition)
);
