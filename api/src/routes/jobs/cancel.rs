//! `POST /v5/jobs/{job_id}/cancel`

use std::time::Duration;

use axum::{Json, extract::State};
use inferq_common::{
    broker::Event,
    id::{InstanceId, JobId},
    job::{Job, JobStatus},
    store::Cancelled,
    telemetry::metric,
    view::JobView,
};
use tokio::time::timeout;
use tracing::{debug, info};

use crate::{
    auth::Caller,
    error::ApiError,
    extract::Segment,
    state::AppState,
    waiting::{find, job_not_found},
};

/// An event that is not sent by then is found in the store by those it is for.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Cancels a job that has not ended, and answers with it.
pub(super) async fn cancel(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<JobId>,
) -> Result<Json<JobView>, ApiError> {
    let now = state.clock.now();
    let cancelled = state.store.cancel(id, &caller.account, now).await?;
    match cancelled.ok_or_else(|| job_not_found(id))? {
        Cancelled::Already(job) => Err(ApiError::JobConflict {
            detail: format!("the job has already ended: {}", job.status).into(),
            job_id: id,
            status: job.status,
        }),
        Cancelled::Now { job, ran_at } => {
            info!(job.id = %id, "job was cancelled");
            tell(&state, &job, ran_at);
            let (job, result) = find(&state, &caller.account, id).await?;
            Ok(Json(JobView::new(job, result)))
        }
    }
}

/// Tells the worker that runs the job and the callers that wait for it, as far as they can be
/// reached.
fn tell(state: &AppState, job: &Job, ran_at: Option<InstanceId>) {
    let labels = [("vendor", job.vendor.as_str()), ("status", JobStatus::Cancelled.as_str())];
    metrics::counter!(metric::JOBS_FINISHED, &labels).increment(1);
    let ended = Event::Finished {
        job_id: job.id,
        status: JobStatus::Cancelled,
        attempt: job.attempt,
        result: None,
        times: None,
        chunks: 0,
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
