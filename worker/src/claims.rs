//! Watches that what runs here is still this process's to run.

use std::{collections::HashSet, sync::Arc, time::Duration};

use inferq_common::{
    id::{InstanceId, JobId},
    outage::Outage,
    store::StoreError,
    telemetry::field,
};
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::runner::Runner;

/// How soon an attempt is stopped whose cancel event was lost.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Bounds one question.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// The most attempts in one question.
const MAX_ASKED: usize = 1000;

/// Stops attempts whose claim no longer holds, until the runner gives up.
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
        match ask(runner, id).await {
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
        let question = runner.worker.store.revoked(id, held);
        let Ok(revoked) = timeout(ASK_TIMEOUT, question).await else { return Ok(()) };
        let revoked: HashSet<JobId> = revoked?.into_iter().collect();
        for &(job_id, attempt) in held.iter().filter(|(job_id, _)| revoked.contains(job_id)) {
            running.cancel(job_id, attempt);
        }
    }
    Ok(())
}
