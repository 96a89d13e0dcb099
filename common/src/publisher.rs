//! Publishes wake-ups until the broker has them; the request that made a job does not wait for it.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use metrics::Gauge;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::{debug, warn};

use crate::{
    broker::{BrokerError, Message, SharedBroker},
    job::Lane,
    store::Wakeup,
    telemetry::metric,
};

/// Wake-ups that may wait in one process; beyond it the oldest are dropped.
pub const MAX_BACKLOG: usize = 100_000;

/// Publishes this process has outstanding at once.
const MAX_OUTSTANDING: usize = 256;

/// Waits after a failure: doubled from the first to the last.
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// How long a wake-up rests that the broker refused; others go on meanwhile.
const REFUSED_REST: Duration = Duration::from_secs(1);

/// Drops are told at most this often.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// The way from an accepted job to the broker.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
    /// Ends the task when the last clone is gone.
    _ends: Arc<DropGuard>,
}

struct Shared {
    state: Mutex<State>,
    /// Something was added, or the end was called.
    wake: Notify,
    /// Nothing is left.
    idle: Notify,
    end: CancellationToken,
    task: TaskTracker,
    backlog: Gauge,
    /// Whether a message takes long enough to be sent before its job is stored.
    ahead_pays: bool,
}

#[derive(Default)]
struct State {
    /// To be published now, oldest first.
    waiting: VecDeque<Item>,
    /// Refused ones, and when each is tried again; sorted, because they all rest equally long.
    resting: VecDeque<(Instant, Item)>,
    outstanding: usize,
    closed: bool,
    dropped: u64,
    warned_at: Option<Instant>,
}

struct Item {
    lane: Lane,
    message: Message,
}

impl Item {
    fn new(wakeup: Wakeup, trace: Option<String>, ahead: bool) -> Self {
        let Wakeup { job_id, lane, attempt, reply_to } = wakeup;
        Self { lane, message: Message { job_id, attempt, reply_to, trace, ahead } }
    }
}

impl State {
    fn len(&self) -> usize {
        self.waiting.len() + self.resting.len() + self.outstanding
    }

    /// Drops the oldest ones beyond the bound; answers how many, if it is time to tell.
    fn trim(&mut self) -> Option<u64> {
        while self.len() > MAX_BACKLOG {
            if self.waiting.pop_front().is_none() && self.resting.pop_front().is_none() {
                break;
            }
            self.dropped += 1;
        }
        if self.dropped == 0 || self.warned_at.is_some_and(|at| at.elapsed() < WARN_EVERY) {
            return None;
        }
        self.warned_at = Some(Instant::now());
        Some(std::mem::take(&mut self.dropped))
    }

    /// The next one to publish at `now`, counted as outstanding.
    fn take(&mut self, now: Instant) -> Option<Item> {
        let rested = self.resting.front().is_some_and(|(at, _)| *at <= now);
        let item = match self.resting.pop_front_if(|_| rested) {
            Some((_, item)) => item,
            None => self.waiting.pop_front()?,
        };
        self.outstanding += 1;
        Some(item)
    }
}

impl Publisher {
    /// Starts the task that publishes; must be called on a tokio runtime.
    pub fn start(broker: SharedBroker) -> Self {
        let end = CancellationToken::new();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Notify::new(),
            idle: Notify::new(),
            end: end.clone(),
            task: TaskTracker::new(),
            backlog: metrics::gauge!(metric::PUBLISH_BACKLOG),
            ahead_pays: broker.takes_time(),
        });
        let task = PublishLoop { broker, shared: Arc::clone(&shared), pause: Pause::default() };
        let ends = end.clone();
        shared.task.spawn(async move { ends.run_until_cancelled(task.run()).await });
        shared.task.close();
        Self { shared, _ends: Arc::new(end.drop_guard()) }
    }

    /// Never blocks. Retried with backoff until confirmed; beyond [`MAX_BACKLOG`] the oldest are
    /// dropped with a warning: the sweeper's net (`JobStore::overdue`) finds them.
    pub fn publish(&self, wakeup: Wakeup, trace: Option<String>) {
        let mut state = self.shared.state();
        if state.closed {
            debug!(job.id = %wakeup.job_id, "published after the end; the sweep will find it");
            return;
        }
        state.waiting.push_back(Item::new(wakeup, trace, false));
        let dropped = state.trim();
        self.shared.count(&state);
        drop(state);
        if let Some(dropped) = dropped {
            warn!(dropped, "the publish backlog is full; the sweep will publish what was dropped");
        }
        self.shared.wake.notify_one();
    }

    /// Publishes for a job that is about to be stored, so that its message travels meanwhile.
    ///
    /// Answers when that was: if the job is stored within [`MAX_AHEAD`](crate::broker::MAX_AHEAD)
    /// from then, no other message is needed. `None`: it was not published, because nothing is gained
    /// by it (the broker is quick, or messages wait already).
    pub fn publish_ahead(&self, wakeup: Wakeup, trace: Option<String>) -> Option<Instant> {
        if !self.shared.ahead_pays {
            return None;
        }
        let mut state = self.shared.state();
        if state.closed || !state.waiting.is_empty() || !state.resting.is_empty() {
            return None;
        }
        let now = Instant::now();
        state.waiting.push_back(Item::new(wakeup, trace, true));
        self.shared.count(&state);
        drop(state);
        self.shared.wake.notify_one();
        Some(now)
    }

    /// Wake-ups the broker does not have yet.
    pub fn backlog(&self) -> usize {
        self.shared.state().len()
    }

    /// Takes nothing more, waits until the broker has everything, at most `grace`, and ends.
    pub async fn close(&self, grace: Duration) {
        self.shared.state().closed = true;
        let empty = async {
            loop {
                let idle = self.shared.idle.notified();
                if self.backlog() == 0 {
                    break;
                }
                idle.await;
            }
        };
        if timeout(grace, empty).await.is_err() {
            let left = self.backlog();
            warn!(left, "wake-ups were left unpublished; the sweep will publish them");
        }
        self.shared.end.cancel();
        self.shared.task.wait().await;
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("backlog", &self.backlog()).finish_non_exhaustive()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no one panics while holding the backlog")
    }

    fn count(&self, state: &State) {
        #[expect(clippy::cast_precision_loss, reason = "the backlog is at most MAX_BACKLOG")]
        self.backlog.set(state.len() as f64);
    }
}

/// The wait after the broker could not be reached; everything pauses, for all go the same way.
#[derive(Default)]
struct Pause {
    failures: u32,
    until: Option<Instant>,
}

impl Pause {
    /// Failures of publishes that began together count as one.
    fn failed(&mut self, now: Instant) {
        if self.until.is_some_and(|until| now < until) {
            return;
        }
        let bound = MIN_BACKOFF.saturating_mul(1 << self.failures.min(8)).min(MAX_BACKOFF);
        self.failures += 1;
        self.until = Some(now + bound.mul_f64(rand::random_range(0.5..=1.0)));
    }

    fn over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }
}

struct PublishLoop {
    broker: SharedBroker,
    shared: Arc<Shared>,
    pause: Pause,
}

impl PublishLoop {
    async fn run(mut self) {
        let broker = Arc::clone(&self.broker);
        let mut outstanding = FuturesUnordered::new();
        loop {
            let now = Instant::now();
            while outstanding.len() < MAX_OUTSTANDING && self.pause.over(now) {
                let Some(item) = self.shared.state().take(now) else { break };
                let broker = Arc::clone(&broker);
                outstanding.push(async move {
                    let published = broker.publish(item.lane, &item.message).await;
                    (item, published)
                });
            }
            let room = outstanding.len() < MAX_OUTSTANDING && self.pause.over(now);
            let next_try = self.next_try(now);
            tokio::select! {
                Some((item, published)) = outstanding.next() => self.settle(item, published),
                () = self.shared.wake.notified(), if room => {}
                () = sleep_until(next_try.unwrap_or(now)), if next_try.is_some() => {}
            }
        }
    }

    /// When something that waits for time may go on.
    fn next_try(&self, now: Instant) -> Option<Instant> {
        let rested = self.shared.state().resting.front().map(|(at, _)| *at);
        [self.pause.until, rested].into_iter().flatten().filter(|at| *at > now).min()
    }

    fn settle(&mut self, item: Item, published: Result<(), BrokerError>) {
        let now = Instant::now();
        let mut state = self.shared.state();
        state.outstanding -= 1;
        match published {
            Ok(()) => self.pause = Pause::default(),
            Err(BrokerError::Unavailable(reason)) => {
                debug!(job.id = %item.message.job_id, reason, "wake-up will be published again");
                self.pause.failed(now);
                state.waiting.push_front(item);
            }
            Err(BrokerError::Refused(reason)) => {
                debug!(job.id = %item.message.job_id, reason, "wake-up will be published again");
                state.resting.push_back((now + REFUSED_REST, item));
            }
            Err(BrokerError::Closed) => {
                debug!(job.id = %item.message.job_id, "the broker is closed; the sweep will find it");
            }
        }
        self.shared.count(&state);
        if state.len() == 0 {
            self.shared.idle.notify_waiters();
        }
    }
}
