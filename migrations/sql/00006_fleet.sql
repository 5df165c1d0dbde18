-- What dispatchers and workers have reported: nodes, instances of agents, and alerts that are open.
-- +goose Up
CREATE TABLE nodes (
    service      text NOT NULL,
    node         text NOT NULL,
    host         text NOT NULL,
    pid          integer NOT NULL,
    started_at   timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    leaving      boolean NOT NULL,
    PRIMARY KEY (service, node)
);

CREATE TABLE instances (
    topic         text NOT NULL,
    name          text NOT NULL,
    instance      text NOT NULL,
    node          text NOT NULL,
    state         text NOT NULL,
    health        text NOT NULL DEFAULT '',
    reason        text NOT NULL DEFAULT '',
    pid           integer NOT NULL DEFAULT 0,
    cpu_percent   double precision NOT NULL DEFAULT 0,
    memory_mb     double precision NOT NULL DEFAULT 0,
    latency_ms    double precision NOT NULL DEFAULT 0,
    restart_count integer NOT NULL DEFAULT 0,
    updated_at    timestamptz NOT NULL,
    PRIMARY KEY (topic, name, instance)
);
CREATE INDEX instances_by_age ON instances (updated_at);

CREATE TABLE alerts (
    topic      text NOT NULL,
    name       text NOT NULL,
    kind       text NOT NULL,
    subject    text NOT NULL,
    severity   text NOT NULL,
    message    text NOT NULL,
    since      timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (topic, name, kind, subject)
);
