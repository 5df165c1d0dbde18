-- What is plain of the history, packed: completed at the first attempt, of one source and one partition of its topic, from one
-- batch. Attempts in a pack are numbered from id on, in the same row of numbers as those in attempts. data is package
-- history's own (pack.go).
-- +goose Up
CREATE TABLE packs (
    id           bigint   PRIMARY KEY,
    source_id    integer  NOT NULL,
    partition    integer  NOT NULL,
    first_offset bigint   NOT NULL,
    last_offset  bigint   NOT NULL, -- less than 16384 beyond the first
    settled_ms   bigint   NOT NULL, -- of the latest
    data         bytea    NOT NULL
);
ALTER TABLE packs ALTER COLUMN data SET STORAGE EXTERNAL; -- it is dense already
CREATE INDEX packs_by_source ON packs (source_id, id);
CREATE INDEX packs_by_offset ON packs (source_id, partition, last_offset);
