//! Stops calls with a credential that its vendor refuses.

use chrono::{DateTime, TimeDelta, Utc};
use inferq_common::error::ErrorClass;

/// How long a circuit is open at first, and as long as it is trusted to probe.
const FIRST_OPEN: TimeDelta = TimeDelta::seconds(30);
/// The longest, doubled at each probe that is refused.
const MAX_OPEN: TimeDelta = TimeDelta::minutes(10);
/// A success this recent shows that the credential is good: a refusal may then be about one request.
const RECENT: TimeDelta = TimeDelta::minutes(1);

/// One circuit: closed while calls go well, open after refusals, half-open while one call probes.
#[derive(Debug, Default)]
pub(super) struct Circuit {
    state: State,
    served_at: Option<DateTime<Utc>>,
    /// Refusals since the last success.
    n_refusals: u32,
    /// How often it opened since it was last closed.
    n_opened: u32,
    epoch: u64,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Closed,
    Open(Refusal),
    Probing {
        refusal: Refusal,
        began_at: DateTime<Utc>,
    },
}

/// What a vendor has refused, and for how long it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    /// `auth` or `quota_exhausted`.
    pub(super) class: ErrorClass,
    /// When it refused first, since it last did not.
    pub(super) since: DateTime<Utc>,
    /// When a call is tried again.
    pub(super) until: DateTime<Utc>,
}

/// Whether a call may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    Yes,
    /// Another call is finding out.
    Soon,
    No(Refusal),
}

/// How many refusals in a row open a closed circuit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Where there was a success of late.
    pub(super) proven: u32,
    pub(super) unproven: u32,
}

impl Patience {
    fn refusals(self, is_proven: bool) -> u32 {
        if is_proven { self.proven } else { self.unproven }
    }
}

/// Which state of the circuit a call began under: what comes of it says nothing about a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch(u64);

impl Circuit {
    pub(super) fn check(&self, now: DateTime<Utc>) -> Check {
        match &self.state {
            State::Closed => Check::Yes,
            State::Open(refusal) => {
                // Further away than it can have been set: the clock was turned back.
                let is_over = refusal.until <= now || refusal.until - now > MAX_OPEN;
                if is_over { Check::Yes } else { Check::No(*refusal) }
            }
            // A probe that takes so long may be at work or hang: another one finds out.
            State::Probing { began_at, .. } if (now - *began_at).abs() >= FIRST_OPEN => Check::Yes,
            State::Probing { .. } => Check::Soon,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// A call starts that [`Check::Yes`] was said to; if the circuit is not closed, it probes.
    pub(super) fn start(&mut self, now: DateTime<Utc>) -> Epoch {
        match self.state {
            State::Closed => {}
            State::Open(refusal) | State::Probing { refusal, .. } => {
                self.state = State::Probing { refusal, began_at: now };
                self.epoch += 1;
            }
        }
        Epoch(self.epoch)
    }

    /// The vendor took the credential.
    pub(super) fn served(&mut self, epoch: Epoch, now: DateTime<Utc>) {
        if epoch != Epoch(self.epoch) {
            return;
        }
        self.served_at = Some(now);
        self.n_refusals = 0;
        self.n_opened = 0;
        self.state = State::Closed;
    }

    /// The vendor refused the credential. Answers whether that has opened the circuit.
    pub(super) fn refused(
        &mut self,
        epoch: Epoch,
        class: ErrorClass,
        patience: Patience,
        now: DateTime<Utc>,
    ) -> bool {
        if epoch != Epoch(self.epoch) {
            return false;
        }
        self.n_refusals = self.n_refusals.saturating_add(1);
        let is_proven = self.served_at.is_some_and(|at| (now - at).abs() < RECENT);
        let since = match self.state {
            State::Closed if self.n_refusals < patience.refusals(is_proven) => return false,
            State::Closed => now,
            State::Open(refusal) | State::Probing { refusal, .. } => refusal.since,
        };
        let until = now + open_for(self.n_opened);
        self.n_opened = self.n_opened.saturating_add(1);
        self.epoch += 1;
        self.state = State::Open(Refusal { class, since, until });
        true
    }

    /// A call ended that says nothing about the credential; if it was to probe, the next one does.
    pub(super) fn unclear(&mut self, epoch: Epoch) {
        if let (State::Probing { refusal, .. }, true) = (&self.state, epoch == Epoch(self.epoch)) {
            self.state = State::Open(*refusal);
        }
    }
}

fn open_for(n_opened: u32) -> TimeDelta {
    FIRST_OPEN.checked_mul(1 << n_opened.min(10)).map_or(MAX_OPEN, |open| open.min(MAX_OPEN))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THREE: Patience = Patience { proven: 3, unproven: 1 };

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn refuse(circuit: &mut Circuit, now: i64) -> bool {
        let epoch = circuit.start(at(now));
        circuit.refused(epoch, ErrorClass::Auth, THREE, at(now))
    }

    fn serve(circuit: &mut Circuit, now: i64) {
        let epoch = circuit.start(at(now));
        circuit.served(epoch, at(now));
    }

    fn no(since: i64, until: i64) -> Check {
        Check::No(Refusal { class: ErrorClass::Auth, since: at(since), until: at(until) })
    }

    #[test]
    fn a_credential_never_seen_to_work_is_out_after_one_refusal() {
        let mut circuit = Circuit::default();
        assert!(refuse(&mut circuit, 10));
        assert_eq!(circuit.check(at(10)), no(10, 40));
        assert_eq!(circuit.check(at(39)), no(10, 40));
        assert_eq!(circuit.check(at(40)), Check::Yes);
    }

    #[test]
    fn one_that_has_just_worked_is_out_after_three() {
        let mut circuit = Circuit::default();
        serve(&mut circuit, 0);
        assert!(!refuse(&mut circuit, 1));
        assert!(!refuse(&mut circuit, 2));
        serve(&mut circuit, 3);
        assert!(!refuse(&mut circuit, 4));
        assert!(!refuse(&mut circuit, 5));
        assert_eq!(circuit.check(at(5)), Check::Yes);
        assert!(refuse(&mut circuit, 6));
        assert_eq!(circuit.check(at(6)), no(6, 36));
        let mut circuit = Circuit::default();
        serve(&mut circuit, 0);
        let epoch = circuit.start(at(59));
        let patience = Patience { proven: u32::MAX, unproven: 2 };
        let mut refuse =
            |now| circuit.refused(epoch, ErrorClass::QuotaExhausted, patience, at(now));
        assert_eq!([59, 59, 60].map(&mut refuse), [false, false, true], "it worked a minute ago");
    }

    #[test]
    fn one_call_probes_and_closes_it_or_opens_it_for_longer() {
        let mut circuit = Circuit::default();
        refuse(&mut circuit, 0);
        let mut now = 30;
        for open in [60, 120, 240, 480, 600, 600] {
            let probe = circuit.start(at(now));
            assert_eq!(circuit.check(at(now)), Check::Soon);
            assert!(circuit.refused(probe, ErrorClass::Auth, THREE, at(now)));
            assert_eq!(circuit.check(at(now)), no(0, now + open));
            now += open;
        }
        serve(&mut circuit, now);
        assert_eq!(circuit.check(at(now)), Check::Yes);
        assert!(refuse(&mut circuit, now + 61));
        assert_eq!(circuit.check(at(now + 61)), no(now + 61, now + 91), "anew");
    }

    #[test]
    fn a_probe_without_an_answer_is_followed_by_another() {
        let mut circuit = Circuit::default();
        refuse(&mut circuit, 0);
        let probe = circuit.start(at(30));
        circuit.unclear(probe);
        assert_eq!(circuit.check(at(30)), Check::Yes);
        let hangs = circuit.start(at(30));
        assert_eq!(circuit.check(at(59)), Check::Soon);
        assert_eq!(circuit.check(at(60)), Check::Yes);
        let second = circuit.start(at(60));
        circuit.unclear(hangs);
        assert_eq!(circuit.check(at(61)), Check::Soon, "the second one probes now");
        circuit.served(second, at(61));
        assert_eq!(circuit.check(at(61)), Check::Yes);
    }

    #[test]
    fn calls_that_began_before_it_opened_change_nothing() {
        let mut circuit = Circuit::default();
        let [one, two, three] = [0; 3].map(|now| circuit.start(at(now)));
        assert!(circuit.refused(one, ErrorClass::Auth, THREE, at(1)));
        assert!(!circuit.refused(two, ErrorClass::Auth, THREE, at(20)));
        circuit.served(three, at(25));
        assert_eq!(circuit.check(at(29)), no(1, 31));
        serve(&mut circuit, 31);
        assert!(!circuit.refused(two, ErrorClass::Auth, THREE, at(32)));
        assert_eq!(circuit.check(at(32)), Check::Yes);
    }

    proptest! {
        /// Whatever happens, a circuit lets a call through again within its longest time.
        #[test]
        fn it_never_stays_open(moves in prop::collection::vec((0_u8..5, 0_i64..90), 0..200)) {
            let mut circuit = Circuit::default();
            let (mut now, mut calls) = (0, Vec::new());
            for (what, pause) in moves {
                now += pause;
                if what < 2 {
                    if circuit.check(at(now)) == Check::Yes {
                        calls.push(circuit.start(at(now)));
                    }
                } else if let Some(call) = calls.pop() {
                    match what {
                        2 => circuit.served(call, at(now)),
                        3 => { circuit.refused(call, ErrorClass::Auth, THREE, at(now)); }
                        _ => circuit.unclear(call),
                    }
                }
                if let Check::No(refusal) = circuit.check(at(now)) {
                    prop_assert!(refusal.since <= at(now) && refusal.until > at(now));
                    prop_assert!(refusal.until <= at(now) + MAX_OPEN);
                }
            }
            prop_assert_eq!(circuit.check(at(now) + MAX_OPEN), Check::Yes);
        }
    }
}
