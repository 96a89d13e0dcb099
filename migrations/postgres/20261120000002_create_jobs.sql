-- The hot table: one small row per job, its payload lies in job_inputs and job_results.
CREATE TABLE jobs (
    job_id             uuid        NOT NULL PRIMARY KEY,
    account_id         text        NOT NULL,
    operation          text        NOT NULL CHECK (operation IN ('inference', 'execute')),
    alias              text,
    -- No CHECK: a new vendor must not need a locked table. Readers refuse a word they do not know.
    vendor             text        NOT NULL,
    model              text        NOT NULL,
    model_id           uuid,
    retry_of           uuid,
    priority           text        NOT NULL CHECK (priority IN ('high', 'normal', 'low')),
    status             text        NOT NULL CHECK (
        status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'expired')
    ),
    attempt            integer     NOT NULL,
    lost_attempts      integer     NOT NULL,
    timeout_ms         bigint      NOT NULL,
    num_retries        integer     NOT NULL,
    total_timeout_ms   bigint,
    -- No CHECK, as with the vendor.
    route              text,
    stream             boolean     NOT NULL,
    callback_url       text,
    metadata           json,
    reply_to           uuid,
    created_at         timestamptz NOT NULL,
    -- When it last became ready to run: created_at, or run_at, or the moment it was queued again.
    ready_at           timestamptz NOT NULL,
    -- Set while it waits; cleared when it is due and someone publishes or claims it.
    run_at             timestamptz,
    expires_at         timestamptz,
    started_at         timestamptz,
    attempt_started_at timestamptz,
    finished_at        timestamptz,
    -- Who answers for it now: while queued who must have published it, while running who runs it,
    -- NULL once it has ended.
    instance_id        uuid
) WITH (
    -- A job is written three times; claim and finish find room on the page of the insert.
    fillfactor = 70,
    -- Its short life leaves two dead versions, and the partial indexes must stay small: vacuum by
    -- count, not by share, and at full speed.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 50000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.02,
    autovacuum_analyze_threshold = 5000
);

-- Lists.
CREATE INDEX jobs_account ON jobs (account_id, job_id);
-- Rescue by instance; the rest lets the lanes be counted from the index alone.
CREATE INDEX jobs_unfinished ON jobs (instance_id, status, vendor, priority)
    WHERE status IN ('queued', 'running');
-- The net for lost messages.
CREATE INDEX jobs_ready ON jobs (vendor, priority, ready_at)
    WHERE status = 'queued' AND run_at IS NULL;
-- The schedule.
CREATE INDEX jobs_waiting ON jobs (run_at) WHERE status = 'queued' AND run_at IS NOT NULL;
-- Start-by deadlines; a job that has started keeps no deadline.
CREATE INDEX jobs_expiring ON jobs (expires_at)
    WHERE status = 'queued' AND expires_at IS NOT NULL AND started_at IS NULL;
-- Retention.
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL;

-- Written once with the job.
CREATE TABLE job_inputs (
    job_id uuid NOT NULL PRIMARY KEY,
    args   json NOT NULL
);

-- Written once with the final status.
CREATE TABLE job_results (
    job_id   uuid NOT NULL PRIMARY KEY,
    response json,
    error    json,
    -- NULL when empty.
    usage    json
);

-- Large documents lie outside the row as they came: read and written without compression, which
-- would cost more than all else that is done for a job.
ALTER TABLE job_inputs ALTER COLUMN args SET STORAGE EXTERNAL;
ALTER TABLE job_results ALTER COLUMN response SET STORAGE EXTERNAL;

-- One row per finished attempt.
CREATE TABLE attempts (
    job_id            uuid        NOT NULL,
    number            integer     NOT NULL,
    outcome           text        NOT NULL CHECK (
        outcome IN ('succeeded', 'failed', 'cancelled', 'lost')
    ),
    instance_id       uuid,
    started_at        timestamptz NOT NULL,
    finished_at       timestamptz NOT NULL,
    error             json,
    usage             json,
    vendor_request_id text,
    PRIMARY KEY (job_id, number)
);

-- What a client's name for a submit stands for.
CREATE TABLE idempotency_keys (
    account_id      text        NOT NULL,
    idempotency_key text        NOT NULL,
    fingerprint     bytea       NOT NULL,
    job_id          uuid        NOT NULL,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (account_id, idempotency_key)
);

CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_job ON idempotency_keys (job_id);
