-- How many results were stored, by the minute (of Unix time) in which they were settled. They go with age and when they
-- are cleared.
-- +goose Up
CREATE TABLE results (
    minute bigint PRIMARY KEY,
    stored bigint NOT NULL
);

-- Results that were deleted one by one, until they would have gone with age.
CREATE TABLE results_deleted (
    attempt_id bigint      PRIMARY KEY,
    settled_ms bigint      NOT NULL
);

-- When results, or counters, were last cleared: attempts with numbers below belong to the time before.
CREATE TABLE cleared (
    what       text        PRIMARY KEY CHECK (what IN ('results', 'metrics')),
    at         timestamptz NOT NULL,
    below      bigint      NOT NULL
);

-- What people save under a key, as JSON text.
CREATE TABLE config (
    key        text        PRIMARY KEY,
    value      text        NOT NULL,
    updated_at timestamptz NOT NULL
);
