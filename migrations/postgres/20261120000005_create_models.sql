CREATE TABLE models (
    model_id                 uuid        NOT NULL PRIMARY KEY,
    account_id               text        NOT NULL,
    name                     text        NOT NULL,
    -- No CHECK: see jobs.
    vendor                   text        NOT NULL,
    model_type               text        NOT NULL CHECK (
        model_type IN ('generic', 'completion', 'chat_completion')
    ),
    vendor_configuration     json,
    metadata                 json,
    status                   text        NOT NULL CHECK (
        status IN ('failed', 'ready', 'deploying', 'deployment_timeout')
    ),
    status_reason            text,
    default_callback_url     text,
    created_at               timestamptz NOT NULL,
    created_by_user_id       text        NOT NULL,
    created_by_identity_type text        NOT NULL CHECK (
        created_by_identity_type IN ('user', 'service_account')
    ),
    UNIQUE (account_id, vendor, name)
);

CREATE INDEX models_account ON models (account_id, model_id);

-- An alias names one model server of its account; a server without one is named by its id.
CREATE TABLE model_servers (
    model_server_id     uuid        NOT NULL PRIMARY KEY,
    account_id          text        NOT NULL,
    name                text        NOT NULL,
    alias               text,
    model_deployment_id text        NOT NULL,
    created_at          timestamptz NOT NULL,
    UNIQUE (account_id, alias)
);
