//! Consuming: a keeper task holds one subscription open, the reader takes from it.
//!
//! The server may close a channel (a consumer that answers too late gets 406), cancel a consumer
//! (its queue was deleted) or go away; the keeper subscribes anew each time.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt as _, StreamExt as _};
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{
        BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
        BasicRejectOptions,
    },
    types::{FieldTable, ShortString},
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use super::{
    acks::Acks,
    link::{Backoff, Link, Live},
    topology,
};
use crate::{id::InstanceId, job::Lane};

/// Events handed over and not acknowledged; bounds what one inbox holds in memory.
const INBOX_PREFETCH: u16 = 64;

/// Of these so many are acknowledged together where more are at hand.
pub(super) const INBOX_ACKS: usize = 32;

/// How long an ended subscription may take to give back what it held.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(5);

/// What is consumed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    Lane(Lane, u16),
    Inbox(InstanceId),
}

impl Source {
    async fn subscribe(self, live: &Live) -> lapin::Result<(Channel, Consumer)> {
        if let Self::Lane(lane, _) = self {
            // Forgotten at once, so that the next subscribe declares it: a deleted queue is one reason
            // to subscribe again.
            let declared = live.declare(lane).await?;
            live.forget(lane, declared);
        }
        let channel = live.connection.create_channel().await?;
        let (queue, prefetch) = match self {
            Self::Lane(lane, prefetch) => (topology::lane_queue(lane), prefetch),
            Self::Inbox(instance) => {
                topology::declare_inbox(&channel, instance).await?;
                (topology::inbox_queue(instance), INBOX_PREFETCH)
            }
        };
        channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let consumer = channel
            .basic_consume(queue, ShortString::default(), options, FieldTable::default())
            .await?;
        Ok((channel, consumer))
    }
}

/// What all feeds of a broker share.
pub(super) struct FeedContext {
    pub(super) link: Link,
    pub(super) closed: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) runtime: Handle,
    /// Bounds one subscribe.
    pub(super) timeout: Duration,
}

/// One open subscription.
struct Subscription {
    acks: Arc<Acks>,
    consumer: Consumer,
    /// Dropped with it, which tells the keeper.
    _alive: oneshot::Sender<()>,
}

/// Messages of one source, across all subscriptions it takes to read them.
pub(super) struct Feed {
    context: Arc<FeedContext>,
    source: Source,
    current: Option<Subscription>,
    subscriptions: mpsc::Receiver<Subscription>,
}

impl Feed {
    /// Starts the keeper, and waits for its first subscription while the server can be reached.
    pub(super) async fn open(context: Arc<FeedContext>, source: Source) -> Self {
        let (sender, subscriptions) = mpsc::channel(1);
        let keeper = Keeper { context: Arc::clone(&context), source, subscriptions: sender };
        let closed = context.closed.clone();
        context.tasks.spawn_on(
            async move {
                closed.run_until_cancelled(keeper.run()).await;
            },
            &context.runtime,
        );
        let mut feed = Self { context, source, current: None, subscriptions };
        feed.wait_for_first().await;
        feed
    }

    async fn wait_for_first(&mut self) {
        let link = self.context.link.clone();
        let out_of_reach = async {
            link.tried().await;
            if link.trouble().is_none() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = out_of_reach => {}
            () = sleep(self.context.timeout) => {}
            subscription = self.subscriptions.recv() => self.current = subscription,
        }
    }

    /// The next message; `None` once the broker is closed. **Cancel safe.**
    pub(super) async fn next(&mut self) -> Option<Taken> {
        let closed = self.context.closed.clone();
        loop {
            if self.current.is_none() {
                self.current = Some(closed.run_until_cancelled(self.subscriptions.recv()).await??);
            }
            let subscription = self.current.as_mut()?;
            let item = closed.run_until_cancelled(subscription.consumer.next()).await?;
            if let Some(taken) = self.take(item) {
                return Some(taken);
            }
        }
    }

    /// The next message at hand.
    pub(super) fn try_next(&mut self) -> Option<Taken> {
        if self.context.closed.is_cancelled() {
            return None;
        }
        if self.current.is_none() {
            self.current = self.subscriptions.try_recv().ok();
        }
        let item = self.current.as_mut()?.consumer.next().now_or_never()?;
        self.take(item)
    }

    fn take(&mut self, item: Option<lapin::Result<Delivery>>) -> Option<Taken> {
        match item {
            Some(Ok(delivery)) => {
                let acks = Arc::clone(&self.current.as_ref()?.acks);
                return Some(Taken { delivery, acks });
            }
            Some(Err(error)) => {
                info!(source = ?self.source, %error, "the subscription ended; subscribing again");
            }
            None => debug!(source = ?self.source, "the subscription ended; subscribing again"),
        }
        self.current = None;
        None
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.subscriptions.close();
        let waiting = std::iter::from_fn(|| self.subscriptions.try_recv().ok());
        for subscription in self.current.take().into_iter().chain(waiting) {
            let giving_back = timeout(GIVE_BACK_WITHIN, give_back(subscription));
            self.context.tasks.spawn_on(giving_back, &self.context.runtime);
        }
    }
}

/// Ends a subscription. What it had buffered goes back at once, though deliveries in others' hands
/// may keep its channel open.
async fn give_back(mut subscription: Subscription) {
    let tag = subscription.consumer.tag();
    // Answered after everything that was on its way: the consumer's stream ends then.
    let channel = &subscription.acks.channel;
    if channel.basic_cancel(tag, BasicCancelOptions::default()).await.is_err() {
        return;
    }
    while let Some(Ok(delivery)) = subscription.consumer.next().await {
        Taken { delivery, acks: Arc::clone(&subscription.acks) }.nack();
    }
}

/// Keeps one source subscribed.
struct Keeper {
    context: Arc<FeedContext>,
    source: Source,
    subscriptions: mpsc::Sender<Subscription>,
}

impl Keeper {
    async fn run(self) {
        let dropped = self.subscriptions.clone();
        tokio::select! {
            () = dropped.closed() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&self) {
        let mut backoff = Backoff::default();
        while let Some(live) = self.context.link.live().await {
            let since = Instant::now();
            match timeout(self.context.timeout, self.source.subscribe(&live)).await {
                Ok(Ok((channel, consumer))) => {
                    let (alive, ended) = oneshot::channel();
                    let acks = Arc::new(Acks::new(&self.context, channel, self.source));
                    let subscription = Subscription { acks, consumer, _alive: alive };
                    if self.subscriptions.send(subscription).await.is_err() {
                        return;
                    }
                    // The other end never sends: any answer is the end.
                    let _ = live.over.run_until_cancelled(ended).await;
                    if since.elapsed() > Backoff::MAX {
                        backoff = Backoff::default();
                    }
                }
                Ok(Err(error)) => warn!(source = ?self.source, %error, "cannot subscribe yet"),
                Err(_) => warn!(source = ?self.source, "cannot subscribe yet: timed out"),
            }
            live.over.run_until_cancelled(sleep(backoff.next())).await;
        }
    }
}

/// One message, and the channel that must answer for it.
///
/// Answers queue a frame and do not wait for it to be written. On a dead channel they do nothing:
/// its messages are delivered again anyway.
pub(super) struct Taken {
    pub(super) delivery: Delivery,
    /// Keeps the channel open, even when its consumer is gone.
    acks: Arc<Acks>,
}

impl Taken {
    /// Done with, in a few milliseconds at most.
    pub(super) fn ack(&self) {
        self.acks.ack(self.delivery.delivery_tag);
    }

    /// Answers for all of its channel up to this one, which none of them was before.
    pub(super) fn ack_all(&self) {
        self.acks.send(self.delivery.delivery_tag, true);
    }

    /// Deliver it again, to anyone.
    pub(super) fn nack(&self) {
        let tag = self.delivery.delivery_tag;
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        let _ = self.acks.channel.basic_nack(tag, options).now_or_never();
        self.acks.state().answer(tag, false);
    }

    /// Set it aside.
    pub(super) fn reject(&self) {
        let tag = self.delivery.delivery_tag;
        let options = BasicRejectOptions { requeue: false };
        let _ = self.acks.channel.basic_reject(tag, options).now_or_never();
        self.acks.state().answer(tag, false);
    }
}
