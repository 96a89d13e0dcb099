//! Takes a claimed attempt through the gate.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use inferq_common::{clock::to_micros, job::Job, store::Claim};
use inferq_vendors::{Candidate, VendorError};
use tokio::time::timeout;

use super::{Answer, Credential, Entry, GateKey, Permit};
use crate::{attempt::SHORT_WAIT, runner::Runner, running::Held};

/// The least that a job is put off.
const LEAST_DEFERRAL: TimeDelta = TimeDelta::milliseconds(250);

/// How an attempt came out of the gate.
#[derive(Debug)]
pub(crate) enum Pass {
    /// It may call.
    Go(Permit),
    /// It should come back at this moment.
    Later(DateTime<Utc>),
    /// It may call with another key at once, or should come back at this moment: another call finds
    /// out whether the vendor takes this one again.
    Probed(DateTime<Utc>),
    /// It fails uncalled.
    Refused(VendorError),
    /// The store has given it another end.
    Revoked,
    /// The process stops.
    Interrupted,
}

/// Waits for the turn of a call with this key, for a short while at most.
pub(crate) async fn pass(
    runner: &Runner,
    claim: &Claim,
    held: &Held,
    candidate: &Candidate,
) -> Pass {
    if runner.hand_back.is_cancelled() {
        return Pass::Interrupted;
    }
    let clock = &runner.worker.clock;
    let job = &claim.job;
    let credential = Credential { vendor: job.vendor, id: Arc::clone(&candidate.credential) };
    let key = GateKey { credential, model: job.model.clone() };
    let place = match runner.gate.enter(key, job.priority, clock.now()) {
        Entry::Wait(place) => place,
        Entry::Answer(answer) => return passed(answer, job, clock.now()),
    };
    let patience = SHORT_WAIT.to_std().unwrap_or_default();
    tokio::select! {
        biased; // A permit that is there is used or given back by its drop.
        () = held.revoked.cancelled() => Pass::Revoked,
        () = runner.hand_back.cancelled() => Pass::Interrupted,
        turn = timeout(patience, place.turn(&**clock)) => {
            let now = clock.now();
            passed(turn.unwrap_or_else(|_| Answer::Later(place.later(now))), job, now)
        }
    }
}

fn passed(answer: Answer, job: &Job, now: DateTime<Utc>) -> Pass {
    match answer {
        Answer::Go(permit) => Pass::Go(permit),
        Answer::Refused(error) => Pass::Refused(error),
        Answer::Later(slot) => Pass::Later(run_at(slot, job, now)),
        Answer::Probed(slot) => Pass::Probed(run_at(slot, job, now)),
    }
}

/// `slot`, or earlier for a job that must start before it: such a job comes back after half of what
/// time it has left, and so has several tries.
pub(crate) fn run_at(slot: DateTime<Utc>, job: &Job, now: DateTime<Utc>) -> DateTime<Utc> {
    // A job that has been called keeps no start-by deadline.
    let start_by = job.expires_at.filter(|_| job.attempt <= 1);
    let latest = [job.deadline(), start_by].into_iter().flatten().min();
    to_micros(match latest {
        Some(latest) if latest <= slot => slot.min(now + ((latest - now) / 2).max(LEAST_DEFERRAL)),
        _ => slot,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use inferq_common::job::Limits;

    use super::*;
    use crate::attempt::tests::a_job;

    fn at(millis: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::milliseconds(millis)
    }

    #[test]
    fn a_job_that_must_start_soon_comes_back_several_times_before() {
        let job = a_job(Limits::default());
        assert_eq!(run_at(at(60_000), &job, at(0)), at(60_000));

        let total_timeout = Some(Duration::from_secs(30));
        let job = a_job(Limits { total_timeout, ..Limits::default() });
        assert_eq!(run_at(at(20_000), &job, at(0)), at(20_000));
        assert_eq!(run_at(at(60_000), &job, at(0)), at(15_000));
        assert_eq!(run_at(at(60_000), &job, at(29_900)), at(30_150), "and then it is too late");

        let mut job = a_job(Limits::default());
        job.expires_at = Some(at(10_000));
        assert_eq!(run_at(at(60_000), &job, at(0)), at(5_000));
        job.attempt = 2;
        assert_eq!(run_at(at(60_000), &job, at(0)), at(60_000), "it has started");
    }
}
