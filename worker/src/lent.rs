//! Jobs that an api lent to this process as it stored them, because it had told of room.
//!
//! Such a job is claimed already. Word of it brings the claim along, and while that is so fresh that
//! nothing can have become of it, it is run as it is; else the claim is read from the store. A job that
//! cannot begin at once is given back; one nobody told of is found by `claims`.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex as StdMutex},
};

use chrono::TimeDelta;
use inferq_common::{
    broker::{Event, Room},
    id::{InstanceId, JobId},
    job::{Json, Outcome},
    store::{Claim, Wakeup},
    telemetry::{field, metric},
    vendor::Vendor,
};
use metrics::counter;
use tokio::sync::{
    Mutex,
    mpsc::{self, error::TrySendError},
};
use tracing::debug;

use crate::{attempt, runner::Runner};

/// Told of and not looked at yet. What does not fit is found as a claim that nobody runs.
const MAX_WAITING: usize = 1024;

/// How long after it was made a claim holds though the store is not asked: it is given back after twice
/// that, by the same clocks, if nobody runs it.
const HOLDS_FOR: TimeDelta = TimeDelta::milliseconds(500);

/// Jobs remembered that were begun here on mere word or given back, so that word that comes again is not
/// believed: more than come in [`HOLDS_FOR`].
const MAX_BEGUN: usize = 4096;

/// A job that was lent to this process.
#[derive(Debug)]
pub(crate) struct Lent {
    job_id: JobId,
    vendor: Vendor,
    trace: Option<String>,
    claim: Option<Json>,
}

/// Where a process's inbox puts what was lent to it. Clones share it.
#[derive(Debug, Clone)]
pub struct Intake {
    sender: mpsc::Sender<Lent>,
    receiver: Arc<Mutex<mpsc::Receiver<Lent>>>,
}

impl Default for Intake {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        Self { sender, receiver: Arc::new(Mutex::new(receiver)) }
    }
}

impl Intake {
    /// Takes word of a loan: an [`Event::Lent`]. Others are not for it.
    pub fn take(&self, event: Event) {
        let Event::Lent { job_id, vendor, trace, claim } = event else { return };
        if self.sender.try_send(Lent { job_id, vendor, trace, claim }).is_err() {
            debug!({ field::JOB_ID } = %job_id, "too much is lent at once; it will be given back");
        }
    }
}

/// The latest jobs that were begun on mere word or given back.
#[derive(Debug, Default)]
pub(crate) struct Begun(StdMutex<(HashSet<JobId>, VecDeque<JobId>)>);

impl Begun {
    /// Whether it was not among them; now it is.
    fn add(&self, job_id: JobId) -> bool {
        let mut begun = self.0.lock().expect("no one panics while holding it");
        let (ids, order) = &mut *begun;
        let is_new = ids.insert(job_id);
        if is_new {
            order.push_back(job_id);
            if order.len() > MAX_BEGUN
                && let Some(oldest) = order.pop_front()
            {
                ids.remove(&oldest);
            }
        }
        is_new
    }
}

/// What an api is told that has had an attempt of `vendor` end here.
pub(crate) fn room(runner: &Runner, instance: InstanceId, vendor: Vendor) -> Option<Room> {
    if !runner.worker.config.lend_places {
        return None;
    }
    let places = runner.places.get(&vendor)?.to_lend();
    let stays = !runner.soft.is_cancelled() && runner.worker.instance.is_current(instance);
    let places = u32::try_from(places).unwrap_or(u32::MAX);
    (stays && places > 0).then_some(Room { instance, vendor, places })
}

/// Hands what was lent to this process to the consumers of its vendors, until the runner gives up.
pub(crate) async fn pass_on(runner: Arc<Runner>) {
    let mut intake = runner.worker.intake.receiver.lock().await;
    while let Some(Some(lent)) = runner.give_up.run_until_cancelled(intake.recv()).await {
        let sender = runner.places.get(&lent.vendor).map(|places| &places.lent);
        let passed = match sender {
            Some(sender) if !runner.soft.is_cancelled() => {
                sender.try_send(lent).map_err(TrySendError::into_inner)
            }
            _ => Err(lent),
        };
        if let Err(refused) = passed {
            let runner = Arc::clone(&runner);
            runner.attempts.clone().spawn(async move { give_back(&runner, refused).await });
        }
    }
}

/// Runs a job that was lent to this process, if it still is.
pub(crate) async fn run(runner: &Runner, lent: Lent) {
    let job_id = lent.job_id;
    let taken = runner.worker.running.take_up(job_id);
    if !taken.alone {
        return;
    }
    let trace = lent.trace.clone();
    let claim = match told_claim(runner, &lent).filter(|_| runner.begun.add(job_id)) {
        Some(claim) => Ok(Some(claim)),
        None => runner.lent(job_id).await,
    };
    match claim {
        Ok(Some(claim)) => attempt::run(runner, claim, trace.as_deref()).await,
        Ok(None) => debug!({ field::JOB_ID } = %job_id, "the loan holds no more"),
        Err(error) => {
            debug!({ field::JOB_ID } = %job_id, %error, "the loan cannot be read; it will be given back");
        }
    }
}

/// The claim as it came along, if it is beyond doubt.
fn told_claim(runner: &Runner, lent: &Lent) -> Option<Claim> {
    let claim: Claim = serde_json::from_str(lent.claim.as_ref()?.as_str()).ok()?;
    let age = runner.worker.clock.now() - claim.job.created_at;
    let instance = &runner.worker.instance;
    let is_ours = instance.is_current(claim.instance) && instance.is_fresh();
    let is_it = claim.job.id == lent.job_id && claim.job.vendor == lent.vendor;
    (is_it && is_ours && age < HOLDS_FOR).then_some(claim)
}

/// Has a job queued as if it had not been lent: it cannot begin here.
pub(crate) async fn give_back(runner: &Runner, lent: Lent) {
    let taken = runner.worker.running.take_up(lent.job_id);
    if !taken.alone {
        return;
    }
    // Whatever comes of it, word that comes again is not to be believed.
    runner.begun.add(lent.job_id);
    let Ok(Some(claim)) = runner.lent(lent.job_id).await else { return };
    let wakeup = Wakeup { attempt: 0, ..attempt::wakeup(&claim.job) };
    // Due by anyone's clock.
    let mut unused = Outcome::Deferred { run_at: claim.job.created_at, ticket: None };
    if runner.finish(&claim, &mut unused).await.is_some() {
        debug!({ field::JOB_ID } = %claim.job.id, "a loan is given back");
        counter!(metric::LOANS_RETURNED, "vendor" => claim.job.vendor.as_str()).increment(1);
        runner.worker.publisher.publish(wakeup, lent.trace);
    }
}
