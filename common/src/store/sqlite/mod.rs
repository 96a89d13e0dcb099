//! The store in one SQLite file: for `inferq dev`, where one process owns it, and for the command
//! line beside it.
//!
//! WAL with `synchronous=FULL`: a commit is on the disk before it is answered. Writes go one at a
//! time, each in `BEGIN IMMEDIATE`, so that a write never finds its reads stale; another process
//! waits its turn. Jobs and instances are written by the thread of `writer`, what is written
//! seldom through a connection of its own.

mod accounts;
mod credentials;
mod defer;
mod deliveries;
mod ending;
mod error;
mod instances;
mod jobs;
mod models;
mod run;
mod serving;
mod streams;
mod submit;
mod sweep;
mod values;
mod writer;

use std::{
    fs::File,
    ops::{Deref, DerefMut},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    str::FromStr as _,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use secrecy::ExposeSecret as _;
use sqlx::{
    Connection as _, SqliteConnection, SqlitePool, Transaction,
    migrate::{MigrateError, Migrator},
    sqlite::{
        Sqlite, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
    },
};

use self::{
    error::in_table,
    writer::{Opening, Turn, Writer},
};
use super::{Store, StoreError};
use crate::{
    clock::{Clock, SystemClock},
    config::DatabaseConfig,
};

/// Newer migrations may be there already: a release runs on the schema of the next one.
const MIGRATIONS: Migrator =
    Migrator { ignore_missing: true, ..sqlx::migrate!("../migrations/sqlite") };

/// Reads are short and two cores are few; more readers would only wait for each other.
const READERS: u32 = 3;

/// KiB each connection keeps of the file. The system keeps it too and hands a page over for a
/// microsecond, so that these are for what every statement touches.
const WRITER_CACHE: u32 = 4096;
const READER_CACHE: u32 = 1024;
const SELDOM_CACHE: u32 = 256;

/// A checkpoint stalls the writer, so it is rare; the log then keeps to 64 MiB.
const CHECKPOINT_PAGES: &str = "4000";
const LOG_BYTES: &str = "67108864";

/// Rows that may wait between SQLite's thread and ours: a whole group, so that neither waits.
const ROW_BUFFER: usize = 512;

/// The store in one SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    /// Writes jobs and instances.
    writer: Writer,
    /// One connection, for what is written seldom.
    seldom: SqlitePool,
    /// A few, that cannot write.
    readers: SqlitePool,
    /// The store's clock; all processes that share the file share the machine.
    clock: Arc<dyn Clock>,
}

impl SqliteStore {
    /// Opens the file, which is made if it is not there, with its folder. Call within a runtime.
    ///
    /// # Errors
    /// `Unavailable` when the folder cannot be made, `Other` when the URL names no file. A file
    /// that cannot be opened shows at the first statement.
    pub fn open(config: &DatabaseConfig) -> Result<Self, StoreError> {
        Self::open_with_clock(config, Arc::new(SystemClock))
    }

    /// As [`Self::open`], with heartbeats judged by `clock`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_clock(
        config: &DatabaseConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let url = config.url.expose_secret();
        if url.contains(":memory:") || url.contains("mode=memory") {
            // Every connection would have a database of its own.
            return Err(StoreError::Other("a SQLite store needs a file".into()));
        }
        let options = SqliteConnectOptions::from_str(url).map_err(in_table("sqlite_master"))?;
        let file = options.get_filename();
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|error| StoreError::Unavailable(error.into()))?;
        }
        make_private(file);
        let wait = Duration::from_millis(config.acquire_timeout_ms);
        let options = options
            .create_if_missing(true)
            // While another process writes.
            .busy_timeout(wait)
            .row_buffer_size(ROW_BUFFER)
            .pragma("temp_store", "memory");
        let seldom = options
            .clone()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .pragma("journal_size_limit", LOG_BYTES)
            .pragma("cache_size", format!("-{SELDOM_CACHE}"));
        let readers = options
            .clone()
            .pragma("query_only", "on")
            .pragma("cache_size", format!("-{READER_CACHE}"));
        let writer = Writer::start(Opening {
            file: options.get_filename().to_owned(),
            wait,
            pragmas: format!(
                "PRAGMA journal_mode = WAL;
                 PRAGMA synchronous = FULL;
                 PRAGMA foreign_keys = ON;
                 PRAGMA temp_store = MEMORY;
                 PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};
                 PRAGMA journal_size_limit = {LOG_BYTES};
                 PRAGMA cache_size = -{WRITER_CACHE};"
            ),
        })?;
        Ok(Self {
            writer,
            seldom: pool(1, wait).connect_lazy_with(seldom),
            readers: pool(READERS, wait).connect_lazy_with(readers),
            clock,
        })
    }

    /// Begins a transaction that may write, and with it the right to.
    ///
    /// Dropping it rolls it back.
    async fn write(&self) -> Result<Writing, StoreError> {
        let turn = self.writer.turn().await?;
        // IMMEDIATE: as the writer does.
        let tx = self.seldom.begin_with("BEGIN IMMEDIATE").await;
        Ok(Writing { tx: tx.map_err(in_table("sqlite_master"))?, _turn: turn })
    }
}

/// A transaction of the seldom writes.
struct Writing {
    tx: Transaction<'static, Sqlite>,
    /// Given back after the transaction: fields are dropped in their order.
    _turn: Turn,
}

impl Deref for Writing {
    type Target = SqliteConnection;

    fn deref(&self) -> &Self::Target {
        &self.tx
    }
}

impl DerefMut for Writing {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.tx
    }
}

/// Makes the file where there is none, for its owner alone: it holds what clients sent. SQLite gives
/// its log the same mode. A file that cannot be made shows when SQLite opens it.
fn make_private(file: &Path) {
    let _ = File::options().append(true).create(true).mode(0o600).open(file);
}

fn pool(connections: u32, wait: Duration) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(wait)
        .idle_timeout(None)
        .max_lifetime(None)
        // A file does not hang up.
        .test_before_acquire(false)
        // Where the disk is full or fails, SQLite rolls back by itself. sqlx goes on counting that
        // transaction, and would refuse every later one on the connection.
        .before_acquire(|connection, _| {
            Box::pin(async move { Ok(!connection.is_in_transaction()) })
        })
}

async fn commit(writing: Writing) -> Result<(), StoreError> {
    writing.tx.commit().await.map_err(in_table("sqlite_master"))
}

#[async_trait]
impl Store for SqliteStore {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT count(*) FROM sqlite_master")
            .execute(&self.readers)
            .await
            .map_err(in_table("sqlite_master"))?;
        Ok(())
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        // One transaction around all: a second process waits for it and then finds nothing to do.
        // `run_direct`, because `run` does not compile within an async trait: the compiler finds
        // its `Acquire` not general enough.
        let mut tx = self.write().await?;
        MIGRATIONS.run_direct(None, &mut *tx, false).await.map_err(|error| match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                in_table("_sqlx_migrations")(error)
            }
            other => StoreError::NotMigrated(other.into()),
        })?;
        commit(tx).await
    }

    async fn check_migrated(&self) -> Result<(), StoreError> {
        let applied: Vec<(i64, Vec<u8>)> =
            sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success")
                .fetch_all(&self.readers)
                .await
                .map_err(in_table("_sqlx_migrations"))?;
        for migration in MIGRATIONS.iter() {
            let known = applied.iter().any(|(version, checksum)| {
                *version == migration.version && *checksum == *migration.checksum
            });
            if !known {
                let missing = MigrateError::VersionNotPresent(migration.version);
                return Err(StoreError::NotMigrated(missing.into()));
            }
        }
        Ok(())
    }

    async fn close(&self) {
        self.readers.close().await;
        self.seldom.close().await;
        self.writer.close().await;
    }
}

#[cfg(test)]
mod tests;
