//! How a statement gets a connection, and what is done when it fails.

use std::{
    io,
    marker::PhantomData,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use sqlx::{PgConnection, Postgres, pool::PoolConnection};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    CALL_TIMEOUT, PostgresStore, TRUSTED_IDLE,
    error::{Kind, NoServer, connect_error, kind, leaves_connection_good, store_error},
};
use crate::store::StoreError;

/// How often a statement is repeated that lost to another one.
const MAX_REPEATS: u32 = 4;

/// Bounds the look whether anything listens at the server's address.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections kept at hand: one for each kind of group and for what runs beside them.
const MAX_AT_HAND: usize = 6;

/// A connection goes back to the pool after this time, which closes those that are too old.
const KEPT_FOR: Duration = Duration::from_mins(5);

/// Connections in use a moment ago, the latest first to be used again.
///
/// The pool makes a round trip each time it takes one back, and hands out the one that rested
/// longest: every statement would pay for two, on a process of the server that has last run
/// something else.
#[derive(Debug, Default)]
pub(super) struct AtHand {
    kept: Mutex<Vec<Kept>>,
    /// Who waits for the pool: while anyone does, nothing is kept from it. One who waits for ever,
    /// once the store is closed.
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct Kept {
    connection: PoolConnection<Postgres>,
    /// When it came from the pool.
    since: Instant,
    used_at: Instant,
}

impl AtHand {
    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().expect("no one panics while holding the connections")
    }

    fn take(&self) -> Option<Kept> {
        let kept = self.kept().pop()?;
        if kept.used_at.elapsed() < TRUSTED_IDLE {
            return Some(kept);
        }
        // All that are left have rested longer still.
        self.clear();
        None
    }

    /// Keeps a connection, or gives it back to the pool.
    fn put(&self, connection: PoolConnection<Postgres>, since: Instant) {
        let used_at = Instant::now();
        let mut kept = self.kept();
        let wanted = self.waiting.load(Ordering::Relaxed) > 0;
        if !wanted && kept.len() < MAX_AT_HAND && used_at.duration_since(since) < KEPT_FOR {
            kept.push(Kept { connection, since, used_at });
        }
    }

    /// Gives all connections back to the pool.
    fn clear(&self) {
        drop(std::mem::take(&mut *self.kept()));
    }

    /// Gives all connections back to the pool, those too that come later.
    pub(super) fn close(&self) {
        std::mem::forget(self.wait());
    }

    /// Counts one who waits for the pool, until the answer is dropped.
    fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // What was put back before the count was seen must not be missed.
        self.clear();
        Waiting(self)
    }
}

impl Drop for AtHand {
    fn drop(&mut self) {
        // Closed here and now: the pool would want a task for it, and its runtime may have ended.
        for kept in std::mem::take(&mut *self.kept()) {
            drop(kept.connection.leak());
        }
    }
}

struct Waiting<'a>(&'a AtHand);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection lent to one step. Unless the step came to its end, it is closed, not reused: what
/// comes next on it may be the answer to a question nobody waits for any more.
///
/// `'a` is what the step may borrow from its caller.
pub(super) struct Lent<'a> {
    /// Taken only when this is dropped.
    connection: Option<PoolConnection<Postgres>>,
    since: Instant,
    at_hand: Arc<AtHand>,
    reusable: bool,
    borrows: PhantomData<&'a ()>,
}

impl Lent<'_> {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("it is taken only when this is dropped")
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if self.reusable {
            self.at_hand.put(connection, self.since);
        } else {
            connection.close_on_drop();
        }
    }
}

impl PostgresStore {
    /// Runs one step: a statement, or a transaction. It must be repeatable as a whole.
    pub(super) async fn run<'a, T, F>(&self, step: F) -> Result<T, StoreError>
    where
        F: for<'c> Fn(&'c mut Lent<'a>) -> BoxFuture<'c, Result<T, sqlx::Error>>,
    {
        let mut repeats = 0;
        loop {
            let error = match self.run_once(&step).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if kind(&error) != Kind::Repeat || repeats == MAX_REPEATS {
                return Err(store_error(error));
            }
            repeats += 1;
            tracing::debug!(error = %error, repeats, "statement is repeated");
        }
    }

    async fn run_once<'a, T, F>(&self, step: &F) -> Result<T, sqlx::Error>
    where
        F: for<'c> Fn(&'c mut Lent<'a>) -> BoxFuture<'c, Result<T, sqlx::Error>>,
    {
        let mut lent = self.lend().await?;
        let done = match timeout(CALL_TIMEOUT, step(&mut lent)).await {
            Ok(done) => done,
            Err(late) => Err(io::Error::new(io::ErrorKind::TimedOut, late).into()),
        };
        lent.reusable = match &done {
            Ok(_) => true,
            Err(error) => leaves_connection_good(error),
        };
        if matches!(done, Err(sqlx::Error::Io(_))) {
            self.down.store(true, Ordering::Relaxed);
        }
        done
    }

    async fn lend<'a>(&self) -> Result<Lent<'a>, sqlx::Error> {
        if !self.down.load(Ordering::Relaxed)
            && let Some(Kept { connection, since, .. }) = self.at_hand.take()
        {
            return Ok(self.lent(connection, since));
        }
        // Boxed, because the making of a connection is a large future, and it is seldom needed:
        // within the future of each statement it would be allocated and moved with every one.
        Box::pin(self.lend_from_pool()).await
    }

    async fn lend_from_pool<'a>(&self) -> Result<Lent<'a>, sqlx::Error> {
        // The pool tries a server that refuses it until its own timeout; while we know of an
        // outage, callers should not wait that long.
        if self.down.load(Ordering::Relaxed) {
            self.at_hand.clear();
            self.probe().await?;
        }
        let waiting = self.at_hand.wait();
        let acquired = self.pool.acquire().await;
        drop(waiting);
        match acquired {
            Ok(connection) => {
                self.down.store(false, Ordering::Relaxed);
                Ok(self.lent(connection, Instant::now()))
            }
            Err(error) => {
                // The pool's timeout does not say why.
                self.probe().await.inspect_err(|_| self.down.store(true, Ordering::Relaxed))?;
                Err(connect_error(error))
            }
        }
    }

    fn lent<'a>(&self, connection: PoolConnection<Postgres>, since: Instant) -> Lent<'a> {
        let at_hand = Arc::clone(&self.at_hand);
        let connection = Some(connection);
        Lent { connection, since, at_hand, reusable: false, borrows: PhantomData }
    }

    /// Whether anything listens at the server's address.
    pub(super) async fn probe(&self) -> Result<(), sqlx::Error> {
        let host = self.options.get_host();
        if self.options.get_socket().is_some() || host.starts_with('/') {
            return Ok(());
        }
        let connect = TcpStream::connect((host, self.options.get_port()));
        let source = match timeout(PROBE_TIMEOUT, connect).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error,
            Err(late) => io::Error::new(io::ErrorKind::TimedOut, late),
        };
        Err(NoServer { address: self.address(), source }.into())
    }
}
