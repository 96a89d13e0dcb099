//! `GET /v5/models/{model_id}`.

use axum::{Json, extract::State};

use super::availability;
use crate::{
    auth::Caller,
    error::ApiError,
    extract::Segment,
    schema::{
        error::{ErrorDetail, HTTPValidationError},
        model::InferenceModel,
    },
    state::AppState,
};

/// Get Model
///
/// By its id, or by `vendor/name` (percent-encoded) if the account has registered that.
#[utoipa::path(
    get,
    path = "/v5/models/{model_id}",
    tag = "Models",
    operation_id = "GET-V5-/v5/models/model_id",
    params(("model_id" = String, Path)),
    responses(
        (status = 200, description = "Successful Response", body = InferenceModel),
        (status = 404, description = "The account has no such model", body = ErrorDetail),
        (status = 422, description = "Validation Error", body = HTTPValidationError),
    ),
    security(("APIKeyHeader" = [])),
)]
pub(crate) async fn get_model(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<String>,
) -> Result<Json<InferenceModel>, ApiError> {
    let model = super::find(&state, &caller, &id).await?;
    availability::shown_one(&state, model).await.map(Json)
}
