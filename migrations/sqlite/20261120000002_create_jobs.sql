-- The hot table: one small row per job, its payload lies in job_inputs and job_results.
CREATE TABLE jobs (
    job_id             BLOB    NOT NULL PRIMARY KEY,
    account_id         TEXT    NOT NULL,
    operation          TEXT    NOT NULL CHECK (operation IN ('inference', 'execute')),
    alias              TEXT,
    -- No CHECK: a new vendor must not need a rebuilt table. Readers refuse a word they do not know.
    vendor             TEXT    NOT NULL,
    model              TEXT    NOT NULL,
    model_id           BLOB,
    retry_of           BLOB,
    priority           TEXT    NOT NULL CHECK (priority IN ('high', 'normal', 'low')),
    status             TEXT    NOT NULL CHECK (
        status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'expired')
    ),
    attempt            INTEGER NOT NULL,
    lost_attempts      INTEGER NOT NULL,
    timeout_ms         INTEGER NOT NULL,
    num_retries        INTEGER NOT NULL,
    total_timeout_ms   INTEGER,
    -- No CHECK, as with the vendor.
    route              TEXT,
    stream             INTEGER NOT NULL CHECK (stream IN (0, 1)),
    callback_url       TEXT,
    metadata           TEXT,
    reply_to           BLOB,
    created_at         INTEGER NOT NULL,
    -- When it last became ready to run: created_at, or run_at, or the moment it was queued again.
    ready_at           INTEGER NOT NULL,
    -- Set while it waits; cleared when it is due and someone publishes or claims it.
    run_at             INTEGER,
    expires_at         INTEGER,
    started_at         INTEGER,
    attempt_started_at INTEGER,
    finished_at        INTEGER,
    -- Who answers for it now: while queued who must have published it, while running who runs it,
    -- NULL once it has ended.
    instance_id        BLOB
) STRICT, WITHOUT ROWID;

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
    job_id BLOB NOT NULL PRIMARY KEY,
    args   TEXT NOT NULL
) STRICT;

-- Written once with the final status.
CREATE TABLE job_results (
    job_id   BLOB NOT NULL PRIMARY KEY,
    response TEXT,
    error    TEXT,
    -- NULL when empty.
    usage    TEXT
) STRICT;

-- One row per finished attempt.
CREATE TABLE attempts (
    job_id            BLOB    NOT NULL,
    number            INTEGER NOT NULL,
    outcome           TEXT    NOT NULL CHECK (
        outcome IN ('succeeded', 'failed', 'cancelled', 'lost')
    ),
    instance_id       BLOB,
    started_at        INTEGER NOT NULL,
    finished_at       INTEGER NOT NULL,
    error             TEXT,
    usage             TEXT,
    vendor_request_id TEXT,
    PRIMARY KEY (job_id, number)
) STRICT, WITHOUT ROWID;

-- What a client's name for a submit stands for.
CREATE TABLE idempotency_keys (
    account_id      TEXT    NOT NULL,
    idempotency_key TEXT    NOT NULL,
    fingerprint     BLOB    NOT NULL,
    job_id          BLOB    NOT NULL,
    created_at      INTEGER NOT NULL,
    PRIMARY KEY (account_id, idempotency_key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_job ON idempotency_keys (job_id);
