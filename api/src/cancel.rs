//! Ends jobs that a client no longer wants.

use std::time::Duration;

use inferq_common::{
    broker::Event,
    id::{AccountId, InstanceId, JobId},
    job::{Job, JobStatus},
    store::{Cancelled, StoreError},
    telemetry,
};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::state::AppState;

/// An event that is not sent by then is found in the store by those it is for.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Cancels a job of the account that has not ended, and tells all whom it concerns. `None`: there is
/// no such job.
pub(crate) async fn cancel(
    state: &AppState,
    id: JobId,
    account: &AccountId,
) -> Result<Option<Cancelled>, StoreError> {
    let cancelled = state.store.cancel(id, account, state.clock.now()).await?;
    if let Some(Cancelled::Now { job, ran_at }) = &cancelled {
        info!(job.id = %id, "job was cancelled");
        tell(state, job, *ran_at);
    }
    Ok(cancelled)
}

/// Cancels its job when it is dropped, unless it was told that the caller has its answer.
#[derive(Debug)]
pub(crate) struct OnLeave(Option<(AppState, JobId, AccountId)>);

impl OnLeave {
    /// Does something only if `armed`.
    pub(crate) fn new(armed: bool, state: &AppState, id: JobId, account: &AccountId) -> Self {
        Self(armed.then(|| (state.clone(), id, account.clone())))
    }

    /// The job has ended, or goes on without the caller.
    pub(crate) fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for OnLeave {
    fn drop(&mut self) {
        let Some((state, id, account)) = self.0.take() else { return };
        // A process that stops drops its callers: they did not leave.
        if state.closing.is_cancelled() {
            return;
        }
        let tasks = state.tasks.clone();
        tasks.spawn(async move {
            if let Err(error) = cancel(&state, id, &account).await {
                warn!(job.id = %id, %error, "job whose caller left was not cancelled");
            }
        });
    }
}

/// Tells the worker that runs the job and the callers that wait for it, as far as they can be
/// reached.
fn tell(state: &AppState, job: &Job, ran_at: Option<InstanceId>) {
    telemetry::count_ended(job, JobStatus::Cancelled, state.clock.now());
    let ended = Event::Finished {
        job_id: job.id,
        status: JobStatus::Cancelled,
        attempt: job.attempt,
        result: None,
        times: None,
        chunks: 0,
        room: None,
    };
    state.waiters.take(ended.clone());
    let mut events = Vec::with_capacity(2);
    if let Some(worker) = ran_at {
        events.push((worker, Event::Cancel { job_id: job.id, attempt: job.attempt }));
    }
    if let Some(waiting) = job.reply_to.filter(|waiting| *waiting != state.instance.id()) {
        events.push((waiting, ended));
    }
    let broker = state.broker.clone();
    state.tasks.spawn(async move {
        for (to, event) in events {
            match timeout(SEND_TIMEOUT, broker.send(to, &event)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "event was not sent"),
                Err(_) => debug!("event was not sent in time"),
            }
        }
    });
}
