-- Exact counters of all outcomes ever, by agent and version. received counts a task at its first outcome; latency is a
-- histogram from publish to the outcome of finished tasks (package history has its buckets).
-- +goose Up
CREATE TABLE counters (
    topic         text   NOT NULL,
    name          text   NOT NULL,
    version       text   NOT NULL,
    received      bigint NOT NULL DEFAULT 0,
    completed     bigint NOT NULL DEFAULT 0,
    failed        bigint NOT NULL DEFAULT 0,
    retried       bigint NOT NULL DEFAULT 0,
    dead_lettered bigint NOT NULL DEFAULT 0,
    rejected      bigint NOT NULL DEFAULT 0,
    cancelled     bigint NOT NULL DEFAULT 0,
    discarded     bigint NOT NULL DEFAULT 0,
    run_ms        bigint NOT NULL DEFAULT 0,
    latency_ms    bigint NOT NULL DEFAULT 0,
    latency_max   bigint NOT NULL DEFAULT 0,
    latency       bigint[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (topic, name, version)
);
