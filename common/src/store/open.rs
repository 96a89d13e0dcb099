use std::sync::Arc;

use super::{SharedStore, StoreError, postgres::PostgresStore, sqlite::SqliteStore};
use crate::config::DatabaseConfig;

/// Makes the store the URL names. Call it inside the runtime.
///
/// A Postgres need not be there yet: the store connects when it is first used.
///
/// # Errors
/// `Other` if the URL cannot be read, `Unavailable` if a SQLite file's folder cannot be made.
pub fn open(config: &DatabaseConfig) -> Result<SharedStore, StoreError> {
    if config.is_sqlite() {
        Ok(Arc::new(SqliteStore::open(config)?))
    } else {
        Ok(Arc::new(PostgresStore::connect(config)?))
    }
}
