//! `GET /v5/deliveries/{delivery_id}`

use axum::{Json, extract::State};
use inferq_common::id::DeliveryId;

use super::view::DeliveryView;
use crate::{auth::Caller, error::ApiError, extract::Segment, state::AppState};

/// Fetches one delivery with its attempts.
pub(super) async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<DeliveryId>,
) -> Result<Json<DeliveryView>, ApiError> {
    let found = state.store.find_delivery(id, &caller.account).await?;
    let delivery = found.ok_or_else(|| not_found(id))?;
    let attempts = state.store.list_delivery_attempts(id).await?;
    Ok(Json(DeliveryView::from(delivery).with_attempts(attempts)))
}

pub(super) fn not_found(id: DeliveryId) -> ApiError {
    ApiError::NotFound(format!("delivery {id} was not found").into())
}
