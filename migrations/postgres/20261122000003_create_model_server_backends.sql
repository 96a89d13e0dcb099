-- What a model server runs, and ran before: the entry with the highest number is the present one.
CREATE TABLE model_server_backends (
    model_server_id     uuid        NOT NULL
        REFERENCES model_servers (model_server_id) ON DELETE CASCADE,
    -- Counted from 1 within the server.
    number              bigint      NOT NULL,
    model_deployment_id text        NOT NULL,
    since               timestamptz NOT NULL,
    -- Null where an older release made the server.
    by_user_id          text,
    -- The entry that a rollback of this one goes back to.
    rollback_to         bigint,
    PRIMARY KEY (model_server_id, number)
);

INSERT INTO model_server_backends (model_server_id, number, model_deployment_id, since)
SELECT model_server_id, 1, model_deployment_id, created_at FROM model_servers;

-- Whether a worker can call a model, as far as it has lately seen. Written when that changes, and
-- seldom while it does not.
CREATE TABLE model_health (
    model_id    uuid        NOT NULL REFERENCES models (model_id) ON DELETE CASCADE,
    instance_id uuid        NOT NULL,
    available   boolean     NOT NULL,
    -- Why not.
    reason      text,
    since       timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    PRIMARY KEY (model_id, instance_id)
);
