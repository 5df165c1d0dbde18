-- How often a task that had been finished began a new round, by what had finished it: its final count is taken off the figures
-- above, and what only ever grows is the sum of both.
-- +goose Up
ALTER TABLE counters
    ADD COLUMN reopened_completed     bigint NOT NULL DEFAULT 0,
    ADD COLUMN reopened_failed        bigint NOT NULL DEFAULT 0,
    ADD COLUMN reopened_dead_lettered bigint NOT NULL DEFAULT 0,
    ADD COLUMN reopened_rejected      bigint NOT NULL DEFAULT 0,
    ADD COLUMN reopened_cancelled     bigint NOT NULL DEFAULT 0,
    ADD COLUMN reopened_discarded     bigint NOT NULL DEFAULT 0;
