//! `GET /v5/jobs/{job_id}`

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::HeaderName;
use inferq_common::{
    id::{AccountId, JobId},
    store::FoundJob,
    view::JobView,
};

use crate::{
    auth::Caller,
    error::{ApiError, JOB_ID, job_header},
    extract::{Prefer, Segment},
    state::AppState,
    waiting::{Pace, Wait, find},
};

/// Fetches one job; with `Prefer: wait=N` once it has ended, but after `N` seconds at the latest.
pub(super) async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<JobId>,
    prefer: Prefer,
) -> Result<Response, ApiError> {
    // Only `wait` means anything here.
    let prefer = Prefer { respond_async: false, ..prefer };
    let (job, result) = match prefer.wait {
        Some(limit) if !limit.is_zero() => wait(&state, &caller.account, id, limit).await?,
        _ => find(&state, &caller.account, id).await?,
    };
    let mut response = Json(JobView::new(job, result)).into_response();
    response.headers_mut().insert(JOB_ID, job_header(id));
    if let Some(applied) = prefer.applied() {
        response.headers_mut().insert(HeaderName::from_static("preference-applied"), applied);
    }
    Ok(response)
}

/// The job once it has ended, or as it is when the limit has passed.
async fn wait(
    state: &AppState,
    account: &AccountId,
    id: JobId,
    limit: Duration,
) -> Result<FoundJob, ApiError> {
    // Registered before the first look, so that an end between the two is not missed.
    let (waiter, placed) = state.waiters.register_placed(id, account);
    let before = match placed {
        Some(job) => job,
        None => match find(state, account, id).await? {
            (job, result) if job.status.is_final() => return Ok((job, result)),
            (job, _) => job,
        },
    };
    let limit = limit.min(Duration::from_secs(state.config.max_wait_secs));
    let wait = Wait { account: account.clone(), job_id: id, pace: Pace::of(&before, state), limit };
    match wait.for_job(state, waiter, &before).await? {
        Some(ended) => Ok(ended),
        None => find(state, account, id).await,
    }
}
