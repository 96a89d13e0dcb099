-- What a streamed job's attempts brought so far, in groups as workers stored them. Written once.
CREATE TABLE job_chunks (
    job_id  uuid    NOT NULL,
    attempt integer NOT NULL,
    -- The index of the group's first chunk within its attempt, from 0; groups leave no gap.
    first   bigint  NOT NULL,
    -- How many chunks the group holds.
    n       integer NOT NULL,
    -- A JSON array of them, each as it came. Not of type json: who writes it has just read every
    -- chunk, and the server need not do so again.
    chunks  text    NOT NULL,
    PRIMARY KEY (job_id, attempt, first)
);

-- As with the other documents.
ALTER TABLE job_chunks ALTER COLUMN chunks SET STORAGE EXTERNAL;

-- Neither rewrites the table.
ALTER TABLE jobs
    -- Whether a claim was ever taken back.
    ADD COLUMN deferred boolean NOT NULL DEFAULT false,
    -- What an adapter wants to be shown at the next attempt: the vendor's name of a task under way.
    ADD COLUMN ticket text;
