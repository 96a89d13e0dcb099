//! `GET /v5/jobs/{job_id}`

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::HeaderName;
use inferq_common::{id::JobId, view::JobView};

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
    // Registered before the first look, so that an end between the two is not missed.
    let waiting = prefer.wait.map(|limit| (limit, state.waiters.register(id)));
    let (mut job, mut result) = find(&state, &caller.account, id).await?;
    if let Some((limit, waiter)) = waiting.filter(|_| !job.status.is_final()) {
        let limit = limit.min(Duration::from_secs(state.config.max_wait_secs));
        let pace = Pace::of(&job, &state);
        let wait = Wait { account: &caller.account, job_id: id, pace, limit };
        (job, result) = match wait.for_job(&state, waiter).await? {
            Some(ended) => ended,
            None => find(&state, &caller.account, id).await?,
        };
    }
    let mut response = Json(JobView::new(job, result)).into_response();
    response.headers_mut().insert(JOB_ID, job_header(id));
    if let Some(applied) = prefer.applied() {
        response.headers_mut().insert(HeaderName::from_static("preference-applied"), applied);
    }
    Ok(response)
}
