//! The calling part of an attempt: who is called, with which key, for how long.

mod limit;
mod ticket;

use std::{panic::AssertUnwindSafe, time::Duration};

use chrono::{DateTime, Utc};
use futures::FutureExt as _;
use inferq_common::{
    error::ErrorClass, id::AccountId, job::Job, store::Claim, telemetry::metric, ticket::Ticket,
};
use inferq_vendors::{Call, Candidate, Candidates, Progress, Reply, VendorError};
use metrics::{counter, gauge};
use tokio::time::{Instant, timeout};
use tracing::error;

pub(crate) use self::limit::Limit;
use crate::{
    Worker,
    gate::{Pass, Permit, pass},
    registered,
    runner::Runner,
    running::Held,
    streaming,
};

/// What came of calling the vendor.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) end: End,
    /// How many chunks of a stream came before the end.
    pub(crate) n_chunks: u64,
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum End {
    Answered(Reply),
    Failed(VendorError),
    /// No call was made: the job comes back at this moment.
    HeldBack(DateTime<Utc>),
    /// The vendor is at work without us: the job comes back at this moment, with this ticket.
    Parked {
        run_at: DateTime<Utc>,
        ticket: String,
    },
    /// The store has given the attempt another end; there is nothing to write.
    Revoked,
    /// The process stops before the vendor has answered.
    Interrupted,
}

impl From<End> for Called {
    fn from(end: End) -> Self {
        Self { end, n_chunks: 0 }
    }
}

/// Calls the vendor of a claimed job, as its registered model has it if it has one.
pub(crate) async fn run(runner: &Runner, claim: &Claim, held: &Held) -> Called {
    let call = async |payer: &AccountId| call_paid_by(runner, claim, held, payer).await;
    registered::around(runner, claim, held, call).await
}

/// Calls the vendor with a credential of `payer`.
async fn call_paid_by(runner: &Runner, claim: &Claim, held: &Held, payer: &AccountId) -> Called {
    let found = tokio::select! {
        found = candidates(runner, &claim.job, payer) => found,
        () = held.revoked.cancelled() => return End::Revoked.into(),
        () = runner.hand_back.cancelled() => return End::Interrupted.into(),
    };
    let found = found.and_then(|candidates| Ok((candidates, ticket::of(&claim.job)?)));
    match found {
        Ok((candidates, None)) => call_with_one_of(&candidates, runner, claim, held).await,
        Ok((candidates, Some(ticket))) => go_on(&candidates, runner, claim, held, ticket).await,
        Err(error) => End::Failed(error).into(),
    }
}

/// Asks for a task that was started before. It passes no gate: the task has passed it, and its
/// questions have their own pace.
async fn go_on(
    candidates: &Candidates,
    runner: &Runner,
    claim: &Claim,
    held: &Held,
    ticket: Ticket,
) -> Called {
    let Some(candidate) = ticket::candidate(&ticket, candidates) else {
        return no_adapter().into();
    };
    let turn = Turn { candidate, spent: ticket.spent(runner.worker.clock.now()), permit: None };
    call_within_limits(runner, claim, held, turn, Some(ticket)).await
}

fn no_adapter() -> End {
    End::Failed(VendorError::new(ErrorClass::Internal, "the vendor has no adapter"))
}

/// The ways to call the job's model: with the credential of its model or account, else with the
/// operator's.
///
/// **Cancel safe.**
async fn candidates(
    runner: &Runner,
    job: &Job,
    payer: &AccountId,
) -> Result<Candidates, VendorError> {
    let Worker { registry, .. } = &runner.worker;
    if let Some(credential) = runner.worker.credential(job, payer).await? {
        return registry.candidates_with(&credential, &job.model);
    }
    registry.candidates(job.vendor, &job.model).cloned().ok_or_else(|| {
        VendorError::new(ErrorClass::Internal, "the worker has no adapter for this vendor")
    })
}

/// Calls the vendor with the first key that it takes: one that is refused or exhausted gives way to
/// the next.
async fn call_with_one_of(
    candidates: &Candidates,
    runner: &Runner,
    claim: &Claim,
    held: &Held,
) -> Called {
    let (mut failed, mut refused, mut probed) = (None, None, None);
    // All calls of an attempt share its time.
    let mut began: Option<Instant> = None;
    for candidate in candidates.iter() {
        let called = match pass(runner, claim, held, candidate).await {
            Pass::Go(permit) => {
                let spent = began.map_or(Duration::ZERO, |began| began.elapsed());
                began.get_or_insert_with(Instant::now);
                let turn = Turn { candidate, spent, permit: Some(permit) };
                call_within_limits(runner, claim, held, turn, None).await
            }
            Pass::Refused(error) => {
                refused = Some(error);
                continue;
            }
            Pass::Probed(run_at) => {
                probed.get_or_insert(run_at);
                continue;
            }
            Pass::Later(run_at) => End::HeldBack(run_at).into(),
            Pass::Revoked => End::Revoked.into(),
            Pass::Interrupted => End::Interrupted.into(),
        };
        match called {
            Called { end: End::Failed(error), n_chunks: 0 }
                if matches!(error.class(), ErrorClass::Auth | ErrorClass::QuotaExhausted) =>
            {
                failed = Some(error);
            }
            called => return called,
        }
    }
    let end = match (failed, probed, refused) {
        (Some(error), ..) => End::Failed(error),
        // The key that is being tried again may turn out to be good.
        (None, Some(run_at), _) => End::HeldBack(run_at),
        (None, None, Some(error)) => {
            count_refused(&claim.job, &error);
            End::Failed(error)
        }
        (None, None, None) => no_adapter(),
    };
    end.into()
}

/// Counts an attempt that fails uncalled.
fn count_refused(job: &Job, error: &VendorError) {
    let (vendor, class) = (job.vendor.as_str(), error.class().as_str());
    counter!(metric::GATE_REFUSED, "vendor" => vendor, "class" => class).increment(1);
}

/// One key's turn to be called with.
pub(crate) struct Turn<'a> {
    pub(crate) candidate: &'a Candidate,
    /// What the attempt has used up of its time.
    spent: Duration,
    permit: Option<Permit>,
}

impl Turn<'_> {
    /// Tells the gate what came of it.
    pub(crate) fn ended(self, end: &End, now: DateTime<Utc>) {
        let Some(permit) = self.permit else { return };
        match end {
            End::Answered(_) | End::Parked { .. } => permit.done(None, now),
            End::Failed(error) => permit.done(Some(error), now),
            End::HeldBack(_) | End::Revoked | End::Interrupted => drop(permit),
        }
    }
}

/// Calls the vendor until it has answered, its time is up, or someone stops the attempt. A `ticket`
/// goes on with a task that was started before.
async fn call_within_limits(
    runner: &Runner,
    claim: &Claim,
    held: &Held,
    turn: Turn<'_>,
    ticket: Option<Ticket>,
) -> Called {
    let _counted = Counted::new(&claim.job);
    if runner.hand_back.is_cancelled() {
        return End::Interrupted.into();
    }
    let clock = &runner.worker.clock;
    let limit = match Limit::of(&claim.job, turn.spent, clock.now()) {
        Ok(limit) => limit,
        Err(expired) => return End::Failed(expired).into(),
    };
    let call = call_of(claim, held, &limit);
    if claim.job.stream {
        return streaming::run(runner, claim, held, turn, &call, &limit).await;
    }
    let ticket = ticket.unwrap_or_else(|| ticket::start(turn.candidate, turn.spent, clock.now()));
    // The block makes sure that the panic of a call that fails before its first await is caught.
    let answer =
        guarded(async { turn.candidate.adapter.advance(&call, ticket.task.as_deref()).await });
    let end = match until_stopped(runner, held, timeout(limit.time, answer)).await {
        Ok(Ok(Ok(Progress::Done(reply)))) => End::Answered(reply),
        Ok(Ok(Ok(Progress::Pending { ticket: task, wait }))) => {
            ticket::parked(ticket, task, wait, &claim.job, clock.now())
        }
        Ok(Ok(Err(error))) => End::Failed(error),
        Ok(Err(_)) => End::Failed(limit.passed(&claim.job)),
        Err(stopped) => stopped,
    };
    turn.ended(&end, clock.now());
    end.into()
}

fn call_of(claim: &Claim, held: &Held, limit: &Limit) -> Call {
    let job = &claim.job;
    Call {
        job_id: job.id,
        attempt: claim.attempt(),
        model: job.model.clone(),
        args: claim.args.clone(),
        route: job.route,
        timeout: limit.time,
        memory: held.memory.clone(),
    }
}

/// Waits for the vendor until someone stops the attempt: then the call is dropped, and that closes
/// its socket.
///
/// # Errors
/// `Revoked` or `Interrupted`.
pub(crate) async fn until_stopped<T>(
    runner: &Runner,
    held: &Held,
    answer: impl Future<Output = T>,
) -> Result<T, End> {
    tokio::select! {
        biased; // An answer that is there is worth more than the wish to stop.
        answer = answer => Ok(answer),
        () = held.revoked.cancelled() => Err(End::Revoked),
        () = runner.hand_back.cancelled() => Err(End::Interrupted),
    }
}

/// A panic in the adapter is this attempt's failure, not the worker's.
pub(crate) async fn guarded<T>(
    answer: impl Future<Output = Result<T, VendorError>>,
) -> Result<T, VendorError> {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| {
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
