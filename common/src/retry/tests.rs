use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

use super::*;
use crate::{
    job::{JobStatus, Limits},
    testing::queued_job,
};

const NOW: DateTime<Utc> = DateTime::<Utc>::UNIX_EPOCH;

/// A running job whose attempt number `attempt` has just failed.
fn job(attempt: u32, lost_attempts: u32, num_retries: u32) -> Job {
    Job {
        status: JobStatus::Running,
        attempt,
        lost_attempts,
        limits: Limits { num_retries, ..Limits::default() },
        started_at: Some(NOW),
        attempt_started_at: Some(NOW),
        ..queued_job(NOW)
    }
}

fn verdict(job: &Job, class: ErrorClass, hint: Option<Duration>, seed: u64) -> Verdict {
    let mut rng = StdRng::seed_from_u64(seed);
    RetryPolicy::default().verdict(job, class, hint, NOW, &mut rng)
}

fn any_class() -> impl Strategy<Value = ErrorClass> {
    prop::sample::select(ErrorClass::ALL)
}

fn transient_class() -> impl Strategy<Value = ErrorClass> {
    any_class().prop_filter("transient", |class| class.is_transient())
}

#[test]
fn the_bound_of_the_wait_doubles_up_to_the_longest() {
    let policy = RetryPolicy::default();
    let millis: Vec<_> = (1..=10).map(|tries| policy.bound(tries).as_millis()).collect();
    assert_eq!(millis, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]);
}

#[test]
fn an_overloaded_vendor_gets_four_times_as_long() {
    let longest = |class| {
        let waits = (0..2000).map(|seed| verdict(&job(1, 0, 2), class, None, seed));
        let waits = waits.map(|verdict| match verdict {
            Verdict::Retry(wait) => wait,
            Verdict::GiveUp => panic!("a retry is left"),
        });
        waits.max().unwrap().as_secs_f64()
    };
    let (usual, overloaded) = (longest(ErrorClass::Transient), longest(ErrorClass::Overloaded));
    assert!((0.49..=0.5).contains(&usual), "{usual}");
    assert!((1.96..=2.0).contains(&overloaded), "{overloaded}");
}

#[test]
fn waits_are_spread_over_the_whole_range() {
    // Full jitter: a tenth of the waits lies in each tenth of the range.
    let mut tenths = [0u32; 10];
    for seed in 0..10_000 {
        let Verdict::Retry(wait) = verdict(&job(1, 0, 2), ErrorClass::Transient, None, seed) else {
            panic!("a retry is left");
        };
        let tenth = usize::try_from(wait.as_micros() / 50_000).unwrap();
        tenths[tenth.min(9)] += 1;
    }
    assert!(tenths.iter().all(|n| (800..1200).contains(n)), "{tenths:?}");
}

#[test]
fn a_vendors_wait_is_followed_and_cut_at_a_day() {
    let job = job(1, 0, 2);
    let wait = |hint| verdict(&job, ErrorClass::RateLimited, Some(hint), 1);
    for hint in [Duration::from_millis(1), Duration::from_mins(5), Duration::from_hours(24)] {
        assert_eq!(wait(hint), Verdict::Retry(hint));
    }
    assert_eq!(wait(Duration::from_hours(25)), Verdict::Retry(Duration::from_hours(24)));
    assert_eq!(wait(Duration::MAX), Verdict::Retry(Duration::from_hours(24)));
}

#[test]
fn a_hint_of_nothing_is_no_hint() {
    let waits = (0..20)
        .map(|seed| verdict(&job(1, 0, 2), ErrorClass::RateLimited, Some(Duration::ZERO), seed));
    assert!(waits.into_iter().any(|verdict| verdict != Verdict::Retry(Duration::ZERO)));
}

#[test]
fn a_retry_that_could_not_start_in_time_is_not_made() {
    let mut job = job(1, 0, 10);
    job.limits.total_timeout = Some(Duration::from_secs(10));
    let after = |hint| verdict(&job, ErrorClass::RateLimited, Some(hint), 1);
    assert_eq!(after(Duration::from_millis(9_999)), Verdict::Retry(Duration::from_millis(9_999)));
    assert_eq!(after(Duration::from_secs(10)), Verdict::GiveUp);
    let mut rng = StdRng::seed_from_u64(1);
    let late = NOW + TimeDelta::seconds(10);
    let policy = RetryPolicy::default();
    assert_eq!(policy.verdict(&job, ErrorClass::Timeout, None, late, &mut rng), Verdict::GiveUp);
}

#[test]
fn the_end_of_time_is_no_panic() {
    let mut rng = StdRng::seed_from_u64(1);
    let hint = Some(Duration::MAX);
    let policy = RetryPolicy { max_hint: Duration::MAX, ..RetryPolicy::default() };
    let job = job(1, 0, 10);
    for now in [NOW, DateTime::<Utc>::MAX_UTC] {
        let verdict = policy.verdict(&job, ErrorClass::RateLimited, hint, now, &mut rng);
        assert_eq!(verdict, Verdict::GiveUp);
    }
    assert!(policy.bound(u32::MAX / 1_000_000) <= policy.max);
}

proptest! {
    #[test]
    fn a_job_is_never_tried_more_often_than_its_retries_and_one(
        num_retries in 0u32..=Limits::MAX_RETRIES,
        classes in prop::collection::vec(any_class(), 32),
        seed: u64,
    ) {
        let mut tries = 0;
        for class in classes {
            tries += 1;
            if verdict(&job(tries, 0, num_retries), class, None, seed) == Verdict::GiveUp {
                break;
            }
        }
        prop_assert!(tries <= num_retries + 1);
    }

    #[test]
    fn a_transient_failure_is_retried_while_retries_are_left(
        attempt in 1u32..=11,
        num_retries in 0u32..=10,
        class in transient_class(),
        seed: u64,
    ) {
        let retried = verdict(&job(attempt, 0, num_retries), class, None, seed) != Verdict::GiveUp;
        prop_assert_eq!(retried, attempt <= num_retries);
    }

    #[test]
    fn what_would_fail_again_is_never_retried(
        class in any_class().prop_filter("final", |class| !class.is_transient()),
        attempt in 1u32..=11,
        hint in prop::option::of(0u64..100_000),
        seed: u64,
    ) {
        let hint = hint.map(Duration::from_millis);
        prop_assert_eq!(verdict(&job(attempt, 0, 10), class, hint, seed), Verdict::GiveUp);
    }

    #[test]
    fn a_wait_of_ours_stays_within_its_bound(
        attempt in 1u32..=10,
        class in transient_class(),
        seed: u64,
    ) {
        let policy = RetryPolicy::default();
        let factor = if class == ErrorClass::Overloaded { 4 } else { 1 };
        let bound = (policy.bound(attempt) * factor).min(policy.max);
        let verdict = verdict(&job(attempt, 0, 10), class, None, seed);
        let Verdict::Retry(wait) = verdict else { panic!("a retry is left") };
        prop_assert!(wait <= bound, "{:?} > {:?}", wait, bound);
    }

    #[test]
    fn lost_attempts_cost_no_retry_and_lengthen_no_wait(
        tries in 1u32..=11,
        lost in 0u32..=Limits::MAX_LOST_ATTEMPTS,
        num_retries in 0u32..=10,
        class in transient_class(),
        seed: u64,
    ) {
        let with_lost = verdict(&job(tries + lost, lost, num_retries), class, None, seed);
        prop_assert_eq!(with_lost, verdict(&job(tries, 0, num_retries), class, None, seed));
    }

    #[test]
    fn no_retry_starts_at_or_after_the_deadline(
        total_secs in 1u64..200,
        elapsed_secs in 0i64..200,
        hint_secs in prop::option::of(0u64..200),
        class in transient_class(),
        seed: u64,
    ) {
        let mut job = job(1, 0, 10);
        job.limits.total_timeout = Some(Duration::from_secs(total_secs));
        let now = NOW + TimeDelta::seconds(elapsed_secs);
        let hint = hint_secs.map(Duration::from_secs);
        let mut rng = StdRng::seed_from_u64(seed);
        if let Verdict::Retry(wait) =
            RetryPolicy::default().verdict(&job, class, hint, now, &mut rng)
        {
            prop_assert!(now + TimeDelta::from_std(wait).unwrap() < job.deadline().unwrap());
        }
    }
}
