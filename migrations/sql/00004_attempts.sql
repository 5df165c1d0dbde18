-- The history of tasks: one row per settled attempt, append-only, in partitions of one million that are dropped whole.
-- A task's state is its latest row. Results stay on Kafka; at_partition and at_offset say where.
-- +goose Up

-- An agent's tasks of one user topic; a topic that is made again has another UUID and is another source.
CREATE TABLE sources (
    id       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic    text NOT NULL,
    name     text NOT NULL,
    topic_id text NOT NULL,
    UNIQUE (topic, name, topic_id)
);

CREATE TABLE attempts (
    id             bigint   NOT NULL,
    source_id      integer  NOT NULL,
    partition      integer  NOT NULL,
    "offset"       bigint   NOT NULL,
    attempt        integer  NOT NULL,
    redrives       integer  NOT NULL,
    status         smallint NOT NULL, -- of the task after it; package history has the numbers
    outcome        smallint NOT NULL,
    at_partition   smallint NOT NULL,
    published_ms   bigint   NOT NULL,
    dispatched_ms  bigint   NOT NULL,
    started_ms     bigint   NOT NULL,
    settled_ms     bigint   NOT NULL,
    at_offset      bigint   NOT NULL,
    version        text     NOT NULL,
    runner         text     NOT NULL,
    event_id       text,
    correlation_id text,
    error_class    text,
    error_message  text,
    fingerprint    text
) PARTITION BY RANGE (id);

CREATE INDEX attempts_by_task ON attempts (source_id, partition, "offset", id);
CREATE INDEX attempts_by_source ON attempts (source_id, id);
CREATE INDEX attempts_unusual ON attempts (status, id) WHERE status <> 1;
CREATE INDEX attempts_by_correlation ON attempts (correlation_id, id) WHERE correlation_id IS NOT NULL;
CREATE INDEX attempts_by_error ON attempts (error_class, id) WHERE error_class IS NOT NULL;

-- The next attempts.id. One row.
CREATE TABLE attempts_head (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    next_id bigint NOT NULL
);
INSERT INTO attempts_head (next_id) VALUES (0);
