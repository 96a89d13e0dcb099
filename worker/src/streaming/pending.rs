//! Chunks on their way to someone who takes them in groups.

use std::sync::{Mutex, MutexGuard};

use inferq_common::job::Json;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Chunks in their order, between one who gives them one by one and one who takes them in groups.
#[derive(Debug)]
pub(super) struct Pending {
    state: Mutex<State>,
    max_bytes: usize,
    /// Rung for the taker: there is more, or no more will come.
    filled: Notify,
    /// Rung for the giver: there is room again.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The index of the first chunk here.
    first: u64,
    chunks: Vec<Json>,
    bytes: usize,
    is_closed: bool,
}

/// Chunks that follow each other; at least one.
#[derive(Debug, PartialEq)]
pub(super) struct Taken {
    /// The index of the first.
    pub(super) first: u64,
    pub(super) chunks: Vec<Json>,
}

impl Pending {
    /// Holds about `max_bytes`.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { state: Mutex::default(), max_bytes, filled: Notify::new(), emptied: Notify::new() }
    }

    /// Gives the next chunk, then waits while too much is here.
    ///
    /// **Cancel safe:** the chunk is here from the first poll on.
    pub(super) async fn give(&self, chunk: &Json) {
        self.state().add(chunk);
        self.filled.notify_one();
        while self.state().bytes > self.max_bytes {
            self.emptied.notified().await;
        }
    }

    /// Gives the next chunk, in place of all that are here where it would be too much. Answers how
    /// many were lost, itself included: one that is too much by itself is.
    pub(super) fn give_or_drop(&self, chunk: &Json) -> usize {
        let mut state = self.state();
        let mut n_lost = 0;
        if state.bytes + chunk.as_str().len() > self.max_bytes {
            n_lost = state.take().chunks.len();
        }
        if chunk.as_str().len() > self.max_bytes {
            state.first += 1;
            return n_lost + 1;
        }
        state.add(chunk);
        self.filled.notify_one();
        n_lost
    }

    /// No more will be given.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.filled.notify_one();
    }

    /// All that is here, once there is something; `None`: no more will come.
    ///
    /// **Cancel safe.**
    pub(super) async fn take(&self) -> Option<Taken> {
        self.take_ripe(Instant::now(), 0).await
    }

    /// All that is here: at `due_at` or when there is something after it, at once when there are
    /// `enough_bytes` or no more will be given. `None`: no more will come.
    ///
    /// **Cancel safe.**
    pub(super) async fn take_ripe(&self, due_at: Instant, enough_bytes: usize) -> Option<Taken> {
        loop {
            {
                let mut state = self.state();
                let is_ripe =
                    state.is_closed || state.bytes >= enough_bytes || Instant::now() >= due_at;
                if is_ripe && !state.chunks.is_empty() {
                    self.emptied.notify_one();
                    return Some(state.take());
                }
                if state.is_closed {
                    return None;
                }
            }
            tokio::select! {
                () = self.filled.notified() => {}
                () = sleep_until(due_at), if Instant::now() < due_at => {}
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no one panics while holding the chunks")
    }
}

impl State {
    fn add(&mut self, chunk: &Json) {
        self.bytes += chunk.as_str().len();
        self.chunks.push(chunk.clone());
    }

    fn take(&mut self) -> Taken {
        let taken = Taken { first: self.first, chunks: std::mem::take(&mut self.chunks) };
        self.first += taken.chunks.len() as u64;
        self.bytes = 0;
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, time::Duration};

    use futures::{FutureExt as _, future::poll_immediate};

    use super::*;

    fn chunk(n: usize) -> Json {
        Json::parse(format!("{n:0>10}").replacen('0', "1", 1)).unwrap()
    }

    fn taken(first: usize, end: usize) -> Taken {
        Taken { first: first as u64, chunks: (first..end).map(chunk).collect() }
    }

    #[tokio::test]
    async fn what_is_there_is_taken_at_once_and_all_together() {
        let pending = Pending::new(1000);
        let mut take = pin!(pending.take());
        assert!(poll_immediate(&mut take).await.is_none());
        pending.give(&chunk(0)).await;
        pending.give(&chunk(1)).await;
        assert_eq!(take.await, Some(taken(0, 2)));
        pending.give(&chunk(2)).await;
        pending.close();
        assert_eq!(pending.take().await, Some(taken(2, 3)));
        assert_eq!(pending.take().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_waits_for_its_time_its_size_or_the_end() {
        let pending = Pending::new(1000);
        let start = Instant::now();
        let due_at = start + Duration::from_millis(100);
        pending.give(&chunk(0)).await;
        assert_eq!(pending.take_ripe(due_at, 25).await, Some(taken(0, 1)));
        assert_eq!(start.elapsed(), Duration::from_millis(100));

        let due_at = due_at + Duration::from_millis(100);
        let mut take = pin!(pending.take_ripe(due_at, 25));
        for n in 1..3 {
            pending.give(&chunk(n)).await;
            assert!(poll_immediate(&mut take).await.is_none());
        }
        pending.give(&chunk(3)).await;
        assert_eq!(take.now_or_never().unwrap(), Some(taken(1, 4)), "30 bytes are enough");

        pending.give(&chunk(4)).await;
        pending.close();
        assert_eq!(pending.take_ripe(due_at, 25).now_or_never().unwrap(), Some(taken(4, 5)));

        let pending = Pending::new(1000);
        let mut take = pin!(pending.take_ripe(start, 25));
        assert!(poll_immediate(&mut take).await.is_none(), "there is nothing");
        pending.give(&chunk(0)).await;
        assert_eq!(take.now_or_never().unwrap(), Some(taken(0, 1)), "it is long due");
    }

    #[tokio::test]
    async fn a_giver_waits_for_room() {
        let pending = Pending::new(20);
        pending.give(&chunk(0)).await;
        pending.give(&chunk(1)).await;
        let last = chunk(2);
        let mut more = pin!(pending.give(&last));
        assert!(poll_immediate(&mut more).await.is_none());
        assert!(poll_immediate(&mut more).await.is_none());
        assert_eq!(pending.take().await, Some(taken(0, 3)));
        more.await;

        let last = chunk(3);
        assert!(pending.give(&last).now_or_never().is_some());
        let large = Json::parse(format!("\"{}\"", "x".repeat(100))).unwrap();
        assert!(pending.give(&large).now_or_never().is_none(), "the giver goes away");
        let Taken { first, chunks } = pending.take().await.unwrap();
        assert_eq!((first, chunks), (3, vec![last, large]), "nothing is lost");
    }

    #[tokio::test]
    async fn what_nobody_takes_gives_way_to_what_is_new() {
        let pending = Pending::new(20);
        let lost: Vec<usize> = (0..5).map(|n| pending.give_or_drop(&chunk(n))).collect();
        assert_eq!(lost, [0, 0, 2, 0, 2]);
        assert_eq!(pending.take().await, Some(taken(4, 5)));

        let large = Json::parse(format!("\"{}\"", "x".repeat(100))).unwrap();
        assert_eq!(pending.give_or_drop(&large), 1);
        assert_eq!(pending.give_or_drop(&chunk(6)), 0);
        assert_eq!(pending.take().await, Some(taken(6, 7)));
    }
}
