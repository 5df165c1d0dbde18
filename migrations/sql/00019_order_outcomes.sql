-- What became of the tasks and webhooks that orders about dead letters have moved, counted from their outcomes. It is a table of its
-- own: outcomes may come before the order's first report, and long after its end.
-- +goose Up
CREATE TABLE dlq_order_outcomes (
    order_id   text        PRIMARY KEY,
    completed  bigint      NOT NULL,
    came_back  bigint      NOT NULL,
    updated_at timestamptz NOT NULL
);
