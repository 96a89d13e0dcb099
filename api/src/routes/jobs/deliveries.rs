//! `GET /v5/jobs/{job_id}/deliveries`

use axum::{Json, extract::State};
use inferq_common::id::JobId;

use crate::{
    auth::Caller, error::ApiError, extract::Segment, paging::List,
    routes::deliveries::view::DeliveryView, state::AppState, waiting::find,
};

/// The callbacks owed for a job.
pub(super) async fn deliveries(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<JobId>,
) -> Result<Json<List<DeliveryView>>, ApiError> {
    find(&state, &caller.account, id).await?;
    let deliveries = state.store.list_deliveries(id).await?;
    Ok(Json(List::whole(deliveries.into_iter().map(DeliveryView::from).collect())))
}
