-- How many events dispatchers have passed over, beside the tasks that they have made: an agent's filter isn't true of them.
-- +goose Up
ALTER TABLE dispatched ADD COLUMN filtered bigint NOT NULL DEFAULT 0;
ALTER TABLE dispatched_before ADD COLUMN filtered bigint NOT NULL DEFAULT 0;
