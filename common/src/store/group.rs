//! Group commit by natural batching: while one group runs, the next one forms.
//!
//! There is no timer. An idle system runs a group of one at once; a busy one finds in its queue
//! what arrived during the last commit, and one commit pays for all of it.

#[cfg(test)]
mod tests;

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::FutureExt as _;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use super::StoreError;
use crate::telemetry::metric;

/// Items that wait for a group. At a few thousand jobs per second this is about a second's worth:
/// beyond it callers do better to hear "later" at once.
const QUEUE_ITEMS: usize = 4096;

/// Why an item has no output.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GroupError {
    /// The store failed. Where it was out of reach, all members of the group share the error; what
    /// it refused it refused for this item alone.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
    /// Too many items wait already: try again later.
    #[error("the store cannot keep up: too many writes are waiting")]
    Full,
    /// [`GroupCommit::close`] was called before.
    #[error("the store is closing")]
    Closed,
}

/// The group did not do what its contract says.
#[derive(Debug, thiserror::Error)]
enum Defect {
    #[error("a group of {items} items answered {outputs} outputs")]
    OutputCount { items: usize, outputs: usize },
    #[error("a group panicked")]
    Panicked,
}

impl From<Defect> for StoreError {
    fn from(defect: Defect) -> Self {
        Self::Other(Box::new(defect))
    }
}

struct Waiting<I, O> {
    item: I,
    reply: oneshot::Sender<Result<O, GroupError>>,
}

/// Runs items in groups, in the order they were added; clones share one queue.
#[derive(Debug)]
pub struct GroupCommit<I, O> {
    queue: mpsc::Sender<Waiting<I, O>>,
    /// The last group succeeded and no other has begun.
    prompt: Arc<AtomicBool>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl<I, O> Clone for GroupCommit<I, O> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            prompt: Arc::clone(&self.prompt),
            closing: self.closing.clone(),
            tasks: self.tasks.clone(),
        }
    }
}

impl<I: Clone + Send + Sync + 'static, O: Send + 'static> GroupCommit<I, O> {
    /// Starts the task that runs groups of 1 to `max_group` items, one group at a time.
    ///
    /// `run` gets items in the order they were added and answers one output for each. An error must
    /// mean that nothing was done: a group that the store refused is run again item by item, so that
    /// one bad item does not fail its neighbours. `kind` is a label of the metric of group sizes.
    pub fn start<F, Fut>(kind: &'static str, max_group: usize, run: F) -> Self
    where
        F: Fn(Arc<[I]>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<O>, StoreError>> + Send + 'static,
    {
        let (queue, waiting) = mpsc::channel(QUEUE_ITEMS);
        let prompt = Arc::new(AtomicBool::new(false));
        let closing = CancellationToken::new();
        let tasks = TaskTracker::new();
        let groups = Groups { kind, max_group: max_group.max(1), run, prompt: Arc::clone(&prompt) };
        tasks.spawn(groups.run_all(waiting, closing.clone()));
        tasks.close();
        Self { queue, prompt, closing, tasks }
    }

    /// Whether an item added now begins at once, with a store that took the last group.
    pub fn is_prompt(&self) -> bool {
        self.prompt.load(Ordering::Relaxed) && self.queue.capacity() == self.queue.max_capacity()
    }

    /// Adds an item to the next group and waits for its output.
    ///
    /// **Cancel safe** as far as the rest is concerned: dropping the future takes the item back
    /// while it waits, but does not undo one that is in a group already, and disturbs no neighbour.
    ///
    /// # Errors
    /// `Store` when the item's group failed, `Full` when too many items wait, `Closed` after
    /// [`Self::close`].
    pub async fn add(&self, item: I) -> Result<O, GroupError> {
        let (reply, output) = oneshot::channel();
        self.queue.try_send(Waiting { item, reply }).map_err(|error| match error {
            TrySendError::Full(_) => GroupError::Full,
            TrySendError::Closed(_) => GroupError::Closed,
        })?;
        // The task answers every item it takes; only a runtime that is shutting down drops one.
        output.await.unwrap_or(Err(GroupError::Closed))
    }

    /// Takes no more items, finishes those that were added and ends the task. May be called again.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.wait().await;
    }
}

/// The task of a [`GroupCommit`].
struct Groups<F> {
    kind: &'static str,
    max_group: usize,
    run: F,
    prompt: Arc<AtomicBool>,
}

impl<F> Groups<F> {
    async fn run_all<I, O, Fut>(
        self,
        mut waiting: mpsc::Receiver<Waiting<I, O>>,
        closing: CancellationToken,
    ) where
        I: Clone,
        F: Fn(Arc<[I]>) -> Fut,
        Fut: Future<Output = Result<Vec<O>, StoreError>>,
    {
        let Self { kind, max_group, run, prompt } = self;
        let mut group = Vec::with_capacity(max_group);
        loop {
            // `recv_many` is cancel safe: when the other arm wins, nothing has been taken.
            let taken = tokio::select! {
                taken = waiting.recv_many(&mut group, max_group) => taken,
                () = closing.cancelled(), if !waiting.is_closed() => {
                    waiting.close();
                    continue;
                }
            };
            if taken == 0 {
                return;
            }
            // Whoever has gone wants no effect: a claim for no one would only have to be rescued.
            let (items, replies): (Vec<I>, Vec<_>) = group
                .drain(..)
                .filter(|waiting| !waiting.reply.is_closed())
                .map(|waiting| (waiting.item, waiting.reply))
                .unzip();
            if items.is_empty() {
                continue;
            }
            #[expect(clippy::cast_precision_loss, reason = "a group is far smaller than 2^52")]
            metrics::histogram!(metric::GROUP_SIZE, "kind" => kind).record(items.len() as f64);
            let items: Arc<[I]> = items.into();
            prompt.store(false, Ordering::Relaxed);
            match run_one(&run, Arc::clone(&items)).await {
                Err(error) if items.len() > 1 && is_refusal(&error) => {
                    warn!(kind, n_items = items.len(), "the store refused a group; one by one now");
                    run_each(&run, &items, replies).await;
                }
                outputs => {
                    prompt.store(outputs.is_ok(), Ordering::Relaxed);
                    answer(replies, outputs);
                }
            }
        }
    }
}

/// Whether the store answered, so that the fault is in an item (or in `run`).
fn is_refusal(error: &StoreError) -> bool {
    match error {
        StoreError::Other(_) | StoreError::Corrupt { .. } => true,
        StoreError::Unavailable(_) | StoreError::NotMigrated(_) => false,
    }
}

/// Runs each item by itself. Once the store is out of reach, the rest share that error: each would
/// only wait for its own.
async fn run_each<I, O, F, Fut>(
    run: &F,
    items: &[I],
    replies: Vec<oneshot::Sender<Result<O, GroupError>>>,
) where
    I: Clone,
    F: Fn(Arc<[I]>) -> Fut,
    Fut: Future<Output = Result<Vec<O>, StoreError>>,
{
    let mut replies = replies.into_iter();
    for item in items {
        let outputs = run_one(run, Arc::new([item.clone()])).await;
        let out_of_reach = outputs.as_ref().is_err_and(|error| !is_refusal(error));
        let answered = if out_of_reach { items.len() } else { 1 };
        answer(replies.by_ref().take(answered).collect(), outputs);
        if out_of_reach {
            return;
        }
    }
}

/// Runs one group; a panic or a wrong number of outputs becomes its error.
async fn run_one<I, O, F, Fut>(run: &F, items: Arc<[I]>) -> Result<Vec<O>, StoreError>
where
    F: Fn(Arc<[I]>) -> Fut,
    Fut: Future<Output = Result<Vec<O>, StoreError>>,
{
    let n_items = items.len();
    // Safe to go on after a panic: nothing but `run` itself is shared with the next group, and the
    // stores hold no state that a panic could leave half changed.
    let caught = AssertUnwindSafe(async { run(items).await }).catch_unwind().await;
    let outputs = caught.map_err(|_| StoreError::from(Defect::Panicked))??;
    if outputs.len() == n_items {
        Ok(outputs)
    } else {
        Err(Defect::OutputCount { items: n_items, outputs: outputs.len() }.into())
    }
}

fn answer<O>(
    replies: Vec<oneshot::Sender<Result<O, GroupError>>>,
    outputs: Result<Vec<O>, StoreError>,
) {
    // A reply that cannot be sent belongs to a caller that has gone.
    match outputs {
        Ok(outputs) => {
            for (reply, output) in replies.into_iter().zip(outputs) {
                drop(reply.send(Ok(output)));
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            for reply in replies {
                drop(reply.send(Err(GroupError::Store(Arc::clone(&error)))));
            }
        }
    }
}
