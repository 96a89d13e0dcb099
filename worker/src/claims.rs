//! Watches that what runs here is this process's to run, and that what it has claimed runs.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chrono::TimeDelta;
use inferq_common::{
    id::{InstanceId, JobId},
    job::Outcome,
    outage::Outage,
    store::StoreError,
    telemetry::field,
};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::{attempt::wakeup, runner::Runner, running::InHand};

/// How soon an attempt is stopped whose cancel event was lost.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Bounds one question.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// The most attempts in one question.
const MAX_ASKED: usize = 1000;
/// How long word of a loan may be under way; one that comes later finds it given back.
const STRAY_AFTER: TimeDelta = TimeDelta::seconds(1);
/// The most strays given back at once.
const MAX_STRAYS: u32 = 16;

/// Stops attempts whose claim no longer holds and gives back claims that nobody runs, until the
/// runner gives up.
pub(crate) async fn watch(runner: Arc<Runner>) {
    runner.give_up.run_until_cancelled(watch_forever(&runner)).await;
}

async fn watch_forever(runner: &Runner) {
    let mut outage = Outage::of("ask for revoked claims");
    let current = &runner.worker.instance;
    let running = &runner.worker.running;
    loop {
        let id = current.id();
        let is_gone = tokio::select! {
            () = current.gone(id) => true,
            () = sleep(ASK_EVERY) => false,
        };
        // Also those claimed under an id that was gone before this loop came to know of it.
        running.cancel_unless(|id| current.is_current(id));
        if is_gone {
            debug!({ field::INSTANCE_ID } = %id, "instance is lost; it has dropped what it ran");
            current.replaced(id).await;
            continue;
        }
        let asked = async {
            ask(runner, id).await?;
            give_back_strays(runner, id).await
        };
        match asked.await {
            Ok(()) => outage.succeeded(),
            Err(error) => {
                outage.failed(&error);
            }
        }
    }
}

async fn ask(runner: &Runner, id: InstanceId) -> Result<(), StoreError> {
    let running = &runner.worker.running;
    for held in running.held_by(id).chunks(MAX_ASKED) {
        let keys: Vec<_> = held.iter().map(InHand::key).collect();
        let question = runner.worker.store.revoked(id, &keys);
        let Ok(revoked) = timeout(ASK_TIMEOUT, question).await else { return Ok(()) };
        let revoked: HashSet<JobId> = revoked?.into_iter().collect();
        // A job that was put off meanwhile may have been claimed again under the same number.
        for &claim in held.iter().filter(|claim| revoked.contains(&claim.job_id)) {
            running.cancel_claim(claim);
        }
    }
    Ok(())
}

/// Gives back what is claimed for this process and runs nowhere: it was lent and word of it was
/// lost, perhaps with the api; a claim was done and its answer lost; or the task that ran it died.
/// Without this it would run nowhere for as long as this process lives.
async fn give_back_strays(runner: &Runner, id: InstanceId) -> Result<(), StoreError> {
    let worker = &runner.worker;
    let held: Vec<_> = worker.running.held_by(id).iter().map(InHand::key).collect();
    let before = worker.clock.now() - STRAY_AFTER;
    let question = worker.store.strays(id, &held, before, MAX_STRAYS);
    let Ok(strays) = timeout(ASK_TIMEOUT, question).await else { return Ok(()) };
    for stray in strays? {
        let job = stray.job.clone();
        let taken = worker.running.take_up(job.id);
        if !taken.alone {
            continue;
        }
        warn!({ field::JOB_ID } = %job.id, { field::JOB_ATTEMPT } = job.attempt, "nobody runs this claim; it is given back");
        let finish = worker.path.finish(stray, Outcome::HandedBack);
        if let Ok(Ok(true)) = timeout(ASK_TIMEOUT, finish).await {
            worker.publisher.publish(wakeup(&job), None);
        }
    }
    Ok(())
}
