//! The calling part of an attempt: who is called, with which key, for how long.

mod limit;

use std::{panic::AssertUnwindSafe, time::Duration};

use chrono::{DateTime, Utc};
use futures::FutureExt as _;
use inferq_common::{error::ErrorClass, job::Job, store::Claim, telemetry::metric};
use inferq_vendors::{Call, Candidate, Candidates, Reply, VendorError};
use metrics::gauge;
use tokio::time::timeout;
use tracing::error;

use self::limit::Limit;
use crate::{
    Worker,
    gate::{Pass, Permit, pass},
    runner::Runner,
    running::Held,
};

/// How an attempt ended.
pub(crate) enum End {
    Answered(Reply),
    Failed(VendorError),
    /// No call was made: the job comes back at this moment.
    HeldBack(DateTime<Utc>),
    /// The store has given the attempt another end; there is nothing to write.
    Revoked,
    /// The process stops before the vendor has answered.
    Interrupted,
}

/// The ways to call the job's model: with the credential of its model or account, else with the
/// operator's.
pub(crate) async fn candidates(runner: &Runner, job: &Job) -> Result<Candidates, VendorError> {
    let Worker { registry, .. } = &runner.worker;
    if let Some(credential) = runner.worker.credential(job).await? {
        return registry.candidates_with(&credential, &job.model);
    }
    registry.candidates(job.vendor, &job.model).cloned().ok_or_else(|| {
        VendorError::new(ErrorClass::Internal, "the worker has no adapter for this vendor")
    })
}

/// Calls the vendor with the first key that it takes: one that is refused or exhausted gives way to
/// the next.
pub(crate) async fn call_with_one_of(
    candidates: &Candidates,
    runner: &Runner,
    claim: &Claim,
    held: &Held,
) -> End {
    let mut failed = None;
    for candidate in candidates.iter() {
        let end = match pass(runner, claim, held, candidate).await {
            Pass::Go(permit) => call_with_permit(runner, claim, held, candidate, permit).await,
            Pass::Later(run_at) => End::HeldBack(run_at),
            Pass::Refused(error) => End::Failed(error),
            Pass::Revoked => End::Revoked,
            Pass::Interrupted => End::Interrupted,
        };
        match end {
            End::Failed(error)
                if matches!(error.class(), ErrorClass::Auth | ErrorClass::QuotaExhausted) =>
            {
                failed = Some(error);
            }
            end => return end,
        }
    }
    let none = || VendorError::new(ErrorClass::Internal, "the vendor has no adapter");
    End::Failed(failed.unwrap_or_else(none))
}

/// Calls the vendor, and tells the gate what came of it.
async fn call_with_permit(
    runner: &Runner,
    claim: &Claim,
    held: &Held,
    candidate: &Candidate,
    permit: Permit,
) -> End {
    let end = call_within_limits(runner, claim, held, candidate).await;
    let now = runner.worker.clock.now();
    match &end {
        End::Answered(_) => permit.done(None, now),
        End::Failed(error) => permit.done(Some(error), now),
        End::HeldBack(_) | End::Revoked | End::Interrupted => drop(permit),
    }
    end
}

/// Calls the vendor until it answers, its time is up, or someone stops the attempt. Whichever comes
/// first, the call is dropped, and that closes its socket.
async fn call_within_limits(
    runner: &Runner,
    claim: &Claim,
    held: &Held,
    candidate: &Candidate,
) -> End {
    let job = &claim.job;
    let _counted = Counted::new(job);
    if runner.hand_back.is_cancelled() {
        return End::Interrupted;
    }
    let limit = match Limit::of(job, runner.worker.clock.now()) {
        Ok(limit) => limit,
        Err(expired) => return End::Failed(expired),
    };
    tokio::select! {
        biased; // An answer that is there is worth more than the wish to stop.
        answer = timeout(limit.time, call(claim, candidate, limit.time)) => match answer {
            Ok(Ok(reply)) => End::Answered(reply),
            Ok(Err(error)) => End::Failed(error),
            Err(_) => End::Failed(limit.passed(job)),
        },
        () = held.revoked.cancelled() => End::Revoked,
        () = runner.hand_back.cancelled() => End::Interrupted,
    }
}

/// Makes the call. A panic in the adapter is this attempt's failure, not the worker's.
async fn call(
    claim: &Claim,
    candidate: &Candidate,
    timeout: Duration,
) -> Result<Reply, VendorError> {
    let job = &claim.job;
    let call = Call {
        job_id: job.id,
        attempt: claim.attempt(),
        model: job.model.clone(),
        args: claim.args.clone(),
        route: job.route,
        timeout,
    };
    // The block makes sure that the panic of a call that fails before its first await is caught.
    let answer = AssertUnwindSafe(async { candidate.adapter.call(&call).await }).catch_unwind();
    answer.await.unwrap_or_else(|_| {
        error!("the adapter panicked");
        let message = "the adapter panicked; this is a defect of inferq";
        Err(VendorError::new(ErrorClass::Internal, message))
    })
}

/// One attempt in the gauge of those that run.
struct Counted(metrics::Gauge);

impl Counted {
    fn new(job: &Job) -> Self {
        let running = gauge!(metric::ATTEMPTS_RUNNING, "vendor" => job.vendor.as_str());
        running.increment(1.0);
        Self(running)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
