-- How accounts pay their vendors. The envelope is sealed with the operator's master key; nothing of
-- the secret stands outside it.
CREATE TABLE credentials (
    credential_id uuid        NOT NULL PRIMARY KEY,
    account_id    text        NOT NULL REFERENCES accounts (account_id),
    name          text        NOT NULL,
    -- No CHECK: see jobs.
    vendor        text        NOT NULL,
    envelope      bytea       NOT NULL,
    is_default    boolean     NOT NULL,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    -- Counts the times it was put, from 1.
    version       bigint      NOT NULL,
    UNIQUE (account_id, name)
);

CREATE INDEX credentials_account ON credentials (account_id, credential_id);
-- One default a vendor.
CREATE UNIQUE INDEX credentials_default ON credentials (account_id, vendor) WHERE is_default;

-- The credential a job's model names.
ALTER TABLE jobs ADD COLUMN credential text;
