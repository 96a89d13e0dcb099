//! `GET /v4/serving/{model_server_id}/history`.

use axum::{Json, extract::State};
use inferq_common::model::ServerBackend;

use super::get::find;
use crate::{
    auth::Caller,
    error::ApiError,
    extract::Segment,
    schema::{error::ErrorDetail, list::ModelServerHistory},
    state::AppState,
};

/// List Model Server's History
#[utoipa::path(
    get,
    path = "/v4/serving/{model_server_id}/history",
    tag = "Model server",
    operation_id = "GET-V4-/v4/serving/model_server_id/history",
    params(("model_server_id" = String, Path)),
    responses(
        (status = 200, description = "Successful Response", body = ModelServerHistory),
        (status = 404, description = "The account has no such model server", body = ErrorDetail),
    ),
    security(("APIKeyHeader" = [])),
)]
pub(crate) async fn list_history(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<String>,
) -> Result<Json<ModelServerHistory>, ApiError> {
    let server = find(&state, &caller, &id).await?;
    let mut backends = state.store.list_backends(server.id).await?;
    if backends.is_empty() {
        // An older release has made it, and wrote no history.
        backends.push(ServerBackend::first_of(&server, None));
    }
    let items = backends.into_iter().map(Into::into).collect();
    Ok(Json(ModelServerHistory { object: "list", items }))
}
