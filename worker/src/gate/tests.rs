#![expect(clippy::cast_precision_loss, reason = "counts in tests are small")]

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use inferq_common::clock::to_micros;
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use super::*;

/// A clock that goes with tokio's, which tests pause.
#[derive(Debug)]
struct TokioClock(Instant);

impl TokioClock {
    fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for TokioClock {
    fn now(&self) -> DateTime<Utc> {
        let start = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        to_micros(start + TimeDelta::from_std(self.0.elapsed()).unwrap())
    }
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

fn key_of(credential: &str, model: &str) -> GateKey {
    let credential = Credential { vendor: Vendor::OpenAi, id: Arc::from(credential) };
    GateKey { credential, model: model.to_owned() }
}

fn key(model: &str) -> GateKey {
    key_of("default", model)
}

fn failure(class: ErrorClass, status: u16, retry_after: Option<u64>) -> VendorError {
    let mut error = VendorError::new(class, "why");
    error.error.vendor_status = Some(status);
    error.retry_after = retry_after.map(Duration::from_secs);
    error
}

fn enter(gate: &Gate, model: &str, now: DateTime<Utc>) -> Entry {
    gate.enter(key(model), Priority::Normal, now)
}

#[track_caller]
fn go(gate: &Gate, model: &str, now: DateTime<Utc>) -> Permit {
    match enter(gate, model, now) {
        Entry::Answer(Answer::Go(permit)) => permit,
        entry => panic!("{model} is not free: {entry:?}"),
    }
}

#[track_caller]
fn place(gate: &Gate, model: &str, now: DateTime<Utc>) -> Place {
    match enter(gate, model, now) {
        Entry::Wait(place) => place,
        Entry::Answer(answer) => panic!("{model} has no place: {answer:?}"),
    }
}

#[track_caller]
fn later(gate: &Gate, model: &str, now: DateTime<Utc>) -> DateTime<Utc> {
    match enter(gate, model, now) {
        Entry::Answer(Answer::Later(slot) | Answer::Probed(slot)) => slot,
        entry => panic!("{model} is not put off: {entry:?}"),
    }
}

#[track_caller]
fn refusal(gate: &Gate, key: GateKey, now: DateTime<Utc>) -> VendorError {
    match gate.enter(key, Priority::Normal, now) {
        Entry::Answer(Answer::Refused(error)) => error,
        entry => panic!("it is not refused: {entry:?}"),
    }
}

impl Gate {
    /// What is in use: calls in flight, places in lines, places counted.
    fn in_use(&self) -> (usize, usize, usize) {
        let state = self.state();
        let lanes = || state.lanes.values();
        (
            lanes().map(|lane| lane.aimd.in_flight()).sum(),
            lanes().map(|lane| lane.line.len()).sum(),
            state.waiting.values().sum(),
        )
    }
}

/// A vendor that takes `capacity` calls at once and refuses all above.
struct Crowded {
    capacity: usize,
    in_flight: AtomicUsize,
}

impl Crowded {
    async fn call(&self) -> Result<(), VendorError> {
        let n = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        let (pause, answer) = if n > self.capacity {
            (5, Err(failure(ErrorClass::RateLimited, 429, None)))
        } else {
            (100, Ok(()))
        };
        sleep(Duration::from_millis(pause)).await;
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        answer
    }
}

/// One job, as a worker runs it: it comes back until it has been served. Answers when each of its
/// calls was refused.
async fn job(gate: Gate, clock: Arc<TokioClock>, vendor: Arc<Crowded>) -> Vec<DateTime<Utc>> {
    let mut refused = Vec::new();
    loop {
        let answer = match enter(&gate, "m", clock.now()) {
            Entry::Answer(answer) => answer,
            Entry::Wait(place) => {
                match timeout(Duration::from_secs(2), place.turn(&*clock)).await {
                    Ok(answer) => answer,
                    Err(_) => Answer::Later(place.later(clock.now())),
                }
            }
        };
        match answer {
            Answer::Go(permit) => match vendor.call().await {
                Ok(()) => {
                    permit.done(None, clock.now());
                    return refused;
                }
                Err(error) => {
                    refused.push(clock.now());
                    permit.done(Some(&error), clock.now());
                    sleep(Duration::from_millis(300)).await;
                }
            },
            Answer::Later(slot) | Answer::Probed(slot) => {
                sleep((slot - clock.now()).to_std().unwrap()).await;
            }
            Answer::Refused(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn sustained_overload_costs_few_wasted_calls() {
    for (concurrency, capacity, n_jobs) in [(128, 8, 2000), (128, 40, 4000), (16, 1, 200)] {
        let (gate, clock) = (Gate::new(concurrency), Arc::new(TokioClock::start()));
        let vendor = Arc::new(Crowded { capacity, in_flight: AtomicUsize::new(0) });
        let mut jobs = JoinSet::new();
        for _ in 0..n_jobs {
            jobs.spawn(job(gate.clone(), Arc::clone(&clock), Arc::clone(&vendor)));
        }
        let refused: Vec<_> = jobs.join_all().await.into_iter().flatten().collect();
        let took = clock.0.elapsed().as_secs_f64();
        let steady = refused.iter().filter(|&&refused_at| refused_at >= at(3)).count();
        let share = |n: usize| 100.0 * n as f64 / (n + n_jobs) as f64;
        let ideal = n_jobs as f64 * 0.1 / capacity as f64;
        eprintln!(
            "{capacity} of {concurrency} at once: {n_jobs} jobs in {took:.0} s (ideal {ideal:.0} s), \
             refused {} ({:.1} %), of these {steady} ({:.1} %) after the first 3 s",
            refused.len(),
            share(refused.len()),
            share(steady),
        );
        assert!(refused.len() - steady <= concurrency + 2 * capacity, "the first burst");
        assert!(share(steady) < 5.0, "{}", share(steady));
        assert!(took < ideal * 4.0 + 10.0, "it gets through: {took} s");
        assert_eq!(gate.in_use(), (0, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_served_in_their_order_and_one_probes() {
    let (gate, clock) = (Gate::new(64), TokioClock::start());
    let permits: Vec<_> = (0..4).map(|_| go(&gate, "m", clock.now())).collect();
    for permit in permits {
        permit.done(Some(&failure(ErrorClass::RateLimited, 429, Some(1))), clock.now());
    }
    let places: Vec<_> = (0..5).map(|_| place(&gate, "m", clock.now())).collect();
    let began = Instant::now();
    let mut order = Vec::new();
    let mut turns = JoinSet::new();
    for (n, place) in places.into_iter().enumerate() {
        let clock = TokioClock(clock.0);
        turns.spawn(async move {
            let answer = place.turn(&clock).await;
            let Answer::Go(permit) = answer else { panic!("{answer:?}") };
            drop(place);
            let went = began.elapsed();
            sleep(Duration::from_millis(100)).await;
            permit.done(None, clock.now());
            (n, went.as_millis())
        });
    }
    while let Some(turn) = turns.join_next().await {
        order.push(turn.unwrap());
    }
    order.sort_by_key(|&(n, went)| (went, n));
    let numbers: Vec<_> = order.iter().map(|&(n, _)| n).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    let times: Vec<_> = order.iter().map(|&(_, went)| went / 50 * 50).collect();
    assert_eq!(times, [1000, 1100, 1100, 1200, 1200], "one, then two, then two: half of four");
}

#[tokio::test]
async fn only_a_share_waits_here_and_the_rest_comes_back_spread() {
    let gate = Gate::new(32);
    let failure = failure(ErrorClass::RateLimited, 429, Some(1));
    for model in ["a", "b"] {
        go(&gate, model, at(0)).done(Some(&failure), at(0));
    }
    let mut places: Vec<_> = (0..3).map(|_| place(&gate, "a", at(0))).collect();
    places.push(place(&gate, "b", at(0)));
    let slots: Vec<_> = (0..20).map(|_| later(&gate, "a", at(0))).collect();
    assert!(slots[0] >= at(2), "what could wait for less waits here");
    assert!(slots[..10].windows(2).all(|pair| pair[1] > pair[0]), "{slots:?}");
    // Another vendor has its own share.
    let other =
        GateKey { credential: Credential { vendor: Vendor::Cohere, id: "d".into() }, ..key("a") };
    let Entry::Answer(Answer::Go(permit)) = gate.enter(other.clone(), Priority::Normal, at(0))
    else {
        panic!("another vendor is free")
    };
    permit.done(Some(&failure), at(0));
    assert!(matches!(gate.enter(other, Priority::Normal, at(0)), Entry::Wait(_)));
    places.pop();
    assert!(matches!(enter(&gate, "a", at(0)), Entry::Wait(_)), "a place was left");
}

#[tokio::test]
async fn a_wait_that_would_be_long_is_not_spent_here() {
    let gate = Gate::new(64);
    go(&gate, "m", at(0)).done(Some(&failure(ErrorClass::RateLimited, 429, Some(30))), at(0));
    assert_eq!(later(&gate, "m", at(0)), at(30));
    assert!(later(&gate, "m", at(0)) > at(30));
    // Urgent ones do not stand behind others.
    let Entry::Answer(Answer::Later(slot)) = gate.enter(key("m"), Priority::High, at(0)) else {
        panic!("it is closed")
    };
    assert_eq!(slot, at(30));
    // One answer in ten seconds: the next is far.
    for n in 0..5 {
        go(&gate, "slow", at(n * 10)).done(None, at(n * 10 + 10));
    }
    let held: Vec<_> = (0..64).map(|_| go(&gate, "slow", at(50))).collect();
    assert!(later(&gate, "slow", at(50)) >= at(52));
    drop(held);
}

#[tokio::test]
async fn another_model_and_another_credential_are_not_held_back() {
    let gate = Gate::new(8);
    go(&gate, "m", at(0)).done(Some(&failure(ErrorClass::RateLimited, 429, Some(60))), at(0));
    later(&gate, "m", at(1));
    drop(go(&gate, "n", at(1)));
    let entry = gate.enter(key_of("theirs", "m"), Priority::Normal, at(1));
    assert!(matches!(entry, Entry::Answer(Answer::Go(_))), "{entry:?}");
}

#[tokio::test]
async fn a_call_that_was_dropped_frees_its_place_and_teaches_nothing() {
    let gate = Gate::new(2);
    let (one, two) = (go(&gate, "m", at(0)), go(&gate, "m", at(0)));
    later(&gate, "m", at(0));
    drop(one);
    let three = go(&gate, "m", at(0));
    assert_eq!(gate.in_use().0, 2);
    drop((two, three));
    assert_eq!(gate.in_use(), (0, 0, 0));
}

#[tokio::test]
async fn a_refused_key_stops_all_its_models_and_says_since_when() {
    let gate = Gate::new(8);
    let auth = failure(ErrorClass::Auth, 401, None);
    let (one, two) = (go(&gate, "m", at(0)), go(&gate, "m", at(0)));
    one.done(Some(&auth), at(5));
    two.done(Some(&auth), at(6));
    let error = refusal(&gate, key("other"), at(7));
    assert_eq!(error.class(), ErrorClass::Auth);
    assert_eq!(
        error.error.message,
        "openai has refused this credential since 2027-01-15T08:00:05Z, so it was not called; it \
         will be tried again after 2027-01-15T08:00:35Z: check the key and what it may be used for"
    );
    let entry = gate.enter(key_of("theirs", "m"), Priority::Normal, at(7));
    assert!(matches!(entry, Entry::Answer(Answer::Go(_))), "{entry:?}");
    // One call probes; those that come meanwhile are not failed before it is known.
    let probe = go(&gate, "other", at(35));
    later(&gate, "m", at(35));
    probe.done(None, at(36));
    drop((go(&gate, "m", at(36)), go(&gate, "m", at(36))));
}

#[tokio::test]
async fn a_model_the_key_may_not_use_is_stopped_alone() {
    let gate = Gate::new(8);
    let forbidden = failure(ErrorClass::Auth, 403, None);
    go(&gate, "forbidden", at(0)).done(Some(&forbidden), at(0));
    let error = refusal(&gate, key("forbidden"), at(1));
    assert!(error.error.message.contains("this credential for this model since"), "{error}");
    go(&gate, "good", at(1)).done(None, at(1));
    // Its probes go on being refused, and the key is in use all the same.
    for now in [30, 90, 210] {
        go(&gate, "good", at(now)).done(None, at(now));
        go(&gate, "forbidden", at(now)).done(Some(&forbidden), at(now));
        drop(go(&gate, "good", at(now)));
    }
    refusal(&gate, key("forbidden"), at(211));
}

#[tokio::test]
async fn two_models_without_quota_and_none_with_stop_the_key() {
    let gate = Gate::new(8);
    let quota = failure(ErrorClass::QuotaExhausted, 429, None);
    go(&gate, "a", at(0)).done(Some(&quota), at(0));
    drop(go(&gate, "b", at(0)));
    go(&gate, "b", at(1)).done(Some(&quota), at(1));
    let error = refusal(&gate, key("c"), at(2));
    assert_eq!(error.class(), ErrorClass::QuotaExhausted);
    assert!(error.error.message.contains("openai has had no quota left since"), "{error}");
    assert!(error.error.message.ends_with("look at its plan and billing with the vendor"));
}

#[tokio::test]
async fn a_key_revoked_under_load_costs_each_model_a_few_calls() {
    let gate = Gate::new(8);
    let auth = failure(ErrorClass::Auth, 401, None);
    for model in ["a", "b"] {
        go(&gate, model, at(0)).done(None, at(0));
    }
    for model in ["a", "b"] {
        for _ in 0..3 {
            go(&gate, model, at(1)).done(Some(&auth), at(1));
        }
        refusal(&gate, key(model), at(2));
    }
    // A minute after the last success it is the key.
    go(&gate, "a", at(61)).done(Some(&auth), at(61));
    refusal(&gate, key("c"), at(62));
}

#[tokio::test]
async fn what_is_remembered_is_bounded_and_what_is_in_use_is_kept() {
    let gate = Gate::new(8);
    let busy = go(&gate, "busy", at(0));
    for n in 0..MAX_REMEMBERED * 2 {
        let key = key_of(&n.to_string(), &format!("model-{n}"));
        let entry = gate.enter(key, Priority::Normal, at(i64::try_from(n).unwrap() / 10));
        let Entry::Answer(Answer::Go(permit)) = entry else { panic!("{entry:?}") };
        permit.done(Some(&failure(ErrorClass::RateLimited, 429, Some(600))), at(0));
        let state = gate.state();
        assert!(state.lanes.len() <= MAX_REMEMBERED && state.credentials.len() <= MAX_REMEMBERED);
    }
    assert!(gate.state().lanes.len() > MAX_REMEMBERED / 4, "not all is forgotten at once");
    assert!(gate.state().lanes.contains_key(&key("busy")));
    busy.done(None, at(1000));
    assert_eq!(gate.in_use(), (0, 0, 0));
}

/// Jobs that are cancelled at any moment, at a vendor that does anything, leave nothing behind.
#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_jobs_that_were_cancelled() {
    let (gate, clock) = (Gate::new(64), Arc::new(TokioClock::start()));
    let mut rng = StdRng::seed_from_u64(20_261_121);
    let mut jobs = JoinSet::new();
    for _ in 0..500 {
        let (gate, clock) = (gate.clone(), Arc::clone(&clock));
        let plan: [u64; 4] = std::array::from_fn(|_| rng.random_range(0..3000));
        jobs.spawn(async move {
            sleep(Duration::from_millis(plan[0])).await;
            let work = async {
                let model = if plan[1].is_multiple_of(2) { "a" } else { "b" };
                let answer = match enter(&gate, model, clock.now()) {
                    Entry::Answer(answer) => answer,
                    Entry::Wait(place) => place.turn(&*clock).await,
                };
                let Answer::Go(permit) = answer else { return };
                sleep(Duration::from_millis(plan[2])).await;
                let failure = match plan[3] % 4 {
                    0 => Some(failure(ErrorClass::RateLimited, 429, None)),
                    1 => Some(failure(ErrorClass::Auth, 401, None)),
                    _ => None,
                };
                permit.done(failure.as_ref(), clock.now());
            };
            let _ = timeout(Duration::from_millis(plan[1]), work).await;
        });
    }
    jobs.join_all().await;
    assert_eq!(gate.in_use(), (0, 0, 0));
}

#[test]
fn a_call_that_never_reached_the_vendor_says_nothing_about_its_key() {
    let gate = Gate::new(8);
    for _ in 0..3 {
        let unset = VendorError::new(ErrorClass::Auth, "no key for openai: set OPENAI_API_KEY");
        go(&gate, "m", at(0)).done(Some(&unset), at(0));
    }
    go(&gate, "m", at(0)).done(None, at(0));
}
