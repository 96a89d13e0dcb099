//! Holds calls back that a vendor would refuse: a window for each model (429, 503), a circuit for
//! each credential (401, quota).
//!
//! **Invariant:** the gate decides before a call and learns after it; it never makes one, and it
//! keeps nothing in the store. Each process learns by itself.

mod aimd;
mod circuit;
mod lane;
mod pace;
mod pass;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use inferq_common::{
    clock::Clock, error::ErrorClass, job::Priority, telemetry::metric, vendor::Vendor,
};
use inferq_vendors::VendorError;
use metrics::counter;
use rand::Rng as _;
use tokio::{sync::Notify, time::sleep};

pub(crate) use self::pass::{Pass, pass, run_at};
use self::{
    aimd::{Cut, Room},
    circuit::{Check, Circuit, Patience, Refusal},
    lane::{Lane, Tokens},
};
use crate::attempt::SHORT_WAIT;

/// Of a worker's places, one in so many may be held by jobs that wait at the gate: the rest stays
/// free for other models and credentials of the vendor.
const WAITING_SHARE: usize = 8;
/// Models and credentials that are remembered while nothing of theirs runs or waits. Clients name
/// models as they like, so there is no end to them.
const MAX_REMEMBERED: usize = 4096;
/// What has not been used for so long is forgotten first. Longer than any pause.
const FORGET_AFTER: TimeDelta = TimeDelta::minutes(15);

/// What one call uses up: the vendor limits each model of each credential.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct GateKey {
    pub(crate) credential: Credential,
    /// The vendor's own name of the model.
    pub(crate) model: String,
}

/// One credential at one vendor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Credential {
    pub(crate) vendor: Vendor,
    /// Opaque, never the secret itself; another one when the secret changes, so that a new secret is
    /// tried at once.
    pub(crate) id: Arc<str>,
}

/// What a job finds at the gate.
#[derive(Debug)]
pub(crate) enum Entry {
    Answer(Answer),
    /// It may call soon: here is a place to wait at.
    Wait(Place),
}

/// Whether a job's call may start.
#[derive(Debug)]
pub(crate) enum Answer {
    Go(Permit),
    /// Not for a while: this is when to come back.
    Later(DateTime<Utc>),
    /// Not with this credential, while another call finds out whether the vendor takes it again:
    /// this is when to come back.
    Probed(DateTime<Utc>),
    /// Not at all: the vendor refuses the credential.
    Refused(VendorError),
}

/// The gate of one process; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Calls of one model at once.
    concurrency: usize,
    max_waiting: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lanes: HashMap<Arc<GateKey>, Lane>,
    credentials: HashMap<Credential, Seen>,
    /// Jobs that wait here, by vendor.
    waiting: HashMap<Vendor, usize>,
    next_place: u64,
}

#[derive(Debug)]
struct Seen {
    circuit: Circuit,
    used_at: DateTime<Utc>,
}

/// What the state allows at this moment.
#[derive(Clone, Copy)]
enum Look {
    Go(Tokens),
    Wait(Room),
    /// Another call probes the credential.
    Probed,
    Refused(Refusal, &'static str),
}

impl Gate {
    /// Up to `concurrency` calls at once of each model.
    pub(crate) fn new(concurrency: usize) -> Self {
        let max_waiting = concurrency / WAITING_SHARE;
        Self(Arc::new(Shared { concurrency, max_waiting, state: Mutex::default() }))
    }

    /// Asks for a call to start. Jobs that wait go first, in their order.
    pub(crate) fn enter(&self, key: GateKey, priority: Priority, now: DateTime<Utc>) -> Entry {
        let mut state = self.state();
        let known = state.lanes.get_key_value(&key).map(|(known, _)| Arc::clone(known));
        let key = known.unwrap_or_else(|| Arc::new(key));
        let room = match state.look(&key, None, self.0.concurrency, now) {
            Look::Wait(room) => room,
            look => {
                drop(state);
                return Entry::Answer(self.answer(&key, priority, look, now));
            }
        };
        let State { lanes, waiting, next_place, .. } = &mut *state;
        let lane = lanes.get_mut(&key).expect("looking has made it");
        let n_waiting = waiting.entry(key.credential.vendor).or_default();
        if *n_waiting >= self.0.max_waiting || lane.expected_wait(room, now) > SHORT_WAIT {
            return Entry::Answer(Answer::Later(lane.slot(priority, now, jitter())));
        }
        *n_waiting += 1;
        *next_place += 1;
        let (id, called) = (*next_place, Arc::new(Notify::new()));
        lane.line.push_back((id, Arc::clone(&called)));
        Entry::Wait(Place { gate: self.clone(), key, priority, id, called })
    }

    /// What `look` comes to where it is not to wait.
    fn answer(
        &self,
        key: &Arc<GateKey>,
        priority: Priority,
        look: Look,
        now: DateTime<Utc>,
    ) -> Answer {
        match look {
            Look::Go(tokens) => {
                let (gate, key) = (self.clone(), Arc::clone(key));
                Answer::Go(Permit { gate, key, tokens, began_at: now, is_open: true })
            }
            Look::Refused(refusal, what) => Answer::Refused(refused(key, refusal, what)),
            Look::Probed => Answer::Probed(self.later(key, priority, now)),
            Look::Wait(_) => Answer::Later(self.later(key, priority, now)),
        }
    }

    /// When a job that cannot wait any longer should come back.
    fn later(&self, key: &Arc<GateKey>, priority: Priority, now: DateTime<Utc>) -> DateTime<Utc> {
        match self.state().lanes.get_mut(key) {
            Some(lane) => lane.slot(priority, now, jitter()),
            None => now + SHORT_WAIT,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no one panics while holding the gate")
    }
}

impl State {
    /// Whether a call may start, and starts it. `place` is that of a job that waits in the line.
    fn look(
        &mut self,
        key: &Arc<GateKey>,
        place: Option<u64>,
        concurrency: usize,
        now: DateTime<Utc>,
    ) -> Look {
        self.make_room(key, now);
        let lane = self.lanes.entry(Arc::clone(key)).or_insert_with(|| Lane::new(concurrency, now));
        let seen = self
            .credentials
            .entry(key.credential.clone())
            .or_insert_with(|| Seen { circuit: Circuit::default(), used_at: now });
        (lane.used_at, seen.used_at) = (now, now);
        let checks = [(seen.circuit.check(now), ""), (lane.circuit.check(now), " for this model")];
        for (check, what) in checks {
            match check {
                Check::No(refusal) => return Look::Refused(refusal, what),
                Check::Soon => return Look::Probed,
                Check::Yes => {}
            }
        }
        if lane.line.front().map(|(id, _)| *id) != place {
            return Look::Wait(match lane.aimd.room(now) {
                Room::Yes => Room::Full,
                room => room,
            });
        }
        match lane.aimd.room(now) {
            Room::Yes => Look::Go(Tokens {
                round: lane.aimd.start(now),
                credential: seen.circuit.start(now),
                model: lane.circuit.start(now),
            }),
            room => Look::Wait(room),
        }
    }

    /// Keeps what is remembered within its bound before something new is added. What is in use is
    /// bounded by the calls and jobs that use it.
    fn make_room(&mut self, key: &Arc<GateKey>, now: DateTime<Utc>) {
        if self.lanes.len() >= MAX_REMEMBERED && !self.lanes.contains_key(key) {
            let idle = |lane: &Lane| lane.is_idle().then_some(lane.used_at);
            forget(&mut self.lanes, idle, now);
        }
        if self.credentials.len() >= MAX_REMEMBERED
            && !self.credentials.contains_key(&key.credential)
        {
            // A call that began with one that is forgotten finds another and changes nothing of it.
            forget(&mut self.credentials, |seen| Some(seen.used_at), now);
        }
    }

    /// Leaves the line of a lane.
    fn leave(&mut self, key: &Arc<GateKey>, id: u64) {
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.line.retain(|(waiting, _)| *waiting != id);
            lane.call_next();
        }
        if let Some(n_waiting) = self.waiting.get_mut(&key.credential.vendor) {
            *n_waiting = n_waiting.saturating_sub(1);
        }
    }
}

/// Forgets what is idle and old, or else the older half of what is idle.
fn forget<K: Eq + std::hash::Hash, V>(
    map: &mut HashMap<K, V>,
    idle_since: impl Fn(&V) -> Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) {
    map.retain(|_, value| idle_since(value).is_none_or(|used_at| now - used_at < FORGET_AFTER));
    if map.len() < MAX_REMEMBERED {
        return;
    }
    let mut idle: Vec<_> = map.values().filter_map(&idle_since).collect();
    if idle.is_empty() {
        return;
    }
    let middle = idle.len() / 2;
    let (_, &mut middle, _) = idle.select_nth_unstable(middle);
    map.retain(|_, value| idle_since(value).is_none_or(|used_at| used_at > middle));
}

/// What a job fails with whose credential the vendor refuses; `what` narrows that to its model.
fn refused(key: &GateKey, refusal: Refusal, what: &str) -> VendorError {
    let vendor = key.credential.vendor;
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let (why, advice) = match refusal.class {
        ErrorClass::QuotaExhausted => {
            ("has had no quota left", "look at its plan and billing with the vendor")
        }
        _ => ("has refused this credential", "check the key and what it may be used for"),
    };
    let message = format!(
        "{vendor} {why}{what} since {}, so it was not called; it will be tried again after {}: {advice}",
        time(refusal.since),
        time(refusal.until),
    );
    VendorError::new(refusal.class, message)
}

/// The right to make one call. Dropped without [`Permit::done`], as where the call is cancelled, it
/// frees its place and teaches nothing.
#[derive(Debug)]
pub(crate) struct Permit {
    gate: Gate,
    key: Arc<GateKey>,
    tokens: Tokens,
    began_at: DateTime<Utc>,
    is_open: bool,
}

impl Permit {
    /// Says what came of the call; `None`: it succeeded.
    pub(crate) fn done(mut self, failure: Option<&VendorError>, now: DateTime<Utc>) {
        self.is_open = false;
        let vendor = self.key.credential.vendor;
        let mut state = self.gate.state();
        let State { lanes, credentials, .. } = &mut *state;
        // A lane that is in use is not forgotten; a credential may be, and is met anew.
        let Some(lane) = lanes.get_mut(&self.key) else { return };
        let mut forgotten = Seen { circuit: Circuit::default(), used_at: now };
        let seen = credentials.get_mut(&self.key.credential).unwrap_or(&mut forgotten);
        let status = failure.and_then(|failure| failure.error.vendor_status);
        match failure.map(VendorError::class) {
            None => {
                lane.pace.served(now - self.began_at, now);
                served(lane, seen, self.tokens, now);
            }
            // It has looked into the request, so neither its limits nor the credential were at fault.
            Some(
                ErrorClass::InvalidRequest
                | ErrorClass::ContextLength
                | ErrorClass::Blocked
                | ErrorClass::ResponseTooLarge,
            ) => served(lane, seen, self.tokens, now),
            Some(class @ (ErrorClass::RateLimited | ErrorClass::Overloaded)) => {
                let cut = if class == ErrorClass::RateLimited {
                    counter!(metric::RATE_LIMITED, "vendor" => vendor.as_str()).increment(1);
                    Cut::RateLimited
                } else {
                    Cut::Overloaded
                };
                let hint = failure.and_then(|failure| failure.retry_after);
                lane.aimd.refused(self.tokens.round, cut, hint, jitter(), now);
                unclear(lane, seen, self.tokens);
            }
            // It was not sent: there is no key, or none that can be used.
            Some(ErrorClass::Auth) if status.is_none() => unclear(lane, seen, self.tokens),
            Some(class @ (ErrorClass::Auth | ErrorClass::QuotaExhausted)) => {
                // 403 and quotas are often about one model; 401 and its like never are.
                let is_about_key = class == ErrorClass::Auth && status != Some(403);
                refuse(lane, seen, self.tokens, class, is_about_key, now);
            }
            Some(
                ErrorClass::Transient
                | ErrorClass::Timeout
                | ErrorClass::Lost
                | ErrorClass::NotFound
                | ErrorClass::Protocol
                | ErrorClass::Cancelled
                | ErrorClass::Expired
                | ErrorClass::Internal,
            ) => unclear(lane, seen, self.tokens),
        }
        lane.aimd.end(self.tokens.round);
        lane.call_next();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        let mut state = self.gate.state();
        let State { lanes, credentials, .. } = &mut *state;
        if let Some(lane) = lanes.get_mut(&self.key) {
            lane.circuit.unclear(self.tokens.model);
            if let Some(seen) = credentials.get_mut(&self.key.credential) {
                seen.circuit.unclear(self.tokens.credential);
            }
            lane.aimd.end(self.tokens.round);
            lane.call_next();
        }
    }
}

fn served(lane: &mut Lane, seen: &mut Seen, tokens: Tokens, now: DateTime<Utc>) {
    lane.aimd.served(tokens.round, now);
    lane.circuit.served(tokens.model, now);
    seen.circuit.served(tokens.credential, now);
}

fn unclear(lane: &mut Lane, seen: &mut Seen, tokens: Tokens) {
    lane.circuit.unclear(tokens.model);
    seen.circuit.unclear(tokens.credential);
}

/// Opens the circuit of the credential where the refusal is sure to be about it, else that of the
/// model; a second model that is refused before any is served opens the credential's as well.
///
/// So a client that names a model the key may not use stops that model alone.
fn refuse(
    lane: &mut Lane,
    seen: &mut Seen,
    tokens: Tokens,
    class: ErrorClass,
    is_about_key: bool,
    now: DateTime<Utc>,
) {
    // One that has just worked is not doubted as a whole: its models are, each by itself, and if
    // none succeeds it has soon not just worked.
    let doubt = |unproven| Patience { proven: u32::MAX, unproven };
    if is_about_key {
        seen.circuit.refused(tokens.credential, class, doubt(1), now);
        if !seen.circuit.is_closed() {
            lane.circuit.unclear(tokens.model);
            return;
        }
    }
    let patience = Patience { proven: 3, unproven: 1 };
    if lane.circuit.refused(tokens.model, class, patience, now) && !is_about_key {
        seen.circuit.refused(tokens.credential, class, doubt(2), now);
    }
    unclear(lane, seen, tokens);
}

/// A place in the line of a model. Dropped, it is left.
#[derive(Debug)]
pub(crate) struct Place {
    gate: Gate,
    key: Arc<GateKey>,
    priority: Priority,
    id: u64,
    /// Rung when it may be this one's turn.
    called: Arc<Notify>,
}

impl Place {
    /// Waits until it is this one's turn, or it is clear that there will be none.
    ///
    /// **Cancel safe:** dropping the future keeps the place.
    pub(crate) async fn turn(&self, clock: &dyn Clock) -> Answer {
        loop {
            let now = clock.now();
            let look =
                self.gate.state().look(&self.key, Some(self.id), self.gate.0.concurrency, now);
            match look {
                Look::Wait(Room::ClosedFor(left)) => {
                    tokio::select! {
                        () = sleep(left) => {}
                        () = self.called.notified() => {}
                    }
                }
                Look::Wait(Room::Full | Room::Yes) => self.called.notified().await,
                look => return self.gate.answer(&self.key, self.priority, look, now),
            }
        }
    }

    /// When to come back where the turn has not come in time.
    pub(crate) fn later(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.gate.later(&self.key, self.priority, now)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.state().leave(&self.key, self.id);
    }
}

fn jitter() -> f64 {
    rand::rng().random_range(0.0..=1.0)
}
