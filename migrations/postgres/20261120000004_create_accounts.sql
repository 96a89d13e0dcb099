CREATE TABLE accounts (
    account_id text        NOT NULL PRIMARY KEY,
    created_at timestamptz NOT NULL
);

-- Only the hash of a key is kept, and its first characters for display.
CREATE TABLE api_keys (
    api_key_id uuid        NOT NULL PRIMARY KEY,
    account_id text        NOT NULL REFERENCES accounts (account_id),
    name       text        NOT NULL,
    prefix     text        NOT NULL,
    hash       bytea       NOT NULL UNIQUE,
    created_at timestamptz NOT NULL,
    revoked_at timestamptz
);

CREATE INDEX api_keys_account ON api_keys (account_id);

-- Further accounts a key may act for, in their order.
CREATE TABLE api_key_accounts (
    api_key_id uuid    NOT NULL REFERENCES api_keys (api_key_id),
    position   integer NOT NULL,
    account_id text    NOT NULL REFERENCES accounts (account_id),
    PRIMARY KEY (api_key_id, position)
);

CREATE INDEX api_key_accounts_account ON api_key_accounts (account_id);

-- The newest of an account has no expires_at.
CREATE TABLE webhook_secrets (
    webhook_secret_id bigint      NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id        text        NOT NULL REFERENCES accounts (account_id),
    secret            text        NOT NULL,
    created_at        timestamptz NOT NULL,
    expires_at        timestamptz
);

CREATE INDEX webhook_secrets_account ON webhook_secrets (account_id);
