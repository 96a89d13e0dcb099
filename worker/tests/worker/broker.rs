//! A broker that does not take events.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use inferq_common::{
    broker::{
        Broker, BrokerError, BrokerHealth, Deliveries, Event, Inbox, LaneDepth, Message,
        SharedBroker,
    },
    id::InstanceId,
    job::Lane,
};

/// Passes messages on, and never ends sending an event.
#[derive(Debug)]
pub(crate) struct StuckBroker {
    inner: SharedBroker,
    n_events: AtomicUsize,
}

impl StuckBroker {
    pub(crate) fn over(inner: SharedBroker) -> Self {
        Self { inner, n_events: AtomicUsize::new(0) }
    }

    /// How many events it was given.
    pub(crate) fn n_events(&self) -> usize {
        self.n_events.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Broker for StuckBroker {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn takes_time(&self) -> bool {
        self.inner.takes_time()
    }

    async fn publish(&self, lane: Lane, message: &Message) -> Result<(), BrokerError> {
        self.inner.publish(lane, message).await
    }

    async fn consume(&self, lane: Lane, prefetch: u16) -> Result<Box<dyn Deliveries>, BrokerError> {
        self.inner.consume(lane, prefetch).await
    }

    async fn inbox(&self, instance: InstanceId) -> Result<Box<dyn Inbox>, BrokerError> {
        self.inner.inbox(instance).await
    }

    async fn send(&self, _: InstanceId, _: &Event) -> Result<(), BrokerError> {
        self.n_events.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }

    async fn hand(&self, to: InstanceId, event: &Event) -> Result<(), BrokerError> {
        self.inner.hand(to, event).await
    }

    async fn depth(&self, lane: Lane) -> Result<LaneDepth, BrokerError> {
        self.inner.depth(lane).await
    }

    fn health(&self) -> BrokerHealth {
        self.inner.health()
    }

    async fn close(&self, grace: Duration) {
        self.inner.close(grace).await;
    }
}
