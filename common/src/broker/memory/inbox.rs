//! Inboxes in memory: the newest events of each instance that listens.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::MAX_EVENTS;
use crate::{
    broker::{BrokerError, Event, Inbox},
    id::InstanceId,
};

/// All open inboxes.
#[derive(Default)]
pub(super) struct Inboxes(Mutex<InboxesState>);

#[derive(Default)]
pub(super) struct InboxesState {
    open: HashMap<InstanceId, Arc<InboxQueue>>,
    pub(super) closed: bool,
}

#[derive(Default)]
struct InboxQueue {
    events: Mutex<VecDeque<Event>>,
    wake: Notify,
}

impl Inboxes {
    pub(super) fn state(&self) -> MutexGuard<'_, InboxesState> {
        self.0.lock().expect("no one panics while holding the inboxes")
    }

    pub(super) fn open(self: &Arc<Self>, instance: InstanceId) -> Result<MemoryInbox, BrokerError> {
        let mut state = self.state();
        if state.closed {
            return Err(BrokerError::Closed);
        }
        let queue = Arc::<InboxQueue>::default();
        state.open.insert(instance, Arc::clone(&queue));
        Ok(MemoryInbox { inboxes: Arc::clone(self), instance, queue })
    }

    /// Whether there is an inbox for it.
    pub(super) fn send(&self, to: InstanceId, event: &Event) -> Result<bool, BrokerError> {
        let state = self.state();
        if state.closed {
            return Err(BrokerError::Closed);
        }
        let Some(inbox) = state.open.get(&to) else { return Ok(false) };
        let mut events = inbox.events();
        if events.len() >= MAX_EVENTS {
            events.pop_front();
        }
        events.push_back(event.clone());
        inbox.wake.notify_one();
        Ok(true)
    }

    pub(super) fn close(&self) {
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

pub(super) struct MemoryInbox {
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
