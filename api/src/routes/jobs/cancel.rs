//! `POST /v5/jobs/{job_id}/cancel`

use axum::{Json, extract::State};
use inferq_common::{id::JobId, store::Cancelled, view::JobView};

use crate::{
    auth::Caller,
    cancel,
    error::ApiError,
    extract::Segment,
    state::AppState,
    waiting::{find, job_not_found},
};

/// Cancels a job that has not ended, and answers with it.
pub(super) async fn cancel(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<JobId>,
) -> Result<Json<JobView>, ApiError> {
    match cancel::cancel(&state, id, &caller.account).await?.ok_or_else(|| job_not_found(id))? {
        Cancelled::Already(job) => Err(ApiError::JobConflict {
            detail: format!("the job has already ended: {}", job.status).into(),
            job_id: id,
            status: job.status,
        }),
        Cancelled::Now { .. } => {
            let (job, result) = find(&state, &caller.account, id).await?;
            Ok(Json(JobView::new(job, result)))
        }
    }
}
