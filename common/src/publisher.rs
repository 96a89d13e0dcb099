//! Publishes wake-ups until the broker has them; the request that made a job does not wait for it.

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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::{
        broker::{
            Broker, BrokerHealth, Deliveries, Event, Inbox, LaneDepth, conformance::message,
            memory::MemoryBroker,
        },
        id::{InstanceId, JobId},
        job::Priority,
        vendor::Vendor,
    };

    const LANE: Lane = Lane { vendor: Vendor::OpenAi, priority: Priority::Normal };
    const REFUSED: Lane = Lane { vendor: Vendor::OpenAi, priority: Priority::Low };

    /// A broker that does as it is told.
    #[derive(Debug)]
    struct Fake {
        /// Publishes that fail before the first success.
        failures: AtomicUsize,
        tries: AtomicUsize,
        at_once: AtomicUsize,
        most_at_once: AtomicUsize,
        /// One permit for each publish that may end.
        gate: Semaphore,
        published: Mutex<Vec<(Lane, Message)>>,
    }

    impl Fake {
        fn new(failures: usize, permits: usize) -> Arc<Self> {
            Arc::new(Self {
                failures: AtomicUsize::new(failures),
                tries: AtomicUsize::new(0),
                at_once: AtomicUsize::new(0),
                most_at_once: AtomicUsize::new(0),
                gate: Semaphore::new(permits),
                published: Mutex::default(),
            })
        }

        fn open(permits: usize) -> Arc<Self> {
            Self::new(0, permits)
        }

        fn published(&self) -> Vec<JobId> {
            self.published.lock().unwrap().iter().map(|(_, message)| message.job_id).collect()
        }
    }

    #[async_trait]
    impl Broker for Fake {
        fn kind(&self) -> &'static str {
            "fake"
        }

        fn takes_time(&self) -> bool {
            true
        }

        async fn publish(&self, lane: Lane, message: &Message) -> Result<(), BrokerError> {
            self.tries.fetch_add(1, Ordering::Relaxed);
            let at_once = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_at_once.fetch_max(at_once, Ordering::Relaxed);
            self.gate.acquire().await.unwrap().forget();
            self.at_once.fetch_sub(1, Ordering::Relaxed);
            if lane == REFUSED {
                return Err(BrokerError::Refused("full".to_owned()));
            }
            let fails = self
                .failures
                .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if fails.is_ok() {
                return Err(BrokerError::Unavailable("down".to_owned()));
            }
            self.published.lock().unwrap().push((lane, message.clone()));
            Ok(())
        }

        async fn consume(&self, _: Lane, _: u16) -> Result<Box<dyn Deliveries>, BrokerError> {
            Err(BrokerError::Closed)
        }

        async fn inbox(&self, _: InstanceId) -> Result<Box<dyn Inbox>, BrokerError> {
            Err(BrokerError::Closed)
        }

        async fn send(&self, _: InstanceId, _: &Event) -> Result<(), BrokerError> {
            Err(BrokerError::Closed)
        }

        async fn depth(&self, _: Lane) -> Result<LaneDepth, BrokerError> {
            Err(BrokerError::Closed)
        }

        fn health(&self) -> BrokerHealth {
            BrokerHealth::Up
        }

        async fn close(&self, _: Duration) {}
    }

    fn wakeup(n: u64, lane: Lane) -> Wakeup {
        Wakeup { job_id: message(n).job_id, lane, attempt: 2, reply_to: None }
    }

    fn ids(numbers: impl IntoIterator<Item = u64>) -> Vec<JobId> {
        numbers.into_iter().map(|n| message(n).job_id).collect()
    }

    const MINUTE: Duration = Duration::from_mins(1);

    #[tokio::test(start_paused = true)]
    async fn a_wakeup_becomes_a_message() {
        let broker = Fake::open(1);
        let publisher = Publisher::start(broker.clone());
        let instance = InstanceId::from_uuid(message(9).job_id.as_uuid());
        let sent = Wakeup { reply_to: Some(instance), ..wakeup(1, LANE) };
        publisher.publish(sent, Some("00-trace".to_owned()));
        publisher.close(MINUTE).await;
        let expected = Message {
            attempt: 2,
            reply_to: Some(instance),
            trace: Some("00-trace".to_owned()),
            ..message(1)
        };
        assert_eq!(*broker.published.lock().unwrap(), [(LANE, expected)]);
        assert_eq!(publisher.backlog(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_goes_ahead_only_where_it_goes_at_once() {
        let broker = Fake::open(2);
        let publisher = Publisher::start(broker.clone());
        assert!(publisher.publish_ahead(wakeup(1, LANE), None).is_some());
        assert!(publisher.publish_ahead(wakeup(2, LANE), None).is_none(), "one waits before it");
        publisher.publish(wakeup(3, LANE), None);
        publisher.close(MINUTE).await;
        assert!(publisher.publish_ahead(wakeup(4, LANE), None).is_none(), "it is closed");
        let published = broker.published.lock().unwrap();
        let ahead = Message { attempt: 2, ahead: true, ..message(1) };
        let behind = Message { attempt: 2, ..message(3) };
        assert_eq!(*published, [(LANE, ahead), (LANE, behind)]);
    }

    #[tokio::test]
    async fn nothing_goes_ahead_to_a_broker_that_is_there_at_once() {
        let publisher = Publisher::start(Arc::new(MemoryBroker::new()));
        assert!(publisher.publish_ahead(wakeup(1, LANE), None).is_none());
        assert_eq!(publisher.backlog(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unreachable_broker_is_tried_until_it_confirms() {
        let broker = Fake::new(20, 1000);
        let publisher = Publisher::start(broker.clone());
        for n in 0..3 {
            publisher.publish(wakeup(n, LANE), None);
        }
        let began = Instant::now();
        publisher.close(10 * MINUTE).await;
        let mut arrived = broker.published();
        arrived.sort_unstable();
        assert_eq!(arrived, ids(0..3), "each once");
        assert_eq!(broker.tries.load(Ordering::Relaxed), 23);
        // Seven rounds of waits that grow, not a tight loop.
        assert!(began.elapsed() > Duration::from_secs(3), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_wakeup_does_not_hold_up_others() {
        let broker = Fake::open(1000);
        let publisher = Publisher::start(broker.clone());
        publisher.publish(wakeup(1, REFUSED), None);
        publisher.publish(wakeup(2, LANE), None);
        let began = Instant::now();
        while broker.published().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(publisher.backlog(), 1);
        publisher.close(Duration::from_millis(3500)).await;
        assert_eq!(broker.tries.load(Ordering::Relaxed), 1 + 4, "once a second");
        assert_eq!(publisher.backlog(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_backlog_drops_the_oldest() {
        let broker = Fake::open(0);
        let publisher = Publisher::start(broker.clone());
        let total = MAX_BACKLOG as u64 + 10;
        for n in 0..total {
            publisher.publish(wakeup(n, LANE), None);
        }
        assert_eq!(publisher.backlog(), MAX_BACKLOG);
        broker.gate.add_permits(MAX_BACKLOG);
        publisher.close(MINUTE).await;
        let mut arrived = broker.published();
        arrived.sort_unstable();
        assert_eq!(arrived, ids(10..total));
    }

    #[tokio::test(start_paused = true)]
    async fn outstanding_publishes_are_bounded_and_publish_never_waits() {
        let broker = Fake::open(0);
        let publisher = Publisher::start(broker.clone());
        for n in 0..1000 {
            publisher.publish(wakeup(n, LANE), None);
        }
        while broker.at_once.load(Ordering::Relaxed) < MAX_OUTSTANDING {
            tokio::task::yield_now().await;
        }
        assert_eq!(publisher.backlog(), 1000);
        broker.gate.add_permits(1000);
        publisher.close(MINUTE).await;
        assert_eq!(broker.published().len(), 1000);
        assert_eq!(broker.most_at_once.load(Ordering::Relaxed), MAX_OUTSTANDING);
    }

    #[tokio::test(start_paused = true)]
    async fn close_waits_no_longer_than_its_grace() {
        let broker = Fake::open(0);
        let publisher = Publisher::start(broker.clone());
        publisher.publish(wakeup(1, LANE), None);
        let began = Instant::now();
        publisher.close(Duration::from_secs(2)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(2));
        publisher.publish(wakeup(2, LANE), None);
        assert_eq!(publisher.backlog(), 1, "nothing is taken after the end");
    }
}
