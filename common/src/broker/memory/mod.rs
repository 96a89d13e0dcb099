//! The broker of one process: queues in memory that behave as RabbitMQ's do.
//!
//! Nothing survives the process; the store does, and its sweep publishes what was forgotten.

mod inbox;
mod lane;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use self::{inbox::Inboxes, lane::LaneQueue};
use super::{Broker, BrokerError, BrokerHealth, Deliveries, Event, Inbox, LaneDepth, Message};
use crate::{id::InstanceId, job::Lane};

/// Messages ready in one lane. Beyond it a publish is refused, and the sweeper's net finds the job
/// once the lane has run dry.
pub const MAX_READY: usize = 200_000;

/// Events waiting in one inbox; beyond it the oldest is lost, as everything in an inbox may be.
pub const MAX_EVENTS: usize = 10_000;

/// Queues in this process's memory.
pub struct MemoryBroker {
    lanes: HashMap<Lane, Arc<LaneQueue>>,
    inboxes: Arc<Inboxes>,
    takes_time: bool,
}

impl MemoryBroker {
    pub fn new() -> Self {
        Self::with_max_ready(MAX_READY)
    }

    fn with_max_ready(max_ready: usize) -> Self {
        let lanes = Lane::all().map(|lane| (lane, Arc::new(LaneQueue::new(max_ready)))).collect();
        Self { lanes, inboxes: Arc::default(), takes_time: false }
    }

    /// One that calls itself as slow as a broker of its own process is not.
    #[cfg(feature = "testing")]
    pub fn that_takes_time() -> Self {
        Self { takes_time: true, ..Self::new() }
    }

    fn lane(&self, lane: Lane) -> &Arc<LaneQueue> {
        self.lanes.get(&lane).expect("every lane was made with the broker")
    }
}

impl Default for MemoryBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBroker").finish_non_exhaustive()
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn takes_time(&self) -> bool {
        self.takes_time
    }

    async fn publish(&self, lane: Lane, message: &Message) -> Result<(), BrokerError> {
        self.lane(lane).publish(message)
    }

    async fn consume(&self, lane: Lane, prefetch: u16) -> Result<Box<dyn Deliveries>, BrokerError> {
        let queue = Arc::clone(self.lane(lane));
        let consumer = queue.subscribe(usize::from(prefetch.max(1)))?;
        Ok(Box::new(consumer))
    }

    async fn inbox(&self, instance: InstanceId) -> Result<Box<dyn Inbox>, BrokerError> {
        Ok(Box::new(self.inboxes.open(instance)?))
    }

    async fn send(&self, to: InstanceId, event: &Event) -> Result<(), BrokerError> {
        self.inboxes.send(to, event).map(drop)
    }

    async fn hand(&self, to: InstanceId, event: &Event) -> Result<(), BrokerError> {
        if self.inboxes.send(to, event)? {
            return Ok(());
        }
        Err(BrokerError::Refused(format!("there is no inbox of {to}")))
    }

    async fn depth(&self, lane: Lane) -> Result<LaneDepth, BrokerError> {
        self.lane(lane).depth()
    }

    fn health(&self) -> BrokerHealth {
        if self.inboxes.state().closed {
            BrokerHealth::Down("the in-process broker is closed".to_owned())
        } else {
            BrokerHealth::Up
        }
    }

    async fn close(&self, _grace: Duration) {
        for lane in self.lanes.values() {
            lane.close();
        }
        self.inboxes.close();
    }
}

#[cfg(test)]
mod tests {
    use super::{
        lane::{LaneState, Packed},
        *,
    };
    use crate::{broker::conformance::message, job::Priority, vendor::Vendor};

    crate::broker_conformance!(std::future::ready(Arc::new(MemoryBroker::new())));

    const LANE: Lane = Lane { vendor: Vendor::OpenAi, priority: Priority::Normal };

    #[tokio::test]
    async fn a_full_lane_refuses_and_takes_again_once_there_is_room() {
        let broker = MemoryBroker::with_max_ready(2);
        for n in 0..2 {
            broker.publish(LANE, &message(n)).await.unwrap();
        }
        let refused = broker.publish(LANE, &message(2)).await;
        assert!(matches!(refused, Err(BrokerError::Refused(_))), "{refused:?}");

        let mut deliveries = broker.consume(LANE, 1).await.unwrap();
        deliveries.next().await.unwrap().ack().await;
        broker.publish(LANE, &message(2)).await.unwrap();
    }

    #[tokio::test]
    async fn a_drained_backlog_gives_its_memory_back() {
        let broker = MemoryBroker::new();
        for n in 0..100_000 {
            broker.publish(LANE, &message(n)).await.unwrap();
        }
        let mut deliveries = broker.consume(LANE, 256).await.unwrap();
        for _ in 0..100_000 {
            deliveries.next().await.unwrap().ack().await;
        }
        assert!(broker.lane(LANE).state().ready.capacity() <= 2048);
    }

    #[test]
    fn a_waiting_message_is_small() {
        assert!(size_of::<Packed>() <= 24, "{}", size_of::<Packed>());
    }

    #[tokio::test]
    async fn messages_share_what_they_have_in_common_and_keep_what_they_have_not() {
        let broker = MemoryBroker::new();
        let traced = |n, trace: &str| Message { trace: Some(trace.to_owned()), ..message(n) };
        let sent = [message(0), message(1), traced(2, "a"), traced(3, "b"), message(4)];
        for message in &sent {
            broker.publish(LANE, message).await.unwrap();
        }
        let shared = |state: &LaneState, one: usize, two: usize| {
            Arc::ptr_eq(&state.ready[one].rest, &state.ready[two].rest)
        };
        {
            let state = broker.lane(LANE).state();
            assert!(shared(&state, 0, 1) && !shared(&state, 2, 3));
        }
        let mut deliveries = broker.consume(LANE, 10).await.unwrap();
        for message in &sent {
            assert_eq!(deliveries.next().await.unwrap().message(), message);
        }
    }

    #[tokio::test]
    async fn a_full_inbox_loses_the_oldest_event() {
        let broker = MemoryBroker::new();
        let instance = InstanceId::from_uuid(message(0).job_id.as_uuid());
        let mut inbox = broker.inbox(instance).await.unwrap();
        for n in 0..=MAX_EVENTS as u64 {
            let event = Event::Cancel { job_id: message(n).job_id, attempt: 1 };
            broker.send(instance, &event).await.unwrap();
        }
        let Some(Event::Cancel { job_id, .. }) = inbox.next().await else { panic!("no event") };
        assert_eq!(job_id, message(1).job_id);
    }
}
