-- Who is alive. A row that is lost never comes back: its process registers under a new id.
CREATE TABLE instances (
    instance_id   uuid        NOT NULL PRIMARY KEY,
    role          text        NOT NULL CHECK (role IN ('api', 'worker', 'dev')),
    host          text        NOT NULL,
    registered_at timestamptz NOT NULL,
    heartbeat_at  timestamptz NOT NULL,
    -- Set once, when it is judged or says that it stops.
    lost_at       timestamptz
) WITH (
    -- Few rows, each renewed every second: room for the new versions beside the old ones.
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 500
);
