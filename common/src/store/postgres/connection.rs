//! How a statement gets a connection, and what is done when it fails.

use std::{io, marker::PhantomData, sync::atomic::Ordering, time::Duration};

use futures::future::BoxFuture;
use sqlx::{PgConnection, Postgres, pool::PoolConnection};
use tokio::{net::TcpStream, time::timeout};

use super::{
    CALL_TIMEOUT, PostgresStore,
    error::{Kind, NoServer, kind, leaves_connection_good, store_error},
};
use crate::store::StoreError;

/// How often a statement is repeated that lost to another one.
const MAX_REPEATS: u32 = 4;

/// Bounds the look whether anything listens at the server's address.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection lent to one step. Unless the step came to its end, it is closed, not reused: what
/// comes next on it may be the answer to a question nobody waits for any more.
///
/// `'a` is what the step may borrow from its caller.
pub(super) struct Lent<'a> {
    connection: PoolConnection<Postgres>,
    reusable: bool,
    borrows: PhantomData<&'a ()>,
}

impl Lent<'_> {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if !self.reusable {
            self.connection.close_on_drop();
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
        // The pool tries a server that refuses it until its own timeout; while we know of an
        // outage, callers should not wait that long.
        if self.down.load(Ordering::Relaxed) {
            self.probe().await?;
        }
        match self.pool.acquire().await {
            Ok(connection) => {
                self.down.store(false, Ordering::Relaxed);
                Ok(Lent { connection, reusable: false, borrows: PhantomData })
            }
            Err(error) => {
                // The pool's timeout does not say why.
                self.probe().await.inspect_err(|_| self.down.store(true, Ordering::Relaxed))?;
                Err(error)
            }
        }
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
