-- What a model server runs, and ran before: the entry with the highest number is the present one.
CREATE TABLE model_server_backends (
    model_server_id     BLOB    NOT NULL
        REFERENCES model_servers (model_server_id) ON DELETE CASCADE,
    -- Counted from 1 within the server.
    number              INTEGER NOT NULL,
    model_deployment_id TEXT    NOT NULL,
    since               INTEGER NOT NULL,
    -- Null where an older release made the server.
    by_user_id          TEXT,
    -- The entry that a rollback of this one goes back to.
    rollback_to         INTEGER,
    PRIMARY KEY (model_server_id, number)
) STRICT, WITHOUT ROWID;

INSERT INTO model_server_backends (model_server_id, number, model_deployment_id, since)
SELECT model_server_id, 1, model_deployment_id, created_at FROM model_servers;

-- Whether a worker can call a model, as far as it has lately seen. Written when that changes, and
-- seldom while it does not.
CREATE TABLE model_health (
    model_id    BLOB    NOT NULL REFERENCES models (model_id) ON DELETE CASCADE,
    instance_id BLOB    NOT NULL,
    available   INTEGER NOT NULL CHECK (available IN (0, 1)),
    -- Why not.
    reason      TEXT,
    since       INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    PRIMARY KEY (model_id, instance_id)
) STRICT, WITHOUT ROWID;
