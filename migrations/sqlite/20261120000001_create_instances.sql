-- Who is alive. A row that is lost never comes back: its process registers under a new id.
CREATE TABLE instances (
    instance_id   BLOB    NOT NULL PRIMARY KEY,
    role          TEXT    NOT NULL CHECK (role IN ('api', 'worker', 'dev')),
    host          TEXT    NOT NULL,
    registered_at INTEGER NOT NULL,
    heartbeat_at  INTEGER NOT NULL,
    -- Set once, when it is judged or says that it stops.
    lost_at       INTEGER
) STRICT, WITHOUT ROWID;
