-- How many tasks dispatchers have made of each partition of an agent's topic, since the time (Unix milliseconds) at which
-- the count began. A count only grows, so the greatest that was reported is the latest; an agent's tasks are the sum.
-- +goose Up
CREATE TABLE dispatched (
    topic     text    NOT NULL,
    name      text    NOT NULL,
    partition integer NOT NULL,
    since     bigint  NOT NULL,
    tasks     bigint  NOT NULL,
    PRIMARY KEY (topic, name, partition, since)
);

-- How many of an agent's dispatched tasks were finished when its counters were cleared: the counters know nothing of them.
CREATE TABLE dispatched_before (
    topic    text   NOT NULL,
    name     text   NOT NULL,
    finished bigint NOT NULL,
    PRIMARY KEY (topic, name)
);
