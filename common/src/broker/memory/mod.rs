//! The broker of one process: queues in memory that behave as RabbitMQ's do.
//!
//! Nothing survives the process; the store does, and its sweep publishes what was forgotten.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{
    Broker, BrokerError, BrokerHealth, Deliveries, Delivery, Event, Inbox, LaneDepth, Message,
};
use crate::{
    id::{InstanceId, JobId},
    job::Lane,
};

/// Messages ready in one lane. Beyond it a publish is refused, and the sweeper's net finds the job
/// once the lane has run dry.
pub const MAX_READY: usize = 200_000;

/// Events waiting in one inbox; beyond it the oldest is lost, as everything in an inbox may be.
pub const MAX_EVENTS: usize = 10_000;

/// Queues in this process's memory.
pub struct MemoryBroker {
    lanes: HashMap<Lane, Arc<LaneQueue>>,
    inboxes: Arc<Inboxes>,
}

impl MemoryBroker {
    pub fn new() -> Self {
        Self::with_max_ready(MAX_READY)
    }

    fn with_max_ready(max_ready: usize) -> Self {
        let lanes = Lane::all().map(|lane| (lane, Arc::new(LaneQueue::new(max_ready)))).collect();
        Self { lanes, inboxes: Arc::default() }
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
        self.inboxes.send(to, event)
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

/// A message as it waits: a hundred thousand of them should cost little.
struct Packed {
    job_id: JobId,
    rest: Arc<Rest>,
}

/// What most messages of a lane have in common, and then share.
#[derive(Debug, Default, PartialEq)]
struct Rest {
    reply_to: Option<InstanceId>,
    attempt: u32,
    trace: Option<Box<str>>,
}

impl From<Packed> for Message {
    fn from(packed: Packed) -> Self {
        let Rest { reply_to, attempt, ref trace } = *packed.rest;
        let trace = trace.as_deref().map(str::to_owned);
        Self { job_id: packed.job_id, attempt, reply_to, trace }
    }
}

/// One lane: what is ready, and who has how much of it.
struct LaneQueue {
    max_ready: usize,
    state: Mutex<LaneState>,
}

#[derive(Default)]
struct LaneState {
    ready: VecDeque<Packed>,
    /// Of the last message that was packed.
    rest: Arc<Rest>,
    /// In the order of their turns.
    consumers: VecDeque<Consumer>,
    last_consumer: u64,
    closed: bool,
}

/// One consumer of a lane.
struct Consumer {
    id: u64,
    prefetch: usize,
    /// Handed over and not answered yet, `buffer` included.
    unacked: usize,
    /// Handed over and not asked for yet.
    buffer: VecDeque<Packed>,
    wake: Arc<Notify>,
}

impl LaneQueue {
    fn new(max_ready: usize) -> Self {
        Self { max_ready, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock().expect("no one panics while holding a lane")
    }

    fn publish(&self, message: &Message) -> Result<(), BrokerError> {
        let mut state = self.state();
        if state.closed {
            return Err(BrokerError::Closed);
        }
        if state.ready.len() >= self.max_ready {
            return Err(BrokerError::Refused(format!(
                "the lane holds {} messages already",
                self.max_ready
            )));
        }
        let packed = state.pack(message);
        state.ready.push_back(packed);
        state.dispatch();
        Ok(())
    }

    fn subscribe(self: Arc<Self>, prefetch: usize) -> Result<MemoryDeliveries, BrokerError> {
        let mut state = self.state();
        if state.closed {
            return Err(BrokerError::Closed);
        }
        state.last_consumer += 1;
        let id = state.last_consumer;
        let wake = Arc::new(Notify::new());
        state.consumers.push_back(Consumer {
            id,
            prefetch,
            unacked: 0,
            buffer: VecDeque::new(),
            wake: Arc::clone(&wake),
        });
        state.dispatch();
        drop(state);
        Ok(MemoryDeliveries { queue: self, consumer: id, wake })
    }

    fn depth(&self) -> Result<LaneDepth, BrokerError> {
        let state = self.state();
        if state.closed {
            return Err(BrokerError::Closed);
        }
        Ok(LaneDepth { ready: state.ready.len() as u64, consumers: state.consumers.len() as u64 })
    }

    /// Ends one hand-over; `back` is the message if it must be delivered again.
    fn settle(&self, consumer: u64, back: Option<&Message>) {
        let mut state = self.state();
        if let Some(message) = back {
            let packed = state.pack(message);
            state.ready.push_front(packed);
        }
        if let Some(consumer) = state.consumers.iter_mut().find(|other| other.id == consumer) {
            consumer.unacked -= 1;
        }
        state.dispatch();
    }

    fn unsubscribe(&self, consumer: u64) {
        let mut state = self.state();
        let Some(at) = state.consumers.iter().position(|other| other.id == consumer) else {
            return;
        };
        if let Some(gone) = state.consumers.remove(at) {
            for message in gone.buffer.into_iter().rev() {
                state.ready.push_front(message);
            }
        }
        state.dispatch();
    }

    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.ready = VecDeque::new();
        for consumer in &mut state.consumers {
            consumer.buffer.clear();
            consumer.wake.notify_one();
        }
    }
}

impl LaneState {
    fn pack(&mut self, message: &Message) -> Packed {
        let Message { job_id, attempt, reply_to, ref trace } = *message;
        let last = &self.rest;
        let same = last.attempt == attempt
            && last.reply_to == reply_to
            && last.trace.as_deref() == trace.as_deref();
        if !same {
            let trace = trace.as_deref().map(Box::from);
            self.rest = Arc::new(Rest { reply_to, attempt, trace });
        }
        Packed { job_id, rest: Arc::clone(&self.rest) }
    }

    /// Hands what is ready to consumers that may hold more, each in its turn.
    fn dispatch(&mut self) {
        let mut full = 0;
        while full < self.consumers.len() && !self.ready.is_empty() && !self.closed {
            let Some(mut consumer) = self.consumers.pop_front() else { break };
            if consumer.unacked >= consumer.prefetch {
                full += 1;
            } else if let Some(message) = self.ready.pop_front() {
                full = 0;
                consumer.unacked += 1;
                consumer.buffer.push_back(message);
                consumer.wake.notify_one();
            }
            self.consumers.push_back(consumer);
        }
        // A backlog that has drained gives its memory back.
        if self.ready.capacity() > 1024 && self.ready.len() < self.ready.capacity() / 4 {
            let half = self.ready.capacity() / 2;
            self.ready.shrink_to(half);
        }
    }
}

/// The consumer's end of a lane.
struct MemoryDeliveries {
    queue: Arc<LaneQueue>,
    consumer: u64,
    wake: Arc<Notify>,
}

impl MemoryDeliveries {
    /// The next message at hand; `Err` once the broker is closed.
    fn take(&mut self) -> Result<Option<MemoryDelivery>, BrokerError> {
        let mut state = self.queue.state();
        if state.closed {
            return Err(BrokerError::Closed);
        }
        let own = state.consumers.iter_mut().find(|consumer| consumer.id == self.consumer);
        let message = own.and_then(|consumer| consumer.buffer.pop_front());
        Ok(message.map(|message| MemoryDelivery {
            queue: Arc::clone(&self.queue),
            consumer: self.consumer,
            message: message.into(),
            answered: false,
        }))
    }
}

#[async_trait]
impl Deliveries for MemoryDeliveries {
    async fn next(&mut self) -> Option<Box<dyn Delivery>> {
        loop {
            if let Some(delivery) = self.take().ok()? {
                return Some(Box::new(delivery));
            }
            // A notification without a waiter is kept, so none is missed in between.
            self.wake.notified().await;
        }
    }

    fn try_next(&mut self) -> Option<Box<dyn Delivery>> {
        let delivery = self.take().ok()??;
        Some(Box::new(delivery))
    }
}

impl Drop for MemoryDeliveries {
    fn drop(&mut self) {
        self.queue.unsubscribe(self.consumer);
    }
}

/// A message in the hands of a consumer.
struct MemoryDelivery {
    queue: Arc<LaneQueue>,
    consumer: u64,
    message: Message,
    answered: bool,
}

#[async_trait]
impl Delivery for MemoryDelivery {
    fn message(&self) -> &Message {
        &self.message
    }

    async fn ack(mut self: Box<Self>) {
        self.answered = true;
        self.queue.settle(self.consumer, None);
    }

    async fn nack(self: Box<Self>) {
        drop(self);
    }
}

impl Drop for MemoryDelivery {
    fn drop(&mut self) {
        if !self.answered {
            self.queue.settle(self.consumer, Some(&self.message));
        }
    }
}

/// All open inboxes.
#[derive(Default)]
struct Inboxes(Mutex<InboxesState>);

#[derive(Default)]
struct InboxesState {
    open: HashMap<InstanceId, Arc<InboxQueue>>,
    closed: bool,
}

#[derive(Default)]
struct InboxQueue {
    events: Mutex<VecDeque<Event>>,
    wake: Notify,
}

impl Inboxes {
    fn state(&self) -> MutexGuard<'_, InboxesState> {
        self.0.lock().expect("no one panics while holding the inboxes")
    }

    fn open(self: &Arc<Self>, instance: InstanceId) -> Result<MemoryInbox, BrokerError> {
        let mut state = self.state();
        if state.closed {
            return Err(BrokerError::Closed);
        }
        let queue = Arc::<InboxQueue>::default();
        state.open.insert(instance, Arc::clone(&queue));
        Ok(MemoryInbox { inboxes: Arc::clone(self), instance, queue })
    }

    fn send(&self, to: InstanceId, event: &Event) -> Result<(), BrokerError> {
        let state = self.state();
        if state.closed {
            return Err(BrokerError::Closed);
        }
        if let Some(inbox) = state.open.get(&to) {
            let mut events = inbox.events();
            if events.len() >= MAX_EVENTS {
                events.pop_front();
            }
            events.push_back(event.clone());
            inbox.wake.notify_one();
        }
        Ok(())
    }

    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        for inbox in state.open.values() {
            inbox.wake.notify_one();
        }
    }
}

impl InboxQueue {
    fn events(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.events.lock().expect("no one panics while holding an inbox")
    }
}

struct MemoryInbox {
    inboxes: Arc<Inboxes>,
    instance: InstanceId,
    queue: Arc<InboxQueue>,
}

#[async_trait]
impl Inbox for MemoryInbox {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.inboxes.state().closed {
                return None;
            }
            if let Some(event) = self.queue.events().pop_front() {
                return Some(event);
            }
            self.queue.wake.notified().await;
        }
    }
}

impl Drop for MemoryInbox {
    fn drop(&mut self) {
        let mut state = self.inboxes.state();
        // The instance may have opened another since.
        if state.open.get(&self.instance).is_some_and(|queue| Arc::ptr_eq(queue, &self.queue)) {
            state.open.remove(&self.instance);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
