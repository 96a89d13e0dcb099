//! The broker: it wakes workers and waiting callers; it decides nothing.
//!
//! **Invariant:** a message is a job's id, never its input. A lost, repeated or late message does no
//! harm, because a worker acts only on what the store's `claim` returns. Events carry results and
//! loans; they are never durable, and who misses one finds what it said in the store.

pub mod memory;
pub mod rabbitmq;

#[cfg(feature = "testing")]
pub mod conformance;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use self::{memory::MemoryBroker, rabbitmq::RabbitBroker};
use crate::{
    config::BrokerConfig,
    id::{InstanceId, JobId},
    job::{JobResult, JobStatus, Json, Lane},
    stream::ChunkGroup,
    vendor::Vendor,
};

/// What can go wrong in a broker, as far as callers treat it differently.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// It cannot be reached, did not confirm in time, or closed the channel: try again later.
    #[error("the broker is unavailable: {0}")]
    Unavailable(String),
    /// It confirmed that it did not take the message, or has no queue for it.
    #[error("the broker refused the message: {0}")]
    Refused(String),
    /// This broker has been closed by its owner.
    #[error("the broker is closed")]
    Closed,
}

/// What lies in a lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub job_id: JobId,
    /// Attempts counted when it was published; for logs.
    pub attempt: u32,
    /// Where events about the job go.
    pub reply_to: Option<InstanceId>,
    /// W3C `traceparent` of the request that made the job.
    pub trace: Option<String>,
    /// Published while its job was being stored: it may arrive up to [`MAX_AHEAD`] before the job.
    pub ahead: bool,
}

/// How much sooner than its job a message may be published. Whoever finds that storing the job took
/// longer publishes a second message.
pub const MAX_AHEAD: Duration = Duration::from_millis(50);

/// How long a worker looks for the job of a message that is ahead. It counts from the message's
/// arrival, [`MAX_AHEAD`] from before it left, so that a job stored in time is found; twice as long, for
/// a transaction that another reads a moment later.
pub const AHEAD_PATIENCE: Duration = Duration::from_millis(100);

/// What is sent to one instance's inbox. Never durable: whoever waits also looks into the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "most events are of the large kind")]
pub enum Event {
    /// A job ended. The result is in line unless it is too large; then it is in the store.
    Finished {
        job_id: JobId,
        status: JobStatus,
        attempt: u32,
        result: Option<JobResult>,
        /// `None` where the sender does not know them; they are in the store.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        times: Option<Times>,
        /// How many chunks the last attempt streamed, all of which are in the store.
        #[serde(default)]
        chunks: u64,
        /// What else its worker has room for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        room: Option<Room>,
    },
    /// Parts of a streamed answer as the vendor sent them, perhaps not stored yet. What is missed
    /// here is read from the store.
    Chunks(ChunkGroup),
    /// Stop running this attempt: the store has given it another end.
    Cancel { job_id: JobId, attempt: u32 },
    /// This job was lent to you as it was stored: run its first attempt.
    Lent {
        job_id: JobId,
        vendor: Vendor,
        /// W3C `traceparent` of the request that made the job.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<String>,
        /// The [`Claim`](crate::store::Claim) as the store has it, where it is not too large.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        claim: Option<Json>,
    },
}

/// That a worker could begin more attempts at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    pub instance: InstanceId,
    pub vendor: Vendor,
    /// How many, at least 1.
    pub places: u32,
}

/// When a job ran: with them, who has read it before needs the store no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: DateTime<Utc>,
}

/// Results and arguments up to this size travel in the event itself.
pub const MAX_INLINE_BYTES: usize = 128 * 1024;

/// One hand-over of a message. Dropped without an answer, it is delivered again.
#[async_trait]
pub trait Delivery: Send {
    fn message(&self) -> &Message;

    /// The store remembers the job from here on. A failure is no error: it comes again.
    async fn ack(self: Box<Self>);

    /// Could not be claimed for a passing reason: deliver it again, to anyone.
    async fn nack(self: Box<Self>);
}

/// The messages of one lane, as they arrive.
#[async_trait]
pub trait Deliveries: Send {
    /// The next message. Waits through outages; `None` once the broker is closed.
    ///
    /// **Cancel safe:** no message is lost if the future is dropped.
    async fn next(&mut self) -> Option<Box<dyn Delivery>>;

    /// The next message if one is at hand.
    fn try_next(&mut self) -> Option<Box<dyn Delivery>>;
}

/// The events for one instance, as they arrive.
#[async_trait]
pub trait Inbox: Send {
    /// The next event. Waits through outages; `None` once the broker is closed.
    ///
    /// **Cancel safe:** no event is lost if the future is dropped.
    async fn next(&mut self) -> Option<Event>;
}

/// Whether the broker can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerHealth {
    Up,
    /// With the reason in words for an operator; holds no credential.
    Down(String),
}

/// How much lies in a lane's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneDepth {
    /// Messages ready to be delivered.
    pub ready: u64,
    pub consumers: u64,
}

/// Publishes to lanes, consumes from lanes, and passes events between instances.
#[async_trait]
pub trait Broker: Send + Sync + std::fmt::Debug {
    /// `rabbitmq` or `memory`.
    fn kind(&self) -> &'static str;

    /// Whether a message is under way for about as long as a job takes to be stored, so that it pays
    /// to publish it meanwhile.
    fn takes_time(&self) -> bool;

    /// Publishes a durable message; `Ok` once the broker has taken responsibility for it.
    ///
    /// Many calls may be outstanding at once. Bounded in time by the configured publish timeout.
    async fn publish(&self, lane: Lane, message: &Message) -> Result<(), BrokerError>;

    /// Consumes one lane, with at most `prefetch` unacknowledged messages.
    async fn consume(&self, lane: Lane, prefetch: u16) -> Result<Box<dyn Deliveries>, BrokerError>;

    /// Opens the inbox of this instance. Events sent before it is open are lost.
    async fn inbox(&self, instance: InstanceId) -> Result<Box<dyn Inbox>, BrokerError>;

    /// Sends an event to an instance's inbox; to one that has none it is lost. Not confirmed.
    async fn send(&self, to: InstanceId, event: &Event) -> Result<(), BrokerError>;

    /// As [`Broker::send`]; `Ok` once the event lies in the inbox. `Refused`: there is none; but where it
    /// went at this moment, its instance may have the event all the same.
    async fn hand(&self, to: InstanceId, event: &Event) -> Result<(), BrokerError>;

    async fn depth(&self, lane: Lane) -> Result<LaneDepth, BrokerError>;

    fn health(&self) -> BrokerHealth;

    /// Waits for outstanding publishes, at most `grace`, then closes everything.
    async fn close(&self, grace: Duration);
}

/// The broker as a process shares it.
pub type SharedBroker = Arc<dyn Broker>;

/// The broker that the configuration names. Never fails: what cannot be reached is connected to in
/// the background, and [`Broker::health`] says why it is not there yet.
///
/// Must be called on a tokio runtime.
pub fn open(config: &BrokerConfig) -> SharedBroker {
    if config.is_in_process() {
        Arc::new(MemoryBroker::new())
    } else {
        Arc::new(RabbitBroker::start(config))
    }
}
