-- Where the groups of the installation stand on their topics, as last seen on Kafka, which forgets the positions of a
-- group without members. life tells the lives of an agent between complete deletions; topic_id is the topic's UUID.
-- +goose Up
CREATE TABLE positions (
    consumer  text    NOT NULL,
    partition integer NOT NULL,
    topic     text    NOT NULL,
    topic_id  text    NOT NULL,
    life      bigint  NOT NULL,
    next      bigint  NOT NULL,
    metadata  text    NOT NULL,
    PRIMARY KEY (consumer, partition)
);

-- Up to where the outcomes topic went when the groups were last looked at: what is settled beyond isn't in the positions.
CREATE TABLE positions_as_of (
    partition integer PRIMARY KEY,
    topic_id  text    NOT NULL,
    next      bigint  NOT NULL
);

-- What the retention of a user topic removed before an agent had consumed it: offsets from first up to next, next excluded.
-- first is -1 where nobody knows it.
CREATE TABLE events_lost (
    topic     text        NOT NULL,
    name      text        NOT NULL,
    topic_id  text        NOT NULL,
    partition integer     NOT NULL,
    first     bigint      NOT NULL,
    next      bigint      NOT NULL,
    at        timestamptz NOT NULL,
    PRIMARY KEY (topic, name, topic_id, partition, next)
);
