CREATE TABLE accounts (
    account_id TEXT    NOT NULL PRIMARY KEY,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Only the hash of a key is kept, and its first characters for display.
CREATE TABLE api_keys (
    api_key_id BLOB    NOT NULL PRIMARY KEY,
    account_id TEXT    NOT NULL REFERENCES accounts (account_id),
    name       TEXT    NOT NULL,
    prefix     TEXT    NOT NULL,
    hash       BLOB    NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX api_keys_account ON api_keys (account_id);

-- Further accounts a key may act for, in their order.
CREATE TABLE api_key_accounts (
    api_key_id BLOB    NOT NULL REFERENCES api_keys (api_key_id),
    position   INTEGER NOT NULL,
    account_id TEXT    NOT NULL REFERENCES accounts (account_id),
    PRIMARY KEY (api_key_id, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX api_key_accounts_account ON api_key_accounts (account_id);

-- The newest of an account has no expires_at.
CREATE TABLE webhook_secrets (
    webhook_secret_id INTEGER NOT NULL PRIMARY KEY,
    account_id        TEXT    NOT NULL REFERENCES accounts (account_id),
    secret            TEXT    NOT NULL,
    created_at        INTEGER NOT NULL,
    expires_at        INTEGER
) STRICT;

CREATE INDEX webhook_secrets_account ON webhook_secrets (account_id);
