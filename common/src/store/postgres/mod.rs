//! Jobs in Postgres (15 or newer): for many processes on many machines.
//!
//! Submit, claim and finish are one statement each, over arrays, committed by itself: one round
//! trip and one flush of the log for a whole group.
//!
//! Planning such a statement costs more than running it, so sessions keep the first plan (see
//! `SESSION`). It may have been made when the tables were empty, and must still be good when they
//! hold millions of rows, so statements leave the planner no choice but to look rows up:
//! - a table is joined with `id = ANY (ARRAY[other.id])`, never `id = other.id`, which would let it
//!   walk the whole index instead;
//! - where rows go by id, `status || ''` hides the status, which would let it walk a partial index
//!   of all unfinished jobs.
//!
//! **Invariant:** rows of `jobs` are locked in the order of their ids, or skipped when locked, so
//! that no two statements wait for each other. Where Postgres finds a deadlock all the same, the
//! statement is run again.

mod accounts;
mod claims;
mod connection;
mod credentials;
mod defer;
mod deliveries;
mod error;
mod finish;
mod instances;
mod jobs;
mod models;
mod serving;
mod streams;
mod submit;
mod sweep;
#[cfg(all(test, feature = "servers"))]
mod tests;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use secrecy::ExposeSecret as _;
use sqlx::{
    ConnectOptions as _, Connection as _, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use self::{
    connection::AtHand,
    error::{connect_error, migrate_error, store_error},
};
use super::{Store, StoreError};
use crate::config::DatabaseConfig;

static MIGRATOR: Migrator = sqlx::migrate!("../migrations/postgres");

/// Settings of every session.
const SESSION: &[(&str, &str)] = &[
    // Accepted means durable, whatever the server's default is.
    ("synchronous_commit", "on"),
    ("timezone", "UTC"),
    // No statement takes longer; a caller learns that something is wrong instead of waiting.
    ("statement_timeout", "15s"),
    ("idle_in_transaction_session_timeout", "20s"),
    // The server drops a client that vanished, and with it the locks it held.
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    // One plan for good, which looks rows up one after another; see the head of this file.
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];

/// A little more than `statement_timeout`: what ends a call when the server does not answer at all.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Bounds a migration, the wait for other processes that migrate included.
const MIGRATE_TIMEOUT: Duration = Duration::from_mins(10);

/// A connection that rested longer is tried before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// The store in Postgres.
#[derive(Clone)]
pub struct PostgresStore {
    pool: PgPool,
    at_hand: Arc<AtHand>,
    options: PgConnectOptions,
    /// Whether the last that was heard of the server is that it could not be reached. Set at
    /// first, so that a process that starts without one is told so at once.
    down: Arc<AtomicBool>,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresStore({})", self.address())
    }
}

impl PostgresStore {
    /// Makes a store that connects when it is first used, so a process can start before its
    /// database. Call it inside the runtime.
    ///
    /// # Errors
    /// `Other` if the URL cannot be read.
    pub fn connect(config: &DatabaseConfig) -> Result<Self, StoreError> {
        let options: PgConnectOptions = config
            .url
            .expose_secret()
            .parse()
            .map_err(|error| StoreError::Other(Box::new(error)))?;
        let options = options
            .application_name("inferq")
            .options(SESSION.iter().copied())
            .disable_statement_logging();
        let down = Arc::new(AtomicBool::new(true));
        let was_down = Arc::clone(&down);
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(Duration::from_millis(config.acquire_timeout_ms))
            // A round trip before each statement would be the dearest part of it.
            .test_before_acquire(false)
            .before_acquire(move |connection, meta| {
                let trusted = meta.idle_for < TRUSTED_IDLE && !was_down.load(Ordering::Relaxed);
                Box::pin(async move {
                    if !trusted {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options.clone());
        Ok(Self { pool, at_hand: Arc::default(), options, down })
    }

    /// `host:port`, for people.
    fn address(&self) -> String {
        format!("{}:{}", self.options.get_host(), self.options.get_port())
    }

    async fn apply_migrations(&self) -> Result<(), StoreError> {
        self.probe().await.map_err(store_error)?;
        // A connection of its own, closed afterwards: sqlx keeps its lock when a migration fails.
        // And no statement timeout: waiting for another process is one long statement.
        let options = self.options.clone().options([("statement_timeout", "0")]);
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(self.pool.options().get_acquire_timeout())
            .connect_with(options)
            .await
            .map_err(|error| store_error(connect_error(error)))?;
        let mut migrator = Migrator::with_migrations(MIGRATOR.iter().cloned().collect());
        // A newer release may have been here: its schema serves this one too.
        migrator.set_ignore_missing(true);
        let migrated = migrator.run(&pool).await.map_err(migrate_error);
        pool.close().await;
        migrated
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.run(|lent| Box::pin(async { lent.connection().ping().await })).await
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let migrated = tokio::time::timeout(MIGRATE_TIMEOUT, self.apply_migrations()).await;
        migrated.map_err(|late| StoreError::Unavailable(Box::new(late)))?
    }

    async fn check_migrated(&self) -> Result<(), StoreError> {
        let applied: Vec<(i64, Vec<u8>)> = self
            .run(|lent| {
                let query = "SELECT version, checksum FROM _sqlx_migrations WHERE success";
                Box::pin(sqlx::query_as(query).fetch_all(lent.connection()))
            })
            .await?;
        for wanted in MIGRATOR.iter() {
            let found = applied.iter().find(|(version, _)| *version == wanted.version);
            let problem = match found {
                None => "is not applied",
                Some((_, checksum)) if checksum[..] != wanted.checksum[..] => "is another one",
                Some(_) => continue,
            };
            let message = format!("migration {} {problem}", wanted.version);
            return Err(StoreError::NotMigrated(message.into()));
        }
        Ok(())
    }

    async fn close(&self) {
        // The pool waits for all of its connections.
        let closing = self.pool.close();
        self.at_hand.close();
        closing.await;
    }
}
