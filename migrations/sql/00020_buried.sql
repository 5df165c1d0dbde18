-- Whether a deleted agent's record is taken off the control topic. Its row stays: a later life goes on counting its generations.
-- +goose Up
ALTER TABLE agents ADD COLUMN buried boolean NOT NULL DEFAULT false;
