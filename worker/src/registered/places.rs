//! At most so many calls of one registered model at once within this process (`per_worker`).

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use chrono::{DateTime, TimeDelta, Utc};
use inferq_common::{clock::Clock, id::ModelId};
use tokio::sync::Notify;

use crate::attempt::SHORT_WAIT;

/// Of a worker's places, one in so many may be held by jobs that wait here, as at the gate.
const WAITING_SHARE: usize = 8;
/// Models that are remembered while nothing of theirs runs or waits.
const MAX_REMEMBERED: usize = 4096;
/// Where nothing is known of how long calls take.
const GUESS: TimeDelta = TimeDelta::milliseconds(500);
/// How much the latest call counts in the mean.
const LATEST: f64 = 0.2;
/// No job is sent further away: other workers may have room, and calls become quicker.
const MAX_AWAY: TimeDelta = TimeDelta::seconds(30);
/// The scheduler looks for due jobs about as often.
const MIN_AWAY: TimeDelta = TimeDelta::milliseconds(250);

/// The calls of all models of this process. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max_waiting: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lines: HashMap<ModelId, Line>,
    n_waiting: usize,
    next: u64,
}

#[derive(Debug)]
struct Line {
    /// As the model had it when it was last asked.
    limit: usize,
    n_running: usize,
    /// First come first served, each with its bell.
    waiting: VecDeque<(u64, Arc<Notify>)>,
    /// How long a call takes.
    mean: Option<TimeDelta>,
    /// When the next job that is sent away is to come back.
    next_slot: DateTime<Utc>,
}

/// What an attempt is answered.
#[derive(Debug)]
pub(super) enum Asked {
    Place(Place),
    /// There will soon be one.
    Wait(Waiting),
    /// There is none; this is when to come back.
    Later(DateTime<Utc>),
}

impl Places {
    pub(super) fn new(concurrency: usize) -> Self {
        let max_waiting = (concurrency / WAITING_SHARE).max(1);
        Self(Arc::new(Shared { max_waiting, state: Mutex::default() }))
    }

    /// Asks for one of `limit` places. Who waits goes first.
    pub(super) fn ask(&self, model: ModelId, limit: usize, now: DateTime<Utc>) -> Asked {
        let limit = limit.max(1);
        let mut state = self.state();
        state.make_room(model);
        let State { lines, n_waiting, next } = &mut *state;
        let line = lines.entry(model).or_insert_with(|| Line::new(limit, now));
        line.limit = limit;
        if line.n_running < limit && line.waiting.is_empty() {
            line.n_running += 1;
            return Asked::Place(self.place(model, now));
        }
        if *n_waiting >= self.0.max_waiting || line.expected_wait() > SHORT_WAIT {
            return Asked::Later(line.slot(now));
        }
        *n_waiting += 1;
        *next += 1;
        let (id, bell) = (*next, Arc::new(Notify::new()));
        line.waiting.push_back((id, Arc::clone(&bell)));
        Asked::Wait(Waiting { places: self.clone(), model, id, bell })
    }

    fn place(&self, model: ModelId, now: DateTime<Utc>) -> Place {
        Place { places: self.clone(), model, began_at: now }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no one panics while holding the places")
    }
}

impl State {
    fn make_room(&mut self, model: ModelId) {
        if self.lines.len() >= MAX_REMEMBERED && !self.lines.contains_key(&model) {
            self.lines.retain(|_, line| line.n_running > 0 || !line.waiting.is_empty());
        }
    }
}

impl Line {
    fn new(limit: usize, now: DateTime<Utc>) -> Self {
        Self { limit, n_running: 0, waiting: VecDeque::new(), mean: None, next_slot: now }
    }

    /// How long it takes until another call has ended.
    fn interval(&self) -> TimeDelta {
        let mean = self.mean.unwrap_or(GUESS).max(TimeDelta::milliseconds(1));
        mean / i32::try_from(self.limit).unwrap_or(i32::MAX)
    }

    /// How long one more would wait.
    fn expected_wait(&self) -> TimeDelta {
        let ahead = i32::try_from(self.waiting.len() + 1).unwrap_or(i32::MAX);
        self.mean.map_or(TimeDelta::zero(), |_| self.interval() * ahead)
    }

    /// When a job that is not to wait here should come back: each gets a moment of its own.
    fn slot(&mut self, now: DateTime<Utc>) -> DateTime<Utc> {
        let slot = (self.next_slot + self.interval()).max(now + MIN_AWAY);
        if slot > now + MAX_AWAY {
            // Begins anew, so that they are spread over the whole time.
            self.next_slot = now;
            return now + MAX_AWAY;
        }
        self.next_slot = slot;
        slot
    }

    /// Rings for the first of those who wait, which rings again as it leaves.
    fn call_next(&self) {
        if let Some((_, bell)) = self.waiting.front() {
            bell.notify_one();
        }
    }
}

/// The right to one call. Dropped, it is free for another.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    model: ModelId,
    began_at: DateTime<Utc>,
}

impl Place {
    /// The call has ended by itself: how long it took is remembered.
    pub(super) fn leave(self, now: DateTime<Utc>) {
        if let Some(line) = self.places.state().lines.get_mut(&self.model) {
            let took = (now - self.began_at).max(TimeDelta::zero());
            line.mean = Some(line.mean.map_or(took, |mean| blend(mean, took)));
        }
    }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "an estimate")]
fn blend(mean: TimeDelta, latest: TimeDelta) -> TimeDelta {
    let micros = |delta: TimeDelta| delta.num_microseconds().unwrap_or(i64::MAX) as f64;
    TimeDelta::microseconds((micros(mean) * (1.0 - LATEST) + micros(latest) * LATEST) as i64)
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(line) = self.places.state().lines.get_mut(&self.model) {
            line.n_running = line.n_running.saturating_sub(1);
            line.call_next();
        }
    }
}

/// A turn in the line of a model. Dropped, it is given up.
#[derive(Debug)]
pub(super) struct Waiting {
    places: Places,
    model: ModelId,
    id: u64,
    bell: Arc<Notify>,
}

impl Waiting {
    /// Waits until it is this one's turn.
    ///
    /// **Cancel safe:** dropping the future keeps the turn.
    pub(super) async fn turn(&self, clock: &dyn Clock) -> Place {
        loop {
            if let Some(place) = self.take(clock.now()) {
                return place;
            }
            self.bell.notified().await;
        }
    }

    fn take(&self, now: DateTime<Utc>) -> Option<Place> {
        let mut state = self.places.state();
        let line = state.lines.get_mut(&self.model)?;
        let is_first = line.waiting.front().is_some_and(|(id, _)| *id == self.id);
        if !is_first || line.n_running >= line.limit {
            return None;
        }
        line.n_running += 1;
        Some(self.places.place(self.model, now))
    }

    /// When to come back where the turn has not come in time.
    pub(super) fn later(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let mut state = self.places.state();
        state.lines.get_mut(&self.model).map_or(now + MIN_AWAY, |line| line.slot(now))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.places.state();
        state.n_waiting = state.n_waiting.saturating_sub(1);
        if let Some(line) = state.lines.get_mut(&self.model) {
            line.waiting.retain(|(id, _)| *id != self.id);
            line.call_next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::milliseconds(millis)
    }

    #[derive(Debug)]
    struct Still;

    impl Clock for Still {
        fn now(&self) -> DateTime<Utc> {
            at(0)
        }
    }

    #[track_caller]
    fn placed(asked: Asked) -> Place {
        let Asked::Place(place) = asked else { panic!("{asked:?}") };
        place
    }

    #[tokio::test]
    async fn no_more_calls_run_at_once_than_the_model_bears() {
        let places = Places::new(64);
        let (model, other) = (ModelId::new(at(0)), ModelId::new(at(1)));
        let first = placed(places.ask(model, 2, at(0)));
        let _second = placed(places.ask(model, 2, at(0)));
        let Asked::Wait(third) = places.ask(model, 2, at(0)) else { panic!() };
        let _others = placed(places.ask(other, 2, at(0)));
        let mut turn = Box::pin(third.turn(&Still));
        assert!(futures::poll!(&mut turn).is_pending());
        first.leave(at(10));
        let place = turn.await;
        drop(third);
        // A place that is dropped, as by a cancelled call, is free as well.
        drop(place);
        placed(places.ask(model, 2, at(0)));
    }

    #[tokio::test]
    async fn who_waits_goes_first_and_in_order() {
        let places = Places::new(64);
        let model = ModelId::new(at(0));
        let only = placed(places.ask(model, 1, at(0)));
        let Asked::Wait(one) = places.ask(model, 1, at(0)) else { panic!() };
        let Asked::Wait(two) = places.ask(model, 1, at(0)) else { panic!() };
        drop(only);
        assert!(matches!(places.ask(model, 1, at(0)), Asked::Wait(_)), "not before those who wait");
        let mut second = Box::pin(two.turn(&Still));
        assert!(futures::poll!(&mut second).is_pending());
        drop(one);
        assert!(futures::poll!(&mut second).is_ready(), "who gives up makes way");
    }

    #[test]
    fn a_bound_that_was_raised_counts_at_once() {
        let places = Places::new(64);
        let model = ModelId::new(at(0));
        let _one = placed(places.ask(model, 1, at(0)));
        assert!(!matches!(places.ask(model, 1, at(0)), Asked::Place(_)));
        placed(places.ask(model, 2, at(0)));
    }

    #[test]
    fn what_cannot_wait_is_spread_over_the_time_to_come() {
        let places = Places::new(8);
        let model = ModelId::new(at(0));
        placed(places.ask(model, 2, at(0))).leave(at(1000));
        let _running = [0, 1].map(|_| placed(places.ask(model, 2, at(1000))));
        let Asked::Wait(_waiting) = places.ask(model, 2, at(1000)) else { panic!() };
        let slots: Vec<_> = (0..3)
            .map(|_| match places.ask(model, 2, at(1000)) {
                Asked::Later(slot) => slot,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(slots, [at(1250), at(1750), at(2250)]);
        for _ in 0..1000 {
            let Asked::Later(slot) = places.ask(model, 2, at(1000)) else { panic!() };
            assert!(slot >= at(1250) && slot <= at(31_000));
        }
    }

    #[test]
    fn a_long_call_is_not_waited_for() {
        let places = Places::new(64);
        let model = ModelId::new(at(0));
        placed(places.ask(model, 1, at(0))).leave(at(60_000));
        let _running = placed(places.ask(model, 1, at(60_000)));
        assert!(matches!(places.ask(model, 1, at(60_000)), Asked::Later(_)));
    }
}
