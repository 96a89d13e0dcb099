-- What a streamed job's attempts brought so far, in groups as workers stored them. Written once.
CREATE TABLE job_chunks (
    job_id  BLOB    NOT NULL,
    attempt INTEGER NOT NULL,
    -- The index of the group's first chunk within its attempt, from 0; groups leave no gap.
    first   INTEGER NOT NULL,
    -- How many chunks the group holds.
    n       INTEGER NOT NULL,
    -- A JSON array of them, each as it came.
    chunks  TEXT    NOT NULL,
    PRIMARY KEY (job_id, attempt, first)
) STRICT;

-- Whether a claim was ever taken back. No CHECK: it would read every job.
ALTER TABLE jobs ADD COLUMN deferred INTEGER NOT NULL DEFAULT 0;
-- What an adapter wants to be shown at the next attempt: the vendor's name of a task under way.
ALTER TABLE jobs ADD COLUMN ticket TEXT;
