-- The tables that attempts consists of, and when each was made: which is when the one before it was full.
-- +goose Up
CREATE TABLE attempts_tables (
    number  bigint PRIMARY KEY,
    made_at timestamptz NOT NULL DEFAULT now()
);
