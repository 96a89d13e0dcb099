//! What an error of Postgres means to callers.

use std::{fmt, io};

use sqlx::migrate::MigrateError;

use crate::store::StoreError;

/// Nothing takes connections at the address of the database.
#[derive(Debug)]
pub(super) struct NoServer {
    /// `host:port`.
    pub(super) address: String,
    pub(super) source: io::Error,
}

impl fmt::Display for NoServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no Postgres at {}", self.address)
    }
}

impl std::error::Error for NoServer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl From<NoServer> for sqlx::Error {
    fn from(error: NoServer) -> Self {
        Self::Io(io::Error::new(error.source.kind(), error))
    }
}

/// What kept a connection from being made. An answer that is not the protocol's is one that broke off, as a
/// server's do while it stops, or not a Postgres's: nothing that was asked is at fault.
pub(super) fn connect_error(error: sqlx::Error) -> sqlx::Error {
    match error {
        sqlx::Error::Protocol(_) => io::Error::new(io::ErrorKind::ConnectionAborted, error).into(),
        error => error,
    }
}

/// What a statement's failure calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Run it again at once: nothing was written, and it was only in someone's way.
    Repeat,
    /// Try again later.
    Unavailable,
    NotMigrated,
    Defect,
}

/// The SQLSTATE of an error that the server reported.
fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Source: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
pub(super) fn kind(error: &sqlx::Error) -> Kind {
    use sqlx::Error::{Io, PoolClosed, PoolTimedOut, Tls, WorkerCrashed};
    if matches!(error, Io(_) | PoolClosed | PoolTimedOut | Tls(_) | WorkerCrashed) {
        return Kind::Unavailable;
    }
    match code(error).as_deref() {
        // Serialization failure and deadlock; a prepared statement that a changed table or a proxy
        // made useless ("cached plan must not change result type").
        Some("40001" | "40P01" | "0A000" | "26000") => Kind::Repeat,
        Some("42P01" | "42703") => Kind::NotMigrated,
        // A standby that was not promoted yet; a lock not available.
        Some("25006" | "55P03") => Kind::Unavailable,
        Some(code) => match code.get(..2) {
            // Connection, refused login, no such database, out of resources, stopped or slow
            // (the statement timeout is 57014), trouble of the operating system.
            Some("08" | "28" | "3D" | "53" | "57" | "58") => Kind::Unavailable,
            _ => Kind::Defect,
        },
        None => Kind::Defect,
    }
}

/// Whether the connection can be used on: the server answered, and goes on after this answer.
pub(super) fn leaves_connection_good(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some() && kind(error) == Kind::Defect
}

pub(super) fn store_error(error: sqlx::Error) -> StoreError {
    match kind(&error) {
        Kind::Repeat | Kind::Unavailable => StoreError::Unavailable(Box::new(error)),
        Kind::NotMigrated => StoreError::NotMigrated(Box::new(error)),
        Kind::Defect => StoreError::Other(Box::new(error)),
    }
}

pub(super) fn migrate_error(error: MigrateError) -> StoreError {
    let unavailable = match &error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            kind(error) == Kind::Unavailable
        }
        _ => false,
    };
    if unavailable {
        StoreError::Unavailable(Box::new(error))
    } else {
        StoreError::Other(Box::new(error))
    }
}
