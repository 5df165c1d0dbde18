-- Dead letters that a redrive leaves, because their agent as it is now doesn't take them.
-- +goose Up
ALTER TABLE dlq_orders ADD COLUMN unfit bigint NOT NULL DEFAULT 0;
