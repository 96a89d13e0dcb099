//! Publishing with confirms: one task owns the channel, hundreds of messages are outstanding.
//!
//! One task, because lapin numbers a publish and queues its frames in two steps: two tasks that
//! publish on one channel can swap numbers, and with them their confirms. And because lapin keeps a
//! confirm whose future was dropped: here every confirm is awaited, whether its caller is still
//! there or not.

use std::collections::HashMap;

use futures::{
    FutureExt as _, StreamExt as _,
    stream::{FuturesUnordered, Stream},
};
use lapin::{
    Channel, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    link::{Backoff, Link, Live},
    wire::Encoded,
};

/// One message to publish.
pub(super) struct Request {
    /// The queue.
    pub(super) key: ShortString,
    pub(super) message: Encoded,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What became of it. No answer: the connection went first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Confirmed,
    /// The server could not take it.
    Nacked,
    /// There is no queue for it.
    Returned,
    Lost(String),
}

/// Publishes what is requested, on one channel after the other.
pub(super) struct PublishTask {
    pub(super) link: Link,
    pub(super) requests: mpsc::Receiver<Request>,
    /// Requests whose callers still wait.
    pub(super) max_outstanding: usize,
    pub(super) open_timeout: std::time::Duration,
}

impl PublishTask {
    pub(super) async fn run(mut self) {
        let mut carried = None;
        let mut backoff = Backoff::default();
        while let Some(live) = self.link.live().await {
            match timeout(self.open_timeout, open(&live)).await {
                Ok(Ok(channel)) => {
                    backoff = Backoff::default();
                    match self.serve(&live, channel, carried.take()).await {
                        Next::Reopen(request) => carried = request.map(|request| *request),
                        Next::Stop => return,
                    }
                    continue;
                }
                Ok(Err(error)) => debug!(%error, "no channel to publish on yet"),
                Err(_) => debug!("no channel to publish on yet: timed out"),
            }
            live.over.run_until_cancelled(sleep(backoff.next())).await;
        }
    }

    /// Publishes on one channel until it ends.
    async fn serve(&mut self, live: &Live, channel: Channel, first: Option<Request>) -> Next {
        let mut outstanding = Outstanding::default();
        let mut confirms = FuturesUnordered::new();
        if let Some(request) = first {
            confirms.push(publish(channel.clone(), outstanding.add(request)));
        }
        loop {
            tokio::select! {
                biased;
                () = live.over.cancelled() => return Next::Reopen(None),
                Some(settled) = confirms.next() => {
                    let mut batch = vec![settled];
                    drain(&mut confirms, &mut batch);
                    outstanding.settle(batch);
                }
                request = self.requests.recv() => match request {
                    None => return Next::Stop,
                    // Nobody waits for it any more.
                    Some(request) if request.answer.is_closed() => {}
                    Some(request) if !channel.status().connected() => {
                        return Next::Reopen(Some(Box::new(request)));
                    }
                    Some(request) => {
                        confirms.push(publish(channel.clone(), outstanding.add(request)));
                    }
                },
            }
            if confirms.is_empty() && !channel.status().connected() {
                return Next::Reopen(None);
            }
            // Callers wait for no more than `max_outstanding`; the rest have given up on theirs. A
            // server that owes that many confirms is asked anew, so that they cannot pile up.
            if confirms.len() >= 2 * self.max_outstanding {
                warn!(unconfirmed = confirms.len(), "confirms stay out; opening another channel");
                return Next::Reopen(None);
            }
        }
    }
}

enum Next {
    Reopen(Option<Box<Request>>),
    Stop,
}

async fn open(live: &Live) -> lapin::Result<Channel> {
    let channel = live.connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// A message on its way, with the number it has in [`Outstanding`].
struct Numbered {
    number: u64,
    key: ShortString,
    message: Encoded,
}

/// A publish and its confirm. Its first poll queues the frames, so the order of polls is the order
/// in the lane.
async fn publish(channel: Channel, sent: Numbered) -> (u64, lapin::Result<Confirmation>) {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let Numbered { number, key, message } = sent;
    let published = channel
        .basic_publish(ShortString::default(), key, options, &message.body, message.properties)
        .await;
    match published {
        Ok(confirm) => (number, confirm.await),
        Err(error) => (number, Err(error)),
    }
}

/// Adds every result that is at hand.
fn drain<S: Stream + Unpin>(results: &mut S, batch: &mut Vec<S::Item>) {
    while let Some(Some(next)) = results.next().now_or_never() {
        batch.push(next);
    }
}

/// The requests without an answer yet.
#[derive(Default)]
struct Outstanding {
    last: u64,
    waiting: HashMap<u64, Waiting>,
}

struct Waiting {
    key: ShortString,
    answer: oneshot::Sender<Answer>,
    /// A message to the same queue came back while this one was out.
    suspect: bool,
}

impl Outstanding {
    fn add(&mut self, request: Request) -> Numbered {
        self.last += 1;
        let key = request.key;
        self.waiting.insert(
            self.last,
            Waiting { key: key.clone(), answer: request.answer, suspect: false },
        );
        Numbered { number: self.last, key, message: request.message }
    }

    /// Answers those that are settled.
    ///
    /// The server confirms an unroutable message like any other, and sends it back before. lapin
    /// gives what came back to whichever confirm is settled next, which need not be its own. So all
    /// that were out for the same queue count as returned: a message too many does no harm.
    fn settle(&mut self, batch: Vec<(u64, lapin::Result<Confirmation>)>) {
        let mut answers = Vec::with_capacity(batch.len());
        for (number, result) in batch {
            let answer = match result {
                Ok(confirmation) => {
                    let acked = confirmation.is_ack();
                    if let Some(returned) = confirmation.take_message() {
                        self.suspect(&returned.delivery.routing_key);
                    }
                    if acked { Answer::Confirmed } else { Answer::Nacked }
                }
                Err(error) => Answer::Lost(error.to_string()),
            };
            answers.push((number, answer));
        }
        for (number, answer) in answers {
            let Some(waiting) = self.waiting.remove(&number) else { continue };
            let answer = match answer {
                Answer::Confirmed if waiting.suspect => Answer::Returned,
                answer => answer,
            };
            // The caller may have given up.
            let _ = waiting.answer.send(answer);
        }
    }

    fn suspect(&mut self, key: &ShortString) {
        for waiting in self.waiting.values_mut().filter(|waiting| waiting.key == *key) {
            waiting.suspect = true;
        }
    }
}
