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

    async fn hand(&self, _: InstanceId, _: &Event) -> Result<(), BrokerError> {
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
