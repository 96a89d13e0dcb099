//! Acknowledgements: those of a moment travel in one frame.
//!
//! One by one they cost a quorum queue almost as much as the messages themselves. Nothing waits for
//! them: what is delivered again in the meantime is claimed already.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::FutureExt as _;
use lapin::{Channel, options::BasicAckOptions};
use tokio::time::sleep;

use super::feed::{FeedContext, Source};

/// How long an acknowledgement waits for others.
const WAIT: Duration = Duration::from_millis(10);

/// The answers to the messages of one subscription, which has a channel of its own.
pub(super) struct Acks {
    pub(super) channel: Channel,
    context: Arc<FeedContext>,
    /// So many do not wait: a consumer must not run dry meanwhile.
    full: usize,
    state: Mutex<State>,
}

impl Acks {
    pub(super) fn new(context: &Arc<FeedContext>, channel: Channel, source: Source) -> Self {
        let full = match source {
            Source::Lane(_, prefetch) => usize::from(prefetch / 8).max(1),
            Source::Inbox(_) => 1,
        };
        Self { channel, context: Arc::clone(context), full, state: Mutex::default() }
    }

    /// Acknowledges a message, soon.
    pub(super) fn ack(self: &Arc<Self>, tag: u64) {
        let mut state = self.state();
        state.answer(tag, true);
        if state.waiting >= self.full {
            self.flush(&mut state);
        } else if !state.has_timer {
            state.has_timer = true;
            let acks = Arc::clone(self);
            let later = async move {
                sleep(WAIT).await;
                let mut state = acks.state();
                state.has_timer = false;
                acks.flush(&mut state);
            };
            self.context.tasks.spawn_on(later, &self.context.runtime);
        }
    }

    /// Sends what waits. Under the lock: a frame that names a tag after one that answered for it is an
    /// error that closes the channel.
    fn flush(&self, state: &mut State) {
        for (tag, multiple) in state.take() {
            self.send(tag, multiple);
        }
    }

    /// Acknowledges at once; `multiple`: all up to this one.
    pub(super) fn send(&self, tag: u64, multiple: bool) {
        let _ = self.channel.basic_ack(tag, BasicAckOptions { multiple }).now_or_never();
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no one panics while holding the answers")
    }
}

/// Which messages are answered. RabbitMQ numbers the deliveries of a channel from 1 without gaps.
#[derive(Default)]
pub(super) struct State {
    /// All up to this one are.
    answered_to: u64,
    /// Those beyond; `true`: acknowledged, and the server is to be told yet.
    beyond: BTreeMap<u64, bool>,
    /// How many of them the server is to be told of.
    waiting: usize,
    has_timer: bool,
}

impl State {
    /// Notes an answer; `waits`: the server is to be told yet.
    pub(super) fn answer(&mut self, tag: u64, waits: bool) {
        self.beyond.insert(tag, waits);
        self.waiting += usize::from(waits);
    }

    /// The frames that tell the server of all that waits: tags, and whether each stands for all before
    /// it too. One frame goes as far as everything is answered; what lies beyond a gap goes one by one.
    fn take(&mut self) -> Vec<(u64, bool)> {
        let mut last = None;
        while let Some(first) = self.beyond.first_entry()
            && *first.key() == self.answered_to + 1
        {
            let (tag, waits) = first.remove_entry();
            self.answered_to = tag;
            if waits {
                last = Some(tag);
            }
        }
        let mut frames: Vec<(u64, bool)> = last.map(|tag| (tag, true)).into_iter().collect();
        for (&tag, waits) in &mut self.beyond {
            if std::mem::replace(waits, false) {
                frames.push((tag, false));
            }
        }
        self.waiting = 0;
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_frame_answers_for_all_up_to_the_first_gap() {
        let mut state = State::default();
        assert_eq!(state.take(), []);
        for tag in [2, 1, 3, 6, 5] {
            state.answer(tag, true);
        }
        assert_eq!(state.waiting, 5);
        assert_eq!(state.take(), [(3, true), (5, false), (6, false)]);
        assert_eq!((state.waiting, state.take()), (0, vec![]));
        state.answer(4, true);
        state.answer(7, true);
        assert_eq!(state.take(), [(7, true)], "5 and 6 were told before");
        assert!(state.beyond.is_empty());
    }

    #[test]
    fn what_was_given_back_is_answered_and_not_told_again() {
        let mut state = State::default();
        state.answer(1, false);
        assert_eq!(state.take(), []);
        state.answer(3, true);
        state.answer(2, false);
        state.answer(4, false);
        assert_eq!(state.take(), [(3, true)]);
        assert_eq!((state.answered_to, state.take()), (4, vec![]));
    }
}
