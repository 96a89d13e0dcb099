//! `GET /v5/jobs/{job_id}/attempts`

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use inferq_common::{
    error::JobError,
    id::JobId,
    job::{Attempt, AttemptOutcome},
    usage::Usage,
    view::instant,
};
use serde::Serialize;

use crate::{
    auth::Caller, error::ApiError, extract::Segment, paging::List, state::AppState, waiting::find,
};

/// The JSON of an attempt that has ended.
#[derive(Debug, Serialize)]
pub(crate) struct AttemptView {
    /// Always `attempt`.
    object: &'static str,
    job_id: JobId,
    /// From 1.
    number: u32,
    outcome: AttemptOutcome,
    #[serde(serialize_with = "instant")]
    started_at: DateTime<Utc>,
    #[serde(serialize_with = "instant")]
    finished_at: DateTime<Utc>,
    error: Option<JobError>,
    usage: Option<Usage>,
    vendor_request_id: Option<String>,
}

impl From<Attempt> for AttemptView {
    fn from(attempt: Attempt) -> Self {
        Self {
            object: "attempt",
            job_id: attempt.job_id,
            number: attempt.number,
            outcome: attempt.outcome,
            started_at: attempt.started_at,
            finished_at: attempt.finished_at,
            error: attempt.error,
            usage: Some(attempt.usage).filter(|usage| !usage.is_empty()),
            vendor_request_id: attempt.vendor_request_id,
        }
    }
}

/// The attempts of a job that have ended, in their order.
pub(super) async fn attempts(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<JobId>,
) -> Result<Json<List<AttemptView>>, ApiError> {
    find(&state, &caller.account, id).await?;
    let attempts = state.store.list_attempts(id).await?;
    Ok(Json(List::whole(attempts.into_iter().map(AttemptView::from).collect())))
}
