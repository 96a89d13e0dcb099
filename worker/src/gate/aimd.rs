//! How many calls of one model may run at once: additive increase, multiplicative decrease, as TCP
//! does with its window (RFC 5681).

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

/// No lane is closed longer at a stretch, whatever the vendor asks: one call in ten minutes costs
/// nothing, and a hint that is wrong must not stop a model for a day.
pub(super) const MAX_CLOSED: Duration = Duration::from_mins(10);
/// How long a lane is closed after a first refusal where the vendor names no time; as long as the
/// longest first wait of a retry.
const FIRST_CLOSED: Duration = Duration::from_millis(500);
/// The longest of these, doubled at each refusal without a success between.
const MAX_BACKOFF: Duration = Duration::from_mins(1);
/// A vendor that is asked too much says so at once; a call it has not refused for this long is at
/// work, and the next may follow though the answer is far.
const PATIENCE: TimeDelta = TimeDelta::seconds(5);

/// One step towards a number of calls that was refused is taken this much slower than others: the
/// lane stays for a while where it is well.
const CAUTION: f64 = 16.0;

/// How hard a vendor's refusal cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// It asks to slow down: half of what runs, and a pause.
    RateLimited,
    /// It lacks capacity, which others may use up as well as we: a quarter less, and a pause only
    /// where it names one or lacks it again and again.
    Overloaded,
}

/// Whether a call may start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Yes,
    /// Once another has ended.
    Full,
    /// Not before this has passed.
    ClosedFor(Duration),
}

/// The calls between one decrease and the next. A refusal counts once in a round: those that follow
/// it answer calls that began before it was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Round(u64);

/// The window of one model.
///
/// It starts wide open, at the configured concurrency, not slowly: the operator has said what the
/// vendor takes, the first jobs after each start would else wait for several answers, and being wrong
/// costs one burst of refusals, once. After a pause it does start slowly: one call probes, each
/// answer lets one more run, until half of what was too much is reached. From there it grows by one
/// for each windowful of answers, and slower where it meets what was too much.
#[derive(Debug)]
pub(super) struct Aimd {
    /// Calls at once; 1 to `max`.
    limit: f64,
    max: f64,
    /// How many calls were too many when it was last tried.
    too_many: Option<f64>,
    /// After a pause: how many calls of this round may run, growing from the one that probes.
    ramp: Option<Ramp>,
    in_flight: usize,
    /// Those of them that began in this round.
    in_round: usize,
    round: Round,
    closed_until: Option<DateTime<Utc>>,
    /// Since the last success.
    n_decreases: u32,
}

#[derive(Debug, Clone, Copy)]
struct Ramp {
    limit: usize,
    /// When it last grew or one of its calls began.
    moved_at: Option<DateTime<Utc>>,
}

impl Aimd {
    /// Up to `max` calls at once (at least 1).
    pub(super) fn new(max: usize) -> Self {
        let max = count(max.max(1));
        Self {
            limit: max,
            max,
            too_many: None,
            ramp: None,
            in_flight: 0,
            in_round: 0,
            round: Round(0),
            closed_until: None,
            n_decreases: 0,
        }
    }

    /// How many calls may run at once.
    pub(super) fn limit(&self) -> f64 {
        self.limit
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How long it stays closed.
    pub(super) fn closed_for(&self, now: DateTime<Utc>) -> Option<Duration> {
        let left = (self.closed_until? - now).to_std().ok()?;
        // Further away than it can have been set: the clock was turned back.
        (!left.is_zero() && left <= MAX_CLOSED).then_some(left)
    }

    pub(super) fn room(&mut self, now: DateTime<Utc>) -> Room {
        if let Some(left) = self.closed_for(now) {
            return Room::ClosedFor(left);
        }
        if count(self.in_flight) >= self.limit.floor() {
            return Room::Full;
        }
        let Some(ramp) = &mut self.ramp else { return Room::Yes };
        if self.in_round < ramp.limit {
            return Room::Yes;
        }
        if ramp.moved_at.is_some_and(|moved_at| now - moved_at >= PATIENCE) {
            *ramp = Ramp { limit: ramp.limit + 1, moved_at: Some(now) };
            return Room::Yes;
        }
        Room::Full
    }

    /// Counts a call that there was [`Room::Yes`] for.
    pub(super) fn start(&mut self, now: DateTime<Utc>) -> Round {
        self.in_flight += 1;
        self.in_round += 1;
        if let Some(ramp) = &mut self.ramp {
            ramp.moved_at = Some(now);
        }
        self.round
    }

    /// Frees the place of a call, after it was said what came of it.
    pub(super) fn end(&mut self, round: Round) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if round == self.round {
            self.in_round = self.in_round.saturating_sub(1);
        }
    }

    /// The vendor took a call of this round and answered it. One of an earlier round says nothing
    /// about the limit it was not under.
    pub(super) fn served(&mut self, round: Round, now: DateTime<Utc>) {
        if round != self.round {
            return;
        }
        self.n_decreases = 0;
        match &mut self.ramp {
            Some(ramp) => {
                *ramp = Ramp { limit: ramp.limit + 1, moved_at: Some(now) };
                if count(ramp.limit) >= self.limit {
                    self.ramp = None;
                }
            }
            None => self.widen(),
        }
    }

    fn widen(&mut self) {
        // A limit that is not in use is not tried by what is served under it.
        if count(self.in_flight) * 2.0 < self.limit {
            return;
        }
        // Calls are served where they were refused: the vendor takes more than it did.
        self.too_many = self.too_many.filter(|&too_many| self.limit < too_many);
        let is_near = self.too_many.is_some_and(|too_many| self.limit + 1.0 >= too_many);
        let step = self.limit.recip() / if is_near { CAUTION } else { 1.0 };
        self.limit = (self.limit + step).min(self.max);
    }

    /// The vendor refused a call that is still counted; `hint` is the pause it asked for, `jitter`
    /// any number from 0 to 1.
    pub(super) fn refused(
        &mut self,
        round: Round,
        cut: Cut,
        hint: Option<Duration>,
        jitter: f64,
        now: DateTime<Utc>,
    ) {
        let hint = hint.filter(|hint| !hint.is_zero());
        if round != self.round {
            if let Some(hint) = hint {
                self.close(hint, now);
            }
            return;
        }
        let keep = match cut {
            Cut::RateLimited => 0.5,
            Cut::Overloaded => 0.75,
        };
        // Of what ran, not of what might have: a limit far above it would take many rounds to bite.
        let ran = self.limit.min(count(self.in_flight));
        self.too_many = Some(ran.floor());
        self.limit = (ran * keep).max(1.0);
        self.round = Round(self.round.0 + 1);
        self.in_round = 0;
        self.n_decreases = self.n_decreases.saturating_add(1);
        let is_mild = cut == Cut::Overloaded && self.n_decreases == 1;
        match hint {
            Some(hint) => self.close(hint, now),
            None if is_mild => {}
            None => self.close(backoff(self.n_decreases, jitter), now),
        }
    }

    /// Closes for at least `pause`. What follows starts with one call.
    fn close(&mut self, pause: Duration, now: DateTime<Utc>) {
        let pause = TimeDelta::from_std(pause.min(MAX_CLOSED)).unwrap_or_default();
        self.closed_until = self.closed_until.max(Some(now + pause));
        self.ramp = Some(Ramp { limit: 1, moved_at: None });
    }
}

/// From half of the bound to all of it, so that not all processes come back at once.
fn backoff(n_decreases: u32, jitter: f64) -> Duration {
    let doublings = n_decreases.saturating_sub(1).min(16);
    let bound = FIRST_CLOSED.saturating_mul(1 << doublings).min(MAX_BACKOFF);
    bound.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

#[expect(clippy::cast_precision_loss, reason = "counts of calls are far below 2^52")]
fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn at(millis: i64) -> DateTime<Utc> {
        START + TimeDelta::milliseconds(millis)
    }

    /// Starts as many calls as there is room for.
    fn fill(aimd: &mut Aimd, now: DateTime<Utc>) -> Vec<Round> {
        let mut rounds = Vec::new();
        while aimd.room(now) == Room::Yes {
            rounds.push(aimd.start(now));
        }
        rounds
    }

    fn serve(aimd: &mut Aimd, rounds: Vec<Round>, now: DateTime<Utc>) {
        for round in rounds {
            aimd.served(round, now);
            aimd.end(round);
        }
    }

    fn limit_rate(aimd: &mut Aimd, round: Round, hint: Option<Duration>, now: DateTime<Utc>) {
        aimd.refused(round, Cut::RateLimited, hint, 1.0, now);
        aimd.end(round);
    }

    #[test]
    fn a_lane_that_was_never_refused_takes_all_it_may() {
        let mut aimd = Aimd::new(128);
        assert_eq!(fill(&mut aimd, at(0)).len(), 128);
        assert_eq!(aimd.room(at(0)), Room::Full);
        assert_eq!(fill(&mut Aimd::new(0), at(0)).len(), 1);
    }

    #[test]
    fn a_burst_of_refusals_is_one_decrease() {
        let mut aimd = Aimd::new(100);
        let rounds = fill(&mut aimd, at(0));
        for round in rounds {
            limit_rate(&mut aimd, round, None, at(10));
        }
        assert!((aimd.limit() - 50.0).abs() < 1e-9, "{}", aimd.limit());
        assert_eq!(aimd.room(at(10)), Room::ClosedFor(Duration::from_millis(500)));
    }

    #[test]
    fn a_decrease_goes_by_what_ran() {
        let mut aimd = Aimd::new(100);
        let rounds: Vec<Round> = (0..9).map(|_| aimd.start(at(0))).collect();
        limit_rate(&mut aimd, rounds[8], None, at(10));
        assert!((aimd.limit() - 4.5).abs() < 1e-9, "{}", aimd.limit());
    }

    #[test]
    fn after_a_pause_one_call_probes_and_its_answer_lets_more_follow() {
        let mut aimd = Aimd::new(16);
        let rounds = fill(&mut aimd, at(0));
        for round in rounds {
            limit_rate(&mut aimd, round, Some(Duration::from_secs(3)), at(0));
        }
        assert_eq!(aimd.room(at(1000)), Room::ClosedFor(Duration::from_secs(2)));
        let mut sizes = Vec::new();
        for n in 0..7 {
            let rounds = fill(&mut aimd, at(3000 + n));
            sizes.push(rounds.len());
            serve(&mut aimd, rounds, at(3000 + n));
        }
        assert_eq!(sizes[..4], [1, 2, 4, 8]);
        assert_eq!(sizes[6], 9, "from half on by one for a windowful or two");
    }

    #[test]
    fn a_probe_that_is_refused_closes_for_twice_as_long() {
        let mut aimd = Aimd::new(16);
        let mut now = at(0);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let round = aimd.start(now);
            limit_rate(&mut aimd, round, None, now);
            let Room::ClosedFor(pause) = aimd.room(now) else { panic!("it is closed") };
            pauses.push(pause.as_millis());
            now += TimeDelta::from_std(pause).unwrap();
            assert_eq!(aimd.room(now), Room::Yes);
        }
        assert_eq!(pauses[..4], [500, 1000, 2000, 4000]);
        assert_eq!(pauses[9], 60_000);
        let probe = aimd.start(now);
        serve(&mut aimd, vec![probe], now);
        let round = aimd.start(now);
        limit_rate(&mut aimd, round, None, now);
        assert_eq!(aimd.room(now), Room::ClosedFor(Duration::from_millis(500)));
    }

    #[test]
    fn a_probe_whose_answer_is_far_does_not_hold_the_others_for_ever() {
        let mut aimd = Aimd::new(16);
        let rounds = fill(&mut aimd, at(0));
        for round in rounds {
            limit_rate(&mut aimd, round, None, at(0));
        }
        assert_eq!(fill(&mut aimd, at(1000)).len(), 1);
        assert_eq!(aimd.room(at(5999)), Room::Full);
        assert_eq!(fill(&mut aimd, at(6000)).len(), 1);
        assert_eq!(aimd.room(at(6001)), Room::Full);
    }

    #[test]
    fn a_late_refusal_can_lengthen_the_pause_and_no_more() {
        let mut aimd = Aimd::new(8);
        let rounds = fill(&mut aimd, at(0));
        limit_rate(&mut aimd, rounds[0], Some(Duration::from_secs(1)), at(0));
        limit_rate(&mut aimd, rounds[1], Some(Duration::from_secs(20)), at(0));
        limit_rate(&mut aimd, rounds[2], Some(Duration::from_secs(2)), at(0));
        limit_rate(&mut aimd, rounds[3], None, at(0));
        assert!((aimd.limit() - 4.0).abs() < 1e-9);
        assert_eq!(aimd.room(at(0)), Room::ClosedFor(Duration::from_secs(20)));
    }

    #[test]
    fn a_single_overload_only_narrows() {
        let mut aimd = Aimd::new(8);
        let rounds = fill(&mut aimd, at(0));
        aimd.refused(rounds[0], Cut::Overloaded, None, 1.0, at(0));
        aimd.end(rounds[0]);
        assert!((aimd.limit() - 6.0).abs() < 1e-9);
        assert_eq!(aimd.room(at(0)), Room::Full, "seven still run");
        aimd.end(rounds[1]);
        aimd.end(rounds[2]);
        let round = aimd.start(at(1));
        aimd.refused(round, Cut::Overloaded, None, 1.0, at(1));
        assert_eq!(aimd.room(at(1)), Room::ClosedFor(Duration::from_secs(1)), "twice in a row");
    }

    #[test]
    fn it_lingers_below_what_was_too_many() {
        let mut aimd = Aimd::new(100);
        let mut rounds: Vec<Round> = (0..9).map(|_| aimd.start(at(0))).collect();
        limit_rate(&mut aimd, rounds.remove(8), None, at(0));
        serve(&mut aimd, rounds, at(0));
        let mut n_served = |wanted: f64| {
            let mut n_served = 0;
            while aimd.limit() < wanted {
                let rounds = fill(&mut aimd, at(1000));
                n_served += rounds.len();
                serve(&mut aimd, rounds, at(1000));
            }
            n_served
        };
        let steps = [8.0, 9.0, 10.0].map(&mut n_served);
        assert!((20..80).contains(&steps[0]), "{steps:?}");
        assert!((100..300).contains(&steps[1]), "{steps:?}");
        assert!((5..30).contains(&steps[2]), "{steps:?}: it is served where it was refused");
    }

    #[test]
    fn a_limit_that_is_not_in_use_does_not_grow() {
        let mut aimd = Aimd::new(100);
        let rounds: Vec<Round> = (0..9).map(|_| aimd.start(at(0))).collect();
        for round in rounds {
            limit_rate(&mut aimd, round, None, at(0));
        }
        for _ in 0..100 {
            let round = aimd.start(at(1000));
            serve(&mut aimd, vec![round], at(1000));
        }
        assert!((aimd.limit() - 4.5).abs() < 1e-9, "{}", aimd.limit());
    }

    #[test]
    fn no_hint_closes_for_longer_than_ten_minutes() {
        let mut aimd = Aimd::new(8);
        let round = aimd.start(at(0));
        limit_rate(&mut aimd, round, Some(Duration::from_hours(24)), at(0));
        assert_eq!(aimd.room(at(0)), Room::ClosedFor(MAX_CLOSED));
        assert_eq!(aimd.room(at(-10_000)), Room::Yes, "the clock was turned back");
    }

    proptest! {
        /// Whatever comes of the calls: the limit stays in its bounds, no more calls start than it
        /// allows, and one round has one decrease.
        #[test]
        fn the_limit_holds(
            max in 1_usize..200,
            moves in prop::collection::vec((0_u8..8, 0_usize..64, 0_i64..3000, 0.0_f64..1.0), 1..400),
        ) {
            let mut aimd = Aimd::new(max);
            let mut calls: Vec<Round> = Vec::new();
            let mut now = at(0);
            for (what, which, pause, jitter) in moves {
                now += TimeDelta::milliseconds(pause);
                let before = (aimd.round, aimd.limit());
                if what < 3 {
                    calls.extend(fill(&mut aimd, now));
                    prop_assert!(count(calls.len()) <= aimd.limit().max(count(calls.len() - aimd.in_round)));
                } else if !calls.is_empty() {
                    let round = calls.swap_remove(which % calls.len());
                    let hint = (which % 3 == 0).then(|| Duration::from_millis(which as u64 * 100));
                    match what {
                        3 | 4 => aimd.served(round, now),
                        5 => aimd.refused(round, Cut::RateLimited, hint, jitter, now),
                        6 => aimd.refused(round, Cut::Overloaded, hint, jitter, now),
                        _ => {}
                    }
                    if before.0 != round {
                        prop_assert_eq!((aimd.round, aimd.limit()), before);
                    }
                    aimd.end(round);
                }
                prop_assert!((1.0..=count(max)).contains(&aimd.limit()));
                prop_assert_eq!(aimd.in_flight(), calls.len());
                prop_assert!(aimd.in_round <= aimd.in_flight);
                prop_assert_eq!(aimd.in_round, calls.iter().filter(|&&call| call == aimd.round).count());
            }
            // However bad it was, once all have ended and the pause is over a call may start.
            for round in calls {
                aimd.end(round);
            }
            prop_assert_eq!(aimd.room(now + TimeDelta::minutes(11)), Room::Yes);
        }
    }
}
