CREATE TABLE models (
    model_id                 BLOB    NOT NULL PRIMARY KEY,
    account_id               TEXT    NOT NULL,
    name                     TEXT    NOT NULL,
    -- No CHECK: see jobs.
    vendor                   TEXT    NOT NULL,
    model_type               TEXT    NOT NULL CHECK (
        model_type IN ('generic', 'completion', 'chat_completion')
    ),
    vendor_configuration     TEXT,
    metadata                 TEXT,
    status                   TEXT    NOT NULL CHECK (
        status IN ('failed', 'ready', 'deploying', 'deployment_timeout')
    ),
    status_reason            TEXT,
    default_callback_url     TEXT,
    created_at               INTEGER NOT NULL,
    created_by_user_id       TEXT    NOT NULL,
    created_by_identity_type TEXT    NOT NULL CHECK (
        created_by_identity_type IN ('user', 'service_account')
    ),
    UNIQUE (account_id, vendor, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX models_account ON models (account_id, model_id);

-- An alias names one model server of its account; a server without one is named by its id.
CREATE TABLE model_servers (
    model_server_id     BLOB    NOT NULL PRIMARY KEY,
    account_id          TEXT    NOT NULL,
    name                TEXT    NOT NULL,
    alias               TEXT,
    model_deployment_id TEXT    NOT NULL,
    created_at          INTEGER NOT NULL,
    UNIQUE (account_id, alias)
) STRICT, WITHOUT ROWID;
