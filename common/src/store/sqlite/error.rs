//! What SQLite's errors mean to callers.

use crate::store::StoreError;

/// Primary result codes of <https://www.sqlite.org/rescode.html> that another try may survive.
const UNAVAILABLE: [i32; 8] = [
    5,  // BUSY: another process writes
    6,  // LOCKED
    7,  // NOMEM
    8,  // READONLY: the file system went read-only
    10, // IOERR
    13, // FULL: no disk left
    14, // CANTOPEN
    15, // PROTOCOL: lost the race for the log's lock too often
];

/// Columns a decoding error may name; sqlx tells the name as an owned text.
const COLUMNS: &[&str] = &[
    "account_id",
    "api_key_id",
    "args",
    "attempt",
    "created_at",
    "credential_id",
    "delivery_id",
    "envelope",
    "error",
    "expires_at",
    "finished_at",
    "fingerprint",
    "hash",
    "instance_id",
    "job_id",
    "model_id",
    "model_server_id",
    "next_attempt_at",
    "number",
    "reply_to",
    "response",
    "retry_of",
    "run_at",
    "started_at",
    "status",
    "usage",
];

/// Says what an error of a statement about `table` means.
pub(super) fn in_table(table: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| match error {
        sqlx::Error::ColumnDecode { index, source } => {
            let name = index.trim_matches('"');
            let column = COLUMNS.iter().find(|column| **column == name).unwrap_or(&"?");
            StoreError::Corrupt { table, column, source }
        }
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Io(_) => StoreError::Unavailable(error.into()),
        sqlx::Error::Database(ref refusal) => {
            let code = refusal.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or(0);
            let missing = is_missing(refusal.message());
            refused(code, missing, error.into())
        }
        other => StoreError::Other(other.into()),
    }
}

/// As [`in_table`], for a statement of the writer.
pub(super) fn writing(table: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    use rusqlite::Error;
    move |error| match error {
        Error::InvalidColumnType(_, ref name, _) => {
            let column = COLUMNS.iter().find(|column| *column == name).unwrap_or(&"?");
            StoreError::Corrupt { table, column, source: error.into() }
        }
        // A value of the right type that is none of ours, such as an id of one byte.
        Error::FromSqlConversionFailure(..) => {
            StoreError::Corrupt { table, column: "?", source: error.into() }
        }
        Error::SqliteFailure(failure, ref message) => {
            let missing = message.as_deref().is_some_and(is_missing);
            refused(failure.extended_code, missing, error.into())
        }
        other => StoreError::Other(other.into()),
    }
}

/// What a refusal of SQLite means.
fn refused(
    code: i32,
    missing: bool,
    error: Box<dyn std::error::Error + Send + Sync>,
) -> StoreError {
    if UNAVAILABLE.contains(&(code & 0xff)) {
        StoreError::Unavailable(error)
    } else if missing {
        StoreError::NotMigrated(error)
    } else {
        StoreError::Other(error)
    }
}

/// SQLite has no code of its own for a missing table or column, only the general one and a text,
/// which has not changed since its first release.
fn is_missing(message: &str) -> bool {
    ["no such table", "no such column", "has no column named"]
        .iter()
        .any(|words| message.contains(words))
}
