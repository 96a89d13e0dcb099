//! One attempt of a job, from its claim to its record.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use inferq_common::{
    broker::{Event, MAX_INLINE_BYTES, Times},
    error::ErrorClass,
    job::{Job, JobResult, JobStatus, Outcome},
    retry::{RetryPolicy, Verdict},
    store::{Claim, Wakeup},
    telemetry::{self, field, metric},
};
use inferq_vendors::{Reply, VendorError};
use metrics::{counter, histogram};
use rand::Rng;
use tokio::time::{Instant, sleep, timeout};
use tracing::{Instrument as _, debug, info, info_span};

use crate::{
    call::{self, Called, End},
    lent,
    runner::Runner,
};

/// A wait up to this stays in the worker; a longer one frees its place.
pub(crate) const SHORT_WAIT: TimeDelta = TimeDelta::seconds(2);
/// Bounds the sending of an event. One that is late is of no use: who waits looks into the store.
pub(crate) const SEND_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the claimed attempt, and those that follow it after short waits.
///
/// `trace` is the trace context of the request that made the job; the attempt is linked to it.
pub(crate) async fn run(runner: &Runner, claim: Claim, trace: Option<&str>) {
    let mut next = Some(claim);
    while let Some(claim) = next {
        let span = info_span!(
            "job.attempt",
            { field::JOB_ID } = %claim.job.id,
            { field::JOB_ATTEMPT } = claim.attempt(),
            { field::VENDOR_NAME } = claim.job.vendor.as_str(),
            trace.link = trace,
        );
        next = run_one(runner, claim).instrument(span).await;
    }
}

/// Runs one attempt; answers with the next one where it follows at once.
async fn run_one(runner: &Runner, claim: Claim) -> Option<Claim> {
    observe_wait(&claim);
    let held = runner.worker.running.hold(&claim, runner.answers.share());
    let began = Instant::now();
    let called = call::run(runner, &claim, &held).await;
    let n_chunks = called.n_chunks;
    if held.memory.has_waited() {
        counter!(metric::ANSWERS_HELD_UP).increment(1);
        debug!("the memory for answers was used up; the answer waited or went beyond it");
    }
    let now = runner.worker.clock.now();
    let Some(mut outcome) = decide(&runner.retry, &claim.job, called, now, &mut rand::rng()) else {
        info!("attempt was stopped: the store has given it another end");
        return None;
    };
    observe(&claim.job, &outcome, lasted(&claim.job, began.elapsed(), now));
    let recorded = runner.finish(&claim, &mut outcome).await;
    drop(held);
    let Some(finished_at) = recorded else {
        info!("attempt's outcome was not taken: the claim no longer held or the process stops");
        return None;
    };
    let job = &claim.job;
    match outcome {
        Outcome::Succeeded { response, usage, .. } => {
            let result = JobResult { response: Some(response), error: None, usage };
            let status = JobStatus::Succeeded;
            ended(runner, &claim, Ended { status, result, finished_at, n_chunks }).await;
            None
        }
        Outcome::Failed { error, usage } => {
            let result = JobResult { response: None, error: Some(error), usage };
            let status = JobStatus::Failed;
            ended(runner, &claim, Ended { status, result, finished_at, n_chunks }).await;
            None
        }
        Outcome::Retry { error, run_at, .. } => {
            counter!(metric::RETRIES, "class" => error.class.as_str()).increment(1);
            let delay_ms = (run_at - now).num_milliseconds();
            info!({ field::ERROR_CLASS } = %error.class, delay_ms, "attempt will be retried");
            claim_again(runner, job, run_at).await
        }
        Outcome::HandedBack => {
            info!("attempt is handed back: the process stops");
            runner.worker.publisher.publish(wakeup(job), None);
            None
        }
        Outcome::Deferred { run_at, ticket } => {
            let delay_ms = (run_at - now).num_milliseconds();
            if ticket.is_some() || job.ticket.is_some() {
                debug!(delay_ms, "its task is under way; the job comes back to ask for it");
            } else {
                counter!(metric::GATE_DEFERRED, "vendor" => job.vendor.as_str()).increment(1);
                debug!(delay_ms, "its model is held back; the job comes back later");
            }
            None
        }
    }
}

/// What is to be written of an attempt that ended so; `None`: nothing.
fn decide(
    policy: &RetryPolicy,
    job: &Job,
    called: Called,
    now: DateTime<Utc>,
    rng: &mut impl Rng,
) -> Option<Outcome> {
    // Who was shown part of an answer must not be shown the beginning of another one.
    let can_repeat = called.n_chunks == 0;
    let VendorError { error, retry_after, usage } = match called.end {
        End::Answered(Reply { response, usage, vendor_request_id }) => {
            return Some(Outcome::Succeeded { response, usage, vendor_request_id });
        }
        End::Revoked => return None,
        // The task goes on without us: asking for it costs nothing.
        End::Interrupted if job.ticket.is_some() => {
            return Some(Outcome::Deferred { run_at: now, ticket: None });
        }
        End::Interrupted if can_repeat => return Some(Outcome::HandedBack),
        End::Interrupted => stopped_in_stream(),
        End::HeldBack(run_at) => return Some(Outcome::Deferred { run_at, ticket: None }),
        End::Parked { run_at, ticket } => {
            return Some(Outcome::Deferred { run_at, ticket: Some(ticket) });
        }
        End::Failed(failure) => failure,
    };
    let error = error.with_hint();
    let verdict = if can_repeat {
        policy.verdict(job, error.class, retry_after, now, rng)
    } else {
        Verdict::GiveUp
    };
    let run_at = match verdict {
        Verdict::Retry(delay) => {
            TimeDelta::from_std(delay).ok().and_then(|delay| now.checked_add_signed(delay))
        }
        Verdict::GiveUp => None,
    };
    Some(match run_at {
        Some(run_at) => Outcome::Retry { error, usage, run_at },
        None => Outcome::Failed { error, usage },
    })
}

/// What a job ends with whose worker stopped after part of the answer had been shown.
fn stopped_in_stream() -> VendorError {
    let message = "the worker stopped while the answer was streamed; part of the stream had been \
        passed on, so it is not repeated";
    VendorError::new(ErrorClass::Lost, message)
}

/// Waits here for a short while and claims the job's next attempt; a long wait is the store's.
async fn claim_again(runner: &Runner, job: &Job, run_at: DateTime<Utc>) -> Option<Claim> {
    let wait = || run_at - runner.worker.clock.now();
    if wait() > SHORT_WAIT {
        return None;
    }
    while let Some(left) = wait().to_std().ok().filter(|left| !left.is_zero()) {
        runner.soft.run_until_cancelled(sleep(left)).await?;
    }
    // On an error too the job is not lost: it is due, and any sweeper will publish it.
    runner.claim(job.id).await.ok().flatten()
}

/// How a job has ended.
struct Ended {
    status: JobStatus,
    result: JobResult,
    finished_at: DateTime<Utc>,
    /// Of its last attempt.
    n_chunks: u64,
}

/// Tells all who want to know that a job has ended.
async fn ended(runner: &Runner, claim: &Claim, ended: Ended) {
    let (job, instance) = (&claim.job, claim.instance);
    let Ended { status, result, finished_at, n_chunks } = ended;
    let took = (finished_at - job.created_at).to_std().unwrap_or_default();
    telemetry::count_ended(job, status, finished_at);
    let class = result.error.as_ref().map(|error| error.class.as_str());
    info!({ field::JOB_STATUS } = %status, { field::ERROR_CLASS } = class, took_ms = took.as_millis(), "job has ended");
    if job.callback_url.is_some() {
        runner.callback_due.notify_one();
    }
    let Some(waits_at) = job.reply_to else { return };
    let event = Event::Finished {
        job_id: job.id,
        status,
        attempt: job.attempt,
        result: Some(result).filter(fits_in_line),
        times: Some(Times { started_at: job.started_at, finished_at }),
        chunks: n_chunks,
        room: lent::room(runner, instance, job.vendor),
    };
    match timeout(SEND_TIMEOUT, runner.worker.broker.send(waits_at, &event)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "event was not sent"),
        Err(_) => debug!("event was not sent in time"),
    }
}

fn fits_in_line(result: &JobResult) -> bool {
    result.response.as_ref().is_none_or(|response| response.as_str().len() <= MAX_INLINE_BYTES)
}

pub(crate) fn wakeup(job: &Job) -> Wakeup {
    Wakeup { job_id: job.id, lane: job.lane(), attempt: job.attempt, reply_to: job.reply_to }
}

/// How long the job stood in its lane, ready to run.
fn observe_wait(claim: &Claim) {
    let claimed_at = claim.job.attempt_started_at.unwrap_or(claim.ready_at);
    let waited = (claimed_at - claim.ready_at).to_std().unwrap_or_default();
    histogram!(metric::QUEUE_WAIT, "vendor" => claim.job.vendor.as_str())
        .record(waited.as_secs_f64());
}

/// How long an attempt has lasted that was claimed so long ago: all the time of its task, if it goes on
/// with one.
fn lasted(job: &Job, claimed: Duration, now: DateTime<Utc>) -> Duration {
    let task_at = job.attempt_began_at().filter(|_| job.ticket.is_some());
    task_at.and_then(|began_at| (now - began_at).to_std().ok()).unwrap_or(claimed)
}

fn observe(job: &Job, outcome: &Outcome, took: Duration) {
    let outcome = match outcome {
        Outcome::Succeeded { .. } => "succeeded",
        Outcome::Failed { error, .. } | Outcome::Retry { error, .. } => error.class.as_str(),
        Outcome::HandedBack => ErrorClass::Lost.as_str(),
        Outcome::Deferred { .. } => return,
    };
    let vendor = job.vendor.as_str();
    histogram!(metric::ATTEMPT_DURATION, "vendor" => vendor, "outcome" => outcome)
        .record(took.as_secs_f64());
}

#[cfg(test)]
pub(crate) mod tests {
    use inferq_common::{
        job::{Json, Limits},
        testing::queued_job,
        ticket::Ticket,
        usage::Usage,
    };
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    pub(crate) const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    pub(crate) fn a_job(limits: Limits) -> Job {
        Job {
            status: JobStatus::Running,
            attempt: 1,
            limits,
            started_at: Some(NOW),
            attempt_started_at: Some(NOW),
            ..queued_job(NOW)
        }
    }

    pub(crate) fn limits(timeout: u64, total: Option<u64>) -> Limits {
        Limits {
            timeout: Duration::from_secs(timeout),
            total_timeout: total.map(Duration::from_secs),
            ..Limits::default()
        }
    }

    fn decided(job: &Job, end: End) -> Option<Outcome> {
        decided_after(0, job, end)
    }

    fn decided_after(n_chunks: u64, job: &Job, end: End) -> Option<Outcome> {
        let called = Called { end, n_chunks };
        decide(&RetryPolicy::default(), job, called, NOW, &mut StdRng::seed_from_u64(7))
    }

    fn failure(class: ErrorClass) -> End {
        End::Failed(VendorError::new(class, "why"))
    }

    #[test]
    fn what_cannot_get_better_is_not_retried() {
        let job = a_job(limits(60, None));
        for class in [ErrorClass::InvalidRequest, ErrorClass::Internal, ErrorClass::Expired] {
            assert!(matches!(decided(&job, failure(class)), Some(Outcome::Failed { .. })));
        }
    }

    #[test]
    fn retries_end_with_their_number() {
        let mut job = a_job(limits(60, None));
        for attempt in 1..=2 {
            job.attempt = attempt;
            let outcome = decided(&job, failure(ErrorClass::Transient));
            assert!(matches!(outcome, Some(Outcome::Retry { .. })), "{outcome:?}");
        }
        job.attempt = 3;
        let outcome = decided(&job, failure(ErrorClass::Transient));
        assert!(matches!(outcome, Some(Outcome::Failed { .. })), "{outcome:?}");
    }

    #[test]
    fn the_wait_is_the_one_the_vendor_asked_for() {
        let job = a_job(limits(60, None));
        let mut error = VendorError::new(ErrorClass::RateLimited, "slow down");
        error.retry_after = Some(Duration::from_secs(17));
        let Some(Outcome::Retry { run_at, .. }) = decided(&job, End::Failed(error)) else {
            panic!("a rate limit is retried")
        };
        assert_eq!(run_at, NOW + TimeDelta::seconds(17));
    }

    #[test]
    fn a_revoked_attempt_writes_nothing_and_an_interrupted_one_is_handed_back() {
        let job = a_job(limits(60, None));
        assert_eq!(decided(&job, End::Revoked), None);
        assert_eq!(decided(&job, End::Interrupted), Some(Outcome::HandedBack));
        let deferred = Some(Outcome::Deferred { run_at: NOW, ticket: None });
        assert_eq!(decided(&job, End::HeldBack(NOW)), deferred);
    }

    #[test]
    fn an_attempt_that_was_parked_has_lasted_since_its_task_was_started() {
        let mut job = a_job(limits(60, None));
        let (claimed, now) = (Duration::from_secs(1), NOW + TimeDelta::seconds(9));
        assert_eq!(lasted(&job, claimed, now), claimed);
        let ticket = Ticket { key: String::new(), started_at: NOW, task: None };
        job.ticket = Some(ticket.to_string());
        assert_eq!(lasted(&job, claimed, now), Duration::from_secs(9));
    }

    #[test]
    fn what_was_shown_in_part_is_not_repeated() {
        let job = a_job(limits(60, None));
        for class in [ErrorClass::Transient, ErrorClass::Timeout, ErrorClass::RateLimited] {
            let outcome = decided_after(1, &job, failure(class));
            let Some(Outcome::Failed { error, .. }) = outcome else { panic!("{outcome:?}") };
            assert_eq!((error.class, error.message.as_str()), (class, "why"));
            assert_eq!(error.hint.as_deref(), class.hint());
        }
        let outcome = decided_after(1, &job, End::Interrupted);
        let Some(Outcome::Failed { error, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(error.class, ErrorClass::Lost);
        assert_eq!(decided_after(1, &job, End::Revoked), None);
    }

    #[test]
    fn only_small_results_travel_in_the_event() {
        let result = |bytes: usize| JobResult {
            response: Some(Json::parse(format!("\"{}\"", "x".repeat(bytes - 2))).unwrap()),
            error: None,
            usage: Usage::default(),
        };
        assert!(fits_in_line(&result(MAX_INLINE_BYTES)));
        assert!(!fits_in_line(&result(MAX_INLINE_BYTES + 1)));
        assert!(fits_in_line(&JobResult::default()));
    }
}
