//! Events on their way out: those of one moment for one instance travel in one message.
//!
//! Jobs are finished in groups, so their events come in groups too, and a message costs the server
//! the same whatever it holds.

use std::time::Duration;

use lapin::{options::BasicPublishOptions, types::ShortString};
use tokio::{sync::mpsc, task::yield_now, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{link::Link, topology, wire};
use crate::{broker::BrokerError, id::InstanceId};

/// Events that are put into messages at a time.
const MAX_EVENTS: usize = 256;

/// A message takes no further event once it has this many bytes.
const FULL_MESSAGE_BYTES: usize = 128 * 1024;

/// Events that may wait to be sent.
pub(super) const QUEUE: usize = 1024;

/// One event, as it will lie in the queue of `to`.
pub(super) struct Outgoing {
    pub(super) to: InstanceId,
    pub(super) event: Vec<u8>,
}

/// Sends events. What cannot be sent is lost, as events may be.
pub(super) struct EventTask {
    pub(super) link: Link,
    pub(super) events: mpsc::Receiver<Outgoing>,
    pub(super) send_timeout: Duration,
    /// Takes no more, sends what is left and ends.
    pub(super) closing: CancellationToken,
}

impl EventTask {
    pub(super) async fn run(mut self) {
        let mut events = Vec::new();
        loop {
            let taken = tokio::select! {
                taken = self.events.recv_many(&mut events, MAX_EVENTS) => taken,
                () = self.closing.cancelled(), if !self.events.is_closed() => {
                    self.events.close();
                    continue;
                }
            };
            if taken == 0 {
                return;
            }
            // The first of a group wakes this task; the rest follow as soon as theirs have run.
            yield_now().await;
            while events.len() < MAX_EVENTS
                && let Ok(event) = self.events.try_recv()
            {
                events.push(event);
            }
            let sent = timeout(self.send_timeout, self.send(messages(events.drain(..))));
            match sent.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "events were not sent"),
                Err(_) => debug!("events were not sent in time"),
            }
        }
    }

    async fn send(&self, messages: Vec<Outgoing>) -> Result<(), BrokerError> {
        let unavailable = |error: lapin::Error| BrokerError::Unavailable(error.to_string());
        let live = self.link.sending().await?;
        let channel = live.events().await.map_err(unavailable)?;
        for Outgoing { to, event } in messages {
            let sent = channel.basic_publish(
                ShortString::default(),
                topology::inbox_queue(to),
                BasicPublishOptions::default(),
                &event,
                wire::event_properties(),
            );
            sent.await.map_err(unavailable)?;
        }
        Ok(())
    }
}

/// Puts events into messages; those for one instance stay in their order.
fn messages(events: impl Iterator<Item = Outgoing>) -> Vec<Outgoing> {
    let mut messages: Vec<(Outgoing, usize)> = Vec::new();
    for Outgoing { to, event } in events {
        // The last one for this instance is the one that may have room.
        match messages.iter_mut().rev().find(|(message, _)| message.to == to) {
            Some((message, n_events)) if message.event.len() < FULL_MESSAGE_BYTES => {
                if *n_events == 1 {
                    message.event.insert(0, b'[');
                }
                message.event.push(b',');
                message.event.extend_from_slice(&event);
                *n_events += 1;
            }
            _ => messages.push((Outgoing { to, event }, 1)),
        }
    }
    let close = |(mut message, n_events): (Outgoing, usize)| {
        if n_events > 1 {
            message.event.push(b']');
        }
        message
    };
    messages.into_iter().map(close).collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn event(to: u128, text: &str) -> Outgoing {
        Outgoing { to: InstanceId::from_uuid(Uuid::from_u128(to)), event: text.into() }
    }

    fn texts(events: Vec<Outgoing>) -> Vec<(u128, String)> {
        let text = |message: Outgoing| {
            (message.to.as_uuid().as_u128(), String::from_utf8(message.event).unwrap())
        };
        messages(events.into_iter()).into_iter().map(text).collect()
    }

    #[test]
    fn events_of_one_instance_share_a_message_and_keep_their_order() {
        let events = vec![event(1, "1"), event(2, "2"), event(1, "3"), event(1, "4")];
        assert_eq!(texts(events), [(1, "[1,3,4]".to_owned()), (2, "2".to_owned())]);
        assert!(texts(Vec::new()).is_empty());
    }

    #[test]
    fn a_full_message_takes_no_further_event() {
        let large = "9".repeat(FULL_MESSAGE_BYTES);
        let events = vec![event(1, &large), event(1, "1"), event(1, &large), event(1, "2")];
        let expected = [(1, large.clone()), (1, format!("[1,{large}]")), (1, "2".to_owned())];
        assert_eq!(texts(events), expected);
    }
}
