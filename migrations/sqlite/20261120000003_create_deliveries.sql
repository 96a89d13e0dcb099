-- Callbacks that are owed, made with the final status of a job.
CREATE TABLE deliveries (
    delivery_id     BLOB    NOT NULL PRIMARY KEY,
    job_id          BLOB    NOT NULL,
    account_id      TEXT    NOT NULL,
    url             TEXT    NOT NULL,
    -- Lower case: what the cap per receiver counts.
    host            TEXT    NOT NULL,
    job_status      TEXT    NOT NULL CHECK (
        job_status IN ('succeeded', 'failed', 'cancelled', 'expired')
    ),
    status          TEXT    NOT NULL CHECK (
        status IN ('pending', 'delivering', 'delivered', 'failed')
    ),
    -- Begun since it was made or last asked to be repeated.
    attempt         INTEGER NOT NULL,
    -- Who delivers it; NULL unless delivering.
    instance_id     BLOB,
    created_at      INTEGER NOT NULL,
    -- NULL unless pending.
    next_attempt_at INTEGER,
    finished_at     INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX deliveries_job ON deliveries (job_id);
-- How far behind we are.
CREATE INDEX deliveries_due ON deliveries (next_attempt_at) WHERE status = 'pending';
-- What to deliver next, host by host.
CREATE INDEX deliveries_host ON deliveries (host, next_attempt_at) WHERE status = 'pending';
-- Rescue.
CREATE INDEX deliveries_delivering ON deliveries (instance_id) WHERE status = 'delivering';

-- Every POST; `number` counts over the delivery's whole life.
CREATE TABLE delivery_attempts (
    delivery_id BLOB    NOT NULL,
    number      INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    status_code INTEGER,
    error       TEXT,
    PRIMARY KEY (delivery_id, number)
) STRICT, WITHOUT ROWID;
