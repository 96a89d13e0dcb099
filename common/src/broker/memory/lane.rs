//! A lane in memory: what is ready, who may hold how much of it, and what comes back.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::{
    broker::{BrokerError, Deliveries, Delivery, LaneDepth, Message},
    id::{InstanceId, JobId},
};

/// A message as it waits: a hundred thousand of them should cost little.
pub(super) struct Packed {
    job_id: JobId,
    pub(super) rest: Arc<Rest>,
}

/// What most messages of a lane have in common, and then share.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Rest {
    reply_to: Option<InstanceId>,
    attempt: u32,
    trace: Option<Box<str>>,
    ahead: bool,
}

impl From<Packed> for Message {
    fn from(packed: Packed) -> Self {
        let Rest { reply_to, attempt, ref trace, ahead } = *packed.rest;
        let trace = trace.as_deref().map(str::to_owned);
        Self { job_id: packed.job_id, attempt, reply_to, trace, ahead }
    }
}

/// One lane: what is ready, and who has how much of it.
pub(super) struct LaneQueue {
    max_ready: usize,
    state: Mutex<LaneState>,
}

#[derive(Default)]
pub(super) struct LaneState {
    pub(super) ready: VecDeque<Packed>,
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
    pub(super) fn new(max_ready: usize) -> Self {
        Self { max_ready, state: Mutex::default() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock().expect("no one panics while holding a lane")
    }

    pub(super) fn publish(&self, message: &Message) -> Result<(), BrokerError> {
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

    pub(super) fn subscribe(
        self: Arc<Self>,
        prefetch: usize,
    ) -> Result<MemoryDeliveries, BrokerError> {
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

    pub(super) fn depth(&self) -> Result<LaneDepth, BrokerError> {
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

    pub(super) fn close(&self) {
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
        let Message { job_id, attempt, reply_to, ref trace, ahead } = *message;
        let last = &self.rest;
        let same = last.attempt == attempt
            && last.reply_to == reply_to
            && last.ahead == ahead
            && last.trace.as_deref() == trace.as_deref();
        if !same {
            let trace = trace.as_deref().map(Box::from);
            self.rest = Arc::new(Rest { reply_to, attempt, trace, ahead });
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
pub(super) struct MemoryDeliveries {
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
