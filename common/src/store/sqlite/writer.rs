//! The one thread that writes jobs: a whole transaction is one message to it and one answer.
//!
//! Through sqlx each statement is a message to SQLite's thread and an answer, and a processor that
//! wakes up for each; that costs more than the statements do (one job at a time took 1.7 ms so and
//! takes 0.9 ms now). So the moves of a job's life run as closures on a connection of rusqlite.
//! Both libraries are linked to the same SQLite, which must be so: two copies of it in one process
//! would not see each other's locks on the file (<https://www.sqlite.org/howtocorrupt.html>, 2.2.1).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use rusqlite::{
    Connection, OpenFlags, OptionalExtension as _, Params, Row, Transaction, TransactionBehavior,
};
use tokio::{
    sync::{Mutex, OwnedMutexGuard, mpsc, oneshot},
    time::timeout,
};

use super::error::writing;
use crate::store::StoreError;

/// Statements kept prepared: all of the moves.
const STATEMENTS: usize = 64;

/// What must have happened before a write is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// It is on the disk, with all that was written before it.
    Disk,
    /// The system has it, so the end of this process loses nothing. A loss of power may forget it,
    /// and only together with all that came after it.
    System,
}

/// How the writer opens its file.
#[derive(Debug, Clone)]
pub(super) struct Opening {
    pub(super) file: PathBuf,
    /// How long to wait while another process writes.
    pub(super) wait: Duration,
    /// Run on the new connection.
    pub(super) pragmas: String,
}

type Work = Box<dyn FnOnce(&mut Slot) + Send>;

enum Task {
    Write(Work),
    Close(oneshot::Sender<()>),
}

/// Writes transactions, one after the other; clones share the thread.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    tasks: mpsc::Sender<Task>,
    turn: Arc<Mutex<()>>,
    wait: Duration,
}

/// The right to write within this process. SQLite would let a second connection of ours wait too,
/// but in steps of milliseconds.
pub(super) type Turn = OwnedMutexGuard<()>;

impl Writer {
    /// Starts the thread. The file is opened by the first write, and again after one that failed.
    ///
    /// # Errors
    /// `Unavailable` when there can be no further thread.
    pub(super) fn start(opening: Opening) -> Result<Self, StoreError> {
        // Whoever sends holds the turn, so there is never a second task.
        let (tasks, queue) = mpsc::channel(1);
        let wait = opening.wait;
        thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || run(queue, Slot { opening, connection: None }))
            .map_err(|error| StoreError::Unavailable(error.into()))?;
        Ok(Self { tasks, turn: Arc::default(), wait })
    }

    /// Waits until nobody else in this process writes.
    pub(super) async fn turn(&self) -> Result<Turn, StoreError> {
        timeout(self.wait, Arc::clone(&self.turn).lock_owned())
            .await
            .map_err(|_| StoreError::Unavailable("other writes took too long".into()))
    }

    /// Runs `work` in a transaction of its own, which is committed if it succeeds.
    ///
    /// Once begun it is done even if the future is dropped.
    ///
    /// # Errors
    /// Those of `work`, and of beginning and committing; nothing is written then.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        durability: Durability,
        work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = self.turn().await?;
        let (reply, answer) = oneshot::channel();
        let task = Task::Write(Box::new(move |slot| {
            let written = catch_unwind(AssertUnwindSafe(|| slot.write(durability, work)));
            slot.check();
            drop(turn);
            let panicked = |_| Err(StoreError::Other("a write panicked".into()));
            // A caller that has gone needs no answer.
            drop(reply.send(written.unwrap_or_else(panicked)));
        }));
        let closed = || StoreError::Unavailable("the store is closed".into());
        self.tasks.send(task).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Ends the thread after what it has in hand. May be called again.
    pub(super) async fn close(&self) {
        let (closed, done) = oneshot::channel();
        if self.tasks.send(Task::Close(closed)).await.is_ok() {
            // It ends also where it cannot say so.
            drop(done.await);
        }
    }
}

fn run(mut queue: mpsc::Receiver<Task>, mut slot: Slot) {
    while let Some(task) = queue.blocking_recv() {
        match task {
            Task::Write(work) => work(&mut slot),
            Task::Close(closed) => {
                drop(slot);
                drop(queue);
                // Who asked may have gone.
                let _ = closed.send(());
                return;
            }
        }
    }
}

/// A transaction that may write. Statements are literals and stay prepared; each names its table,
/// for the errors.
pub(super) struct Tx<'a>(Transaction<'a>);

impl Tx<'_> {
    /// Runs a statement; answers how many rows it changed.
    pub(super) fn execute(
        &self,
        table: &'static str,
        statement: &'static str,
        values: impl Params,
    ) -> Result<usize, StoreError> {
        self.0
            .prepare_cached(statement)
            .and_then(|mut prepared| prepared.execute(values))
            .map_err(writing(table))
    }

    /// The only row, if there is one.
    pub(super) fn optional<T>(
        &self,
        table: &'static str,
        statement: &'static str,
        values: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        self.0
            .prepare_cached(statement)
            .and_then(|mut prepared| prepared.query_row(values, read).optional())
            .map_err(writing(table))
    }

    /// All rows.
    pub(super) fn all<T>(
        &self,
        table: &'static str,
        statement: &'static str,
        values: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        self.0
            .prepare_cached(statement)
            .and_then(|mut prepared| prepared.query_map(values, read)?.collect())
            .map_err(writing(table))
    }
}

/// The connection, while there is one.
struct Slot {
    opening: Opening,
    connection: Option<(Connection, Durability)>,
}

impl Slot {
    fn write<T>(
        &mut self,
        durability: Durability,
        work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let in_file = writing("sqlite_master");
        let (connection, set) = match self.connection.take() {
            Some(open) => self.connection.insert(open),
            None => self.connection.insert((open(&self.opening)?, Durability::Disk)),
        };
        if *set != durability {
            let statement = match durability {
                Durability::Disk => "PRAGMA synchronous = FULL",
                Durability::System => "PRAGMA synchronous = NORMAL",
            };
            connection
                .prepare_cached(statement)
                .and_then(|mut it| it.execute([]))
                .map_err(&in_file)?;
            *set = durability;
        }
        // IMMEDIATE: a deferred one that read before it writes fails at once when another process
        // has written in between, and no busy timeout helps.
        let tx = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(&in_file)?;
        let tx = Tx(tx);
        let written = work(&tx)?;
        tx.0.commit().map_err(&in_file)?;
        Ok(written)
    }

    /// Lets go of a connection whose transaction could not be ended.
    fn check(&mut self) {
        self.connection.take_if(|(connection, _)| !connection.is_autocommit());
    }
}

fn open(opening: &Opening) -> Result<Connection, StoreError> {
    let in_file = writing("sqlite_master");
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&opening.file, flags).map_err(&in_file)?;
    connection.busy_timeout(opening.wait).map_err(&in_file)?;
    connection.execute_batch(&opening.pragmas).map_err(&in_file)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}
