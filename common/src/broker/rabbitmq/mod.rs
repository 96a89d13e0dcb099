//! RabbitMQ 3.10 and 4.x: one durable quorum queue per lane, one transient queue per instance.
//!
//! Two connections: a server short of memory or disk stops reading from those that publish, and
//! consuming must go on then. Both are kept by supervisors (`link`); `publish` awaits confirms,
//! `feed` consumes, `topology` declares.

mod acks;
mod address;
mod events;
mod feed;
mod link;
mod publish;
mod topology;
mod wire;

#[cfg(all(test, feature = "servers"))]
mod tests;

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use lapin::types::ShortString;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::{debug, error, warn};

use self::{
    address::Address,
    events::{EventTask, Outgoing},
    feed::{Feed, FeedContext, INBOX_ACKS, Source, Taken},
    link::{Link, Live},
    publish::{Answer, PublishTask, Request},
    wire::Encoded,
};
use super::{
    Broker, BrokerError, BrokerHealth, Deliveries, Delivery, Event, Inbox, LaneDepth, Message,
};
use crate::{config::BrokerConfig, id::InstanceId, job::Lane};

/// How long the tasks may take to end once everything is closed.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Time for the server to tell consumers that their queue is gone. Where a quorum queue of the same
/// name comes at once, RabbitMQ 3.10 does not tell them, counts them as consumers of the new queue,
/// and delivers nothing to them.
const BEFORE_REDECLARING: Duration = Duration::from_millis(500);

/// A broker on a RabbitMQ server.
pub struct RabbitBroker {
    /// The URL cannot be used: why.
    misconfigured: Option<String>,
    connected: Option<Connected>,
    closed: CancellationToken,
    _closed_on_drop: DropGuard,
}

/// The running parts.
struct Connected {
    publishing: Link,
    consuming: Link,
    requests: mpsc::Sender<Request>,
    events: mpsc::Sender<Outgoing>,
    /// One for each publish whose caller waits.
    permits: Semaphore,
    max_outstanding: u32,
    publish_timeout: Duration,
    feeds: Arc<FeedContext>,
    tasks: TaskTracker,
    event_tasks: TaskTracker,
    closing: CancellationToken,
}

impl RabbitBroker {
    /// Starts connecting in the background; must be called on a tokio runtime.
    ///
    /// Never fails: what is wrong, the URL included, shows in [`Broker::health`].
    pub fn start(config: &BrokerConfig) -> Self {
        let closed = CancellationToken::new();
        let (connected, misconfigured) = match Address::parse(&config.url) {
            Ok(address) => (Some(Connected::start(address, config, &closed)), None),
            Err(reason) => {
                error!(reason, "the broker cannot be used");
                (None, Some(reason))
            }
        };
        let guard = closed.clone().drop_guard();
        Self { misconfigured, connected, closed, _closed_on_drop: guard }
    }

    fn connected(&self) -> Result<&Connected, BrokerError> {
        if self.closed.is_cancelled() {
            return Err(BrokerError::Closed);
        }
        self.connected
            .as_ref()
            .ok_or_else(|| BrokerError::Unavailable(self.misconfigured.clone().unwrap_or_default()))
    }
}

impl fmt::Debug for RabbitBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitBroker").field("health", &self.health()).finish_non_exhaustive()
    }
}

impl Connected {
    fn start(address: Address, config: &BrokerConfig, closed: &CancellationToken) -> Self {
        let address = Arc::new(address);
        let connect_timeout = Duration::from_millis(config.connect_timeout_ms);
        let publish_timeout = Duration::from_millis(config.publish_timeout_ms);
        let max_outstanding = config.max_outstanding.clamp(1, usize::from(u16::MAX));
        let tasks = TaskTracker::new();
        let start_link = |name| {
            let (link, supervisor) =
                Link::new(Arc::clone(&address), name, connect_timeout, closed.clone());
            tasks.spawn(supervisor.run());
            link
        };
        let publishing = start_link("inferq publisher");
        let consuming = start_link("inferq consumer");
        let (requests, received) = mpsc::channel(max_outstanding);
        let publish_task = PublishTask {
            link: publishing.clone(),
            requests: received,
            max_outstanding,
            open_timeout: connect_timeout,
        };
        let ends = closed.clone();
        tasks.spawn(async move { ends.run_until_cancelled(publish_task.run()).await });
        let (events, outgoing) = mpsc::channel(events::QUEUE);
        let closing = CancellationToken::new();
        let event_task = EventTask {
            link: publishing.clone(),
            events: outgoing,
            send_timeout: publish_timeout,
            closing: closing.clone(),
        };
        let ends = closed.clone();
        let event_tasks = TaskTracker::new();
        event_tasks.spawn(async move { ends.run_until_cancelled(event_task.run()).await });
        event_tasks.close();
        let feeds = FeedContext {
            link: consuming.clone(),
            closed: closed.clone(),
            tasks: tasks.clone(),
            runtime: Handle::current(),
            timeout: connect_timeout,
        };
        Self {
            publishing,
            consuming,
            requests,
            events,
            permits: Semaphore::new(max_outstanding),
            max_outstanding: u32::try_from(max_outstanding).unwrap_or(u32::MAX),
            publish_timeout,
            feeds: Arc::new(feeds),
            tasks,
            event_tasks,
            closing,
        }
    }

    async fn publish(&self, lane: Lane, message: &Message) -> Result<(), BrokerError> {
        let message = wire::encode(message).map_err(|error| {
            BrokerError::Refused(format!("the message cannot be written: {error}"))
        })?;
        let _permit = self.permits.acquire().await.map_err(|_| BrokerError::Closed)?;
        // Twice: a queue that was deleted is declared again.
        for _ in 0..2 {
            let live = self.publishing.sending().await?;
            let declared = live.declare(lane).await.map_err(|error| self.unavailable(&error))?;
            if self.request(topology::lane_queue(lane), message.clone()).await? {
                return Ok(());
            }
            debug!(%lane, "the lane's queue is gone; declaring it again");
            // In this order: once forgotten, the next publish declares it.
            sleep(BEFORE_REDECLARING.min(self.publish_timeout / 4)).await;
            live.forget(lane, declared);
        }
        Err(BrokerError::Refused(format!("there is no queue for lane {lane}")))
    }

    async fn hand(&self, to: InstanceId, event: &Event) -> Result<(), BrokerError> {
        let event = wire::encode_event(event).map_err(|error| {
            BrokerError::Refused(format!("the event cannot be written: {error}"))
        })?;
        let _permit = self.permits.acquire().await.map_err(|_| BrokerError::Closed)?;
        self.publishing.sending().await?;
        if self.request(topology::inbox_queue(to), event).await? {
            return Ok(());
        }
        Err(BrokerError::Refused(format!("there is no inbox of {to}")))
    }

    /// Publishes and awaits the confirm; `false`: there is no such queue.
    async fn request(&self, key: ShortString, message: Encoded) -> Result<bool, BrokerError> {
        let (answer, answered) = oneshot::channel();
        let request = Request { key, message, answer };
        self.requests.send(request).await.map_err(|_| BrokerError::Closed)?;
        match answered.await {
            Ok(Answer::Confirmed) => Ok(true),
            Ok(Answer::Returned) => Ok(false),
            Ok(Answer::Nacked) => Err(BrokerError::Refused("it could not be stored".to_owned())),
            Ok(Answer::Lost(reason)) => Err(BrokerError::Unavailable(reason)),
            Err(_) => Err(BrokerError::Unavailable(
                "the connection broke before the message was confirmed".to_owned(),
            )),
        }
    }

    async fn send(&self, to: InstanceId, event: &Event) -> Result<(), BrokerError> {
        let event = serde_json::to_vec(event).map_err(|error| {
            BrokerError::Refused(format!("the event cannot be written: {error}"))
        })?;
        // Whoever sends while the server is away should hear of it.
        self.publishing.sending().await?;
        self.events.send(Outgoing { to, event }).await.map_err(|_| BrokerError::Closed)
    }

    async fn depth(&self, lane: Lane) -> Result<LaneDepth, BrokerError> {
        let live: Arc<Live> = self.consuming.live().await.ok_or(BrokerError::Closed)?;
        let depth = live.depth(lane).await.map_err(|error| self.unavailable(&error))?;
        Ok(depth.unwrap_or(LaneDepth { ready: 0, consumers: 0 }))
    }

    fn unavailable(&self, error: &lapin::Error) -> BrokerError {
        BrokerError::Unavailable(self.publishing.trouble().unwrap_or_else(|| error.to_string()))
    }

    /// Bounds a call by the publish timeout.
    async fn in_time<T>(
        &self,
        link: &Link,
        call: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        timeout(self.publish_timeout, call).await.unwrap_or_else(|_| {
            let reason = link.trouble().unwrap_or_else(|| {
                format!("no answer within {} ms", self.publish_timeout.as_millis())
            });
            Err(BrokerError::Unavailable(reason))
        })
    }
}

#[async_trait]
impl Broker for RabbitBroker {
    fn kind(&self) -> &'static str {
        "rabbitmq"
    }

    fn takes_time(&self) -> bool {
        true
    }

    async fn publish(&self, lane: Lane, message: &Message) -> Result<(), BrokerError> {
        let connected = self.connected()?;
        if connected.closing.is_cancelled() {
            return Err(BrokerError::Closed);
        }
        connected.in_time(&connected.publishing, connected.publish(lane, message)).await
    }

    async fn consume(&self, lane: Lane, prefetch: u16) -> Result<Box<dyn Deliveries>, BrokerError> {
        let feeds = Arc::clone(&self.connected()?.feeds);
        let feed = Feed::open(feeds, Source::Lane(lane, prefetch.max(1))).await;
        Ok(Box::new(RabbitDeliveries { lane, feed }))
    }

    async fn inbox(&self, instance: InstanceId) -> Result<Box<dyn Inbox>, BrokerError> {
        let feeds = Arc::clone(&self.connected()?.feeds);
        let feed = Feed::open(feeds, Source::Inbox(instance)).await;
        Ok(Box::new(RabbitInbox { feed, at_hand: VecDeque::new(), unanswered: None }))
    }

    async fn send(&self, to: InstanceId, event: &Event) -> Result<(), BrokerError> {
        let connected = self.connected()?;
        connected.in_time(&connected.publishing, connected.send(to, event)).await
    }

    async fn hand(&self, to: InstanceId, event: &Event) -> Result<(), BrokerError> {
        let connected = self.connected()?;
        connected.in_time(&connected.publishing, connected.hand(to, event)).await
    }

    async fn depth(&self, lane: Lane) -> Result<LaneDepth, BrokerError> {
        let connected = self.connected()?;
        connected.in_time(&connected.consuming, connected.depth(lane)).await
    }

    fn health(&self) -> BrokerHealth {
        let trouble = match self.connected() {
            Err(BrokerError::Unavailable(reason)) => Some(reason),
            Err(_) => Some("the connection to RabbitMQ is closed".to_owned()),
            Ok(connected) => {
                connected.publishing.trouble().or_else(|| connected.consuming.trouble())
            }
        };
        trouble.map_or(BrokerHealth::Up, BrokerHealth::Down)
    }

    async fn close(&self, grace: Duration) {
        let Some(connected) = &self.connected else {
            self.closed.cancel();
            return;
        };
        connected.closing.cancel();
        let outstanding = async {
            let publishes = connected.permits.acquire_many(connected.max_outstanding);
            tokio::join!(publishes, connected.event_tasks.wait()).0.map(drop)
        };
        if timeout(grace, outstanding).await.is_err() {
            warn!("publishes were still unconfirmed when the broker was closed");
        }
        self.closed.cancel();
        connected.permits.close();
        connected.tasks.close();
        if timeout(END_WITHIN, connected.tasks.wait()).await.is_err() {
            debug!("tasks of the broker outlast its end");
        }
    }
}

struct RabbitDeliveries {
    lane: Lane,
    feed: Feed,
}

impl RabbitDeliveries {
    /// `None` if the message cannot be read; it is set aside then.
    fn read(&self, taken: Taken) -> Option<Box<dyn Delivery>> {
        match wire::decode(&taken.delivery.data, &taken.delivery.properties) {
            Ok(message) => Some(Box::new(RabbitDelivery { message, taken, answered: false })),
            Err(error) => {
                warn!(lane = %self.lane, %error, "a message cannot be read; dead-lettering it");
                taken.reject();
                None
            }
        }
    }
}

#[async_trait]
impl Deliveries for RabbitDeliveries {
    async fn next(&mut self) -> Option<Box<dyn Delivery>> {
        loop {
            let taken = self.feed.next().await?;
            if let Some(delivery) = self.read(taken) {
                return Some(delivery);
            }
        }
    }

    fn try_next(&mut self) -> Option<Box<dyn Delivery>> {
        loop {
            let taken = self.feed.try_next()?;
            if let Some(delivery) = self.read(taken) {
                return Some(delivery);
            }
        }
    }
}

struct RabbitDelivery {
    message: Message,
    taken: Taken,
    answered: bool,
}

#[async_trait]
impl Delivery for RabbitDelivery {
    fn message(&self) -> &Message {
        &self.message
    }

    async fn ack(mut self: Box<Self>) {
        self.answered = true;
        self.taken.ack();
    }

    async fn nack(self: Box<Self>) {
        drop(self);
    }
}

impl Drop for RabbitDelivery {
    fn drop(&mut self) {
        if !self.answered {
            self.taken.nack();
        }
    }
}

struct RabbitInbox {
    feed: Feed,
    /// Of the last message.
    at_hand: VecDeque<Event>,
    /// The last message, and how many of its channel are not acknowledged.
    unanswered: Option<(Taken, usize)>,
}

impl RabbitInbox {
    /// The next message. What was handed on is acknowledged while nothing waits to be.
    ///
    /// **Cancel safe.**
    async fn take(&mut self) -> Option<&Taken> {
        let n_before = self.unanswered.as_ref().map_or(0, |(_, n)| *n);
        let at_hand = if n_before < INBOX_ACKS { self.feed.try_next() } else { None };
        let (taken, n_before) = if let Some(taken) = at_hand {
            (taken, n_before)
        } else {
            if let Some((last, _)) = self.unanswered.take() {
                last.ack_all();
            }
            (self.feed.next().await?, 0)
        };
        // Of a subscription that has ended since then nothing is to be acknowledged any more.
        Some(&self.unanswered.insert((taken, n_before + 1)).0)
    }
}

#[async_trait]
impl Inbox for RabbitInbox {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.at_hand.pop_front() {
                return Some(event);
            }
            let events = wire::decode_events(&self.take().await?.delivery.data);
            for event in events {
                match event {
                    Ok(event) => self.at_hand.push_back(event),
                    // Acknowledged like the others: it is as good as lost.
                    Err(error) => warn!(%error, "an event cannot be read; dropping it"),
                }
            }
        }
    }
}
