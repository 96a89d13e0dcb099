//! `POST /v5/deliveries/{delivery_id}/redeliver`

use axum::{Json, extract::State};
use http::StatusCode;
use inferq_common::id::DeliveryId;

use super::{get::not_found, view::DeliveryView};
use crate::{auth::Caller, error::ApiError, extract::Segment, state::AppState};

/// Makes a delivery due now, with a fresh count of attempts; a worker finds it within a second.
pub(super) async fn redeliver(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<DeliveryId>,
) -> Result<(StatusCode, Json<DeliveryView>), ApiError> {
    let now = state.clock.now();
    let due = state.store.redeliver(id, &caller.account, now).await?;
    let delivery = due.ok_or_else(|| not_found(id))?;
    Ok((StatusCode::ACCEPTED, Json(DeliveryView::from(delivery))))
}
