//! Group commit by natural batching: while one group runs, the next one forms.
//!
//! There is no timer. An idle system runs a group of one at once; a busy one finds in its queue
//! what arrived during the last commit, and one commit pays for all of it.

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

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use futures::future::{join_all, poll_immediate};
    use tokio::sync::Semaphore;

    use super::*;

    /// Doubles numbers, group by group, each group waiting for a permit of `gate`.
    struct Doubler {
        group: GroupCommit<u32, u32>,
        gate: Arc<Semaphore>,
        groups: Arc<Mutex<Vec<Vec<u32>>>>,
    }

    fn doubler(permits: usize, max_group: usize) -> Doubler {
        let gate = Arc::new(Semaphore::new(permits));
        let groups = Arc::new(Mutex::new(Vec::new()));
        let (inner_gate, inner_groups) = (Arc::clone(&gate), Arc::clone(&groups));
        let group = GroupCommit::start("test", max_group, move |items: Arc<[u32]>| {
            inner_groups.lock().unwrap().push(items.to_vec());
            let gate = Arc::clone(&inner_gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(items.iter().map(|item| item * 2).collect())
            }
        });
        Doubler { group, gate, groups }
    }

    impl Doubler {
        /// Waits until `n` groups have begun.
        async fn begun(&self, n: usize) {
            while self.groups.lock().unwrap().len() < n {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn each_caller_gets_its_own_output_in_the_order_of_adding() {
        let doubler = doubler(Semaphore::MAX_PERMITS, 7);
        let outputs = join_all((0..100).map(|n| doubler.group.add(n))).await;
        let outputs: Vec<u32> = outputs.into_iter().map(Result::unwrap).collect();
        assert_eq!(outputs, (0..100).map(|n| n * 2).collect::<Vec<_>>());
        let groups = doubler.groups.lock().unwrap();
        assert_eq!(groups.concat(), (0..100).collect::<Vec<_>>());
        assert!(groups.iter().all(|group| group.len() <= 7));
    }

    #[tokio::test]
    async fn the_next_group_forms_while_one_runs() {
        let doubler = doubler(0, 100);
        let mut first = Box::pin(doubler.group.add(0));
        assert!(poll_immediate(&mut first).await.is_none());
        doubler.begun(1).await;
        let mut rest = Box::pin(join_all((1..=50).map(|n| doubler.group.add(n))));
        assert!(poll_immediate(&mut rest).await.is_none());
        doubler.gate.add_permits(2);
        first.await.unwrap();
        rest.await;
        let sizes: Vec<_> = doubler.groups.lock().unwrap().iter().map(Vec::len).collect();
        assert_eq!(sizes, [1, 50]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_system_adds_no_delay() {
        let doubler = doubler(Semaphore::MAX_PERMITS, 100);
        let before = tokio::time::Instant::now();
        for n in 0..20 {
            doubler.group.add(n).await.unwrap();
        }
        // Under paused time any timer at all would have moved the clock.
        assert_eq!(before.elapsed(), std::time::Duration::ZERO);
        assert_eq!(doubler.groups.lock().unwrap().len(), 20);
    }

    #[tokio::test]
    async fn it_is_prompt_while_nothing_runs_and_the_last_group_succeeded() {
        let group = GroupCommit::start("test", 2, |items: Arc<[u32]>| async move {
            if items.contains(&3) {
                return Err(StoreError::Unavailable("down".into()));
            }
            Ok(items.to_vec())
        });
        assert!(!group.is_prompt(), "nothing is known of the store yet");
        group.add(1).await.unwrap();
        assert!(group.is_prompt());
        group.add(3).await.unwrap_err();
        assert!(!group.is_prompt());
        group.add(4).await.unwrap();
        assert!(group.is_prompt());

        let doubler = doubler(1, 100);
        doubler.group.add(0).await.unwrap();
        let mut running = Box::pin(doubler.group.add(1));
        assert!(poll_immediate(&mut running).await.is_none());
        assert!(!doubler.group.is_prompt(), "one waits");
        doubler.begun(2).await;
        assert!(!doubler.group.is_prompt(), "one runs");
        doubler.gate.add_permits(1);
        running.await.unwrap();
        assert!(doubler.group.is_prompt());
    }

    #[tokio::test]
    async fn an_error_reaches_just_the_callers_of_its_group() {
        let group = GroupCommit::start("test", 2, |items: Arc<[u32]>| async move {
            if items.contains(&3) {
                return Err(StoreError::Unavailable("down".into()));
            }
            Ok(items.to_vec())
        });
        // Polled in order, so the groups are (0, 1), (2, 3), (4, 5).
        let outputs = join_all((0..6).map(|n| group.add(n))).await;
        let failed: Vec<_> = outputs.iter().map(Result::is_err).collect();
        assert_eq!(failed, [false, false, true, true, false, false]);
        assert!(matches!(
            outputs[2].as_ref().unwrap_err(),
            GroupError::Store(error) if matches!(**error, StoreError::Unavailable(_))
        ));
    }

    #[tokio::test]
    async fn an_item_that_the_store_refuses_fails_alone() {
        let group = GroupCommit::start("test", 10, |items: Arc<[u32]>| async move {
            match items.iter().find(|item| **item % 4 == 3) {
                Some(3) => Err(StoreError::Other("refused".into())),
                Some(_) => panic!("a bad item"),
                None => Ok(items.to_vec()),
            }
        });
        let outputs = join_all((0..9).map(|n| group.add(n))).await;
        for (n, output) in (0..9).zip(outputs) {
            match output {
                Ok(output) => assert_eq!((output, n % 4 == 3), (n, false)),
                Err(error) => assert!(n % 4 == 3, "{n}: {error}"),
            }
        }
    }

    #[tokio::test]
    async fn one_by_one_ends_where_the_store_goes_away() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let group = GroupCommit::start("test", 10, move |items: Arc<[u32]>| {
            let call = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                match call {
                    0 => Err(StoreError::Other("refused".into())),
                    1 => Ok(items.to_vec()),
                    _ => Err(StoreError::Unavailable("down".into())),
                }
            }
        });
        let outputs = join_all((0..5).map(|n| group.add(n))).await;
        let failed: Vec<_> = outputs.iter().map(Result::is_err).collect();
        assert_eq!(failed, [false, true, true, true, true]);
        assert_eq!(calls.load(Ordering::Relaxed), 3, "the rest did not wait for an error each");
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_disturbs_no_one() {
        let doubler = doubler(0, 100);
        let mut in_group = Box::pin(doubler.group.add(0));
        assert!(poll_immediate(&mut in_group).await.is_none());
        doubler.begun(1).await;
        let mut waiting = Box::pin(doubler.group.add(1));
        let mut staying = Box::pin(doubler.group.add(2));
        assert!(poll_immediate(&mut waiting).await.is_none());
        assert!(poll_immediate(&mut staying).await.is_none());
        drop(in_group);
        drop(waiting);
        doubler.gate.add_permits(2);
        assert_eq!(staying.await.unwrap(), 4);
        // The one that ran ran; the one that only waited was taken back.
        assert_eq!(*doubler.groups.lock().unwrap(), [vec![0], vec![2]]);
    }

    #[tokio::test]
    async fn closing_finishes_what_was_added_and_refuses_the_rest() {
        let doubler = doubler(0, 2);
        let mut added = Box::pin(join_all((0..5).map(|n| doubler.group.add(n))));
        assert!(poll_immediate(&mut added).await.is_none());
        let mut closing = Box::pin(doubler.group.close());
        assert!(poll_immediate(&mut closing).await.is_none());
        doubler.gate.add_permits(3);
        closing.await;
        let outputs: Vec<_> = added.await.into_iter().map(Result::unwrap).collect();
        assert_eq!(outputs, [0, 2, 4, 6, 8]);
        assert!(matches!(doubler.group.add(9).await, Err(GroupError::Closed)));
        doubler.group.close().await;
    }

    #[tokio::test]
    async fn a_full_queue_says_so_at_once() {
        let doubler = doubler(0, 1);
        let mut running = Box::pin(doubler.group.add(0));
        assert!(poll_immediate(&mut running).await.is_none());
        doubler.begun(1).await;
        let n_waiting = u32::try_from(QUEUE_ITEMS).unwrap();
        let mut waiting = Box::pin(join_all((0..n_waiting).map(|n| doubler.group.add(n))));
        assert!(poll_immediate(&mut waiting).await.is_none());
        assert!(matches!(doubler.group.add(1).await, Err(GroupError::Full)));
        doubler.gate.add_permits(QUEUE_ITEMS + 1);
        assert!(waiting.await.into_iter().all(|output| output.is_ok()));
        doubler.group.add(1).now_or_never();
    }

    #[tokio::test]
    async fn a_wrong_number_of_outputs_is_an_error_for_the_group() {
        let group =
            GroupCommit::start(
                "test",
                10,
                |items: Arc<[u32]>| async move { Ok(items[1..].to_vec()) },
            );
        let error = group.add(1).await.unwrap_err();
        assert!(
            matches!(error, GroupError::Store(error) if matches!(*error, StoreError::Other(_)))
        );
    }

    #[tokio::test]
    async fn a_panic_ends_one_group_and_not_the_next() {
        let calls = AtomicUsize::new(0);
        let group = GroupCommit::start("test", 10, move |items: Arc<[u32]>| {
            // The first call panics at once, the second while it runs.
            let call = calls.fetch_add(1, Ordering::Relaxed);
            assert!(call != 0, "first");
            async move {
                assert!(call != 1, "second");
                Ok(items.to_vec())
            }
        });
        assert!(matches!(group.add(1).await, Err(GroupError::Store(_))));
        assert!(matches!(group.add(2).await, Err(GroupError::Store(_))));
        assert_eq!(group.add(3).await.unwrap(), 3);
        group.close().await;
    }
}
