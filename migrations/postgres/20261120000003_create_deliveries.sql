-- Callbacks that are owed, made with the final status of a job.
CREATE TABLE deliveries (
    delivery_id     uuid        NOT NULL PRIMARY KEY,
    job_id          uuid        NOT NULL,
    account_id      text        NOT NULL,
    url             text        NOT NULL,
    -- Lower case: what the cap per receiver counts.
    host            text        NOT NULL,
    job_status      text        NOT NULL CHECK (
        job_status IN ('succeeded', 'failed', 'cancelled', 'expired')
    ),
    status          text        NOT NULL CHECK (
        status IN ('pending', 'delivering', 'delivered', 'failed')
    ),
    -- Begun since it was made or last asked to be repeated.
    attempt         integer     NOT NULL,
    -- Who delivers it; NULL unless delivering.
    instance_id     uuid,
    created_at      timestamptz NOT NULL,
    -- NULL unless pending.
    next_attempt_at timestamptz,
    finished_at     timestamptz
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0
);

CREATE INDEX deliveries_job ON deliveries (job_id);
-- How far behind we are.
CREATE INDEX deliveries_due ON deliveries (next_attempt_at) WHERE status = 'pending';
-- What to deliver next, host by host.
CREATE INDEX deliveries_host ON deliveries (host, next_attempt_at) WHERE status = 'pending';
-- Rescue.
CREATE INDEX deliveries_delivering ON deliveries (instance_id) WHERE status = 'delivering';

-- Every POST; `number` counts over the delivery's whole life.
CREATE TABLE delivery_attempts (
    delivery_id uuid        NOT NULL,
    number      integer     NOT NULL,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    status_code integer,
    error       text,
    PRIMARY KEY (delivery_id, number)
);
