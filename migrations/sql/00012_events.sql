-- Where packed attempts may be found by their event's id: a Bloom filter over each thousand of numbers (package history has
-- how it is made). What isn't packed has an index.
-- +goose Up
CREATE TABLE event_pages (
    number bigint PRIMARY KEY, -- of the thousand
    filter bytea  NOT NULL
);
ALTER TABLE event_pages ALTER COLUMN filter SET STORAGE PLAIN; -- 1,500 bytes; each lookup reads all of them
CREATE INDEX attempts_by_event ON attempts (event_id, id) WHERE event_id IS NOT NULL;

-- How long the attempts ran that completed. Of what was counted before, nobody knows how much of run_ms that was; all but
-- the failures'.
ALTER TABLE counters ADD COLUMN completed_ms bigint NOT NULL DEFAULT 0;
UPDATE counters SET completed_ms = run_ms;
