-- How accounts pay their vendors. The envelope is sealed with the operator's master key; nothing of
-- the secret stands outside it.
CREATE TABLE credentials (
    credential_id BLOB    NOT NULL PRIMARY KEY,
    account_id    TEXT    NOT NULL REFERENCES accounts (account_id),
    name          TEXT    NOT NULL,
    -- No CHECK: see jobs.
    vendor        TEXT    NOT NULL,
    envelope      BLOB    NOT NULL,
    is_default    INTEGER NOT NULL CHECK (is_default IN (0, 1)),
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    -- Counts the times it was put, from 1.
    version       INTEGER NOT NULL,
    UNIQUE (account_id, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX credentials_account ON credentials (account_id, credential_id);
-- One default a vendor.
CREATE UNIQUE INDEX credentials_default ON credentials (account_id, vendor) WHERE is_default;

-- The credential a job's model names.
ALTER TABLE jobs ADD COLUMN credential TEXT;
