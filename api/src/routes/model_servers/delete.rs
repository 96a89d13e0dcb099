//! `DELETE /v4/serving/{model_server_id}`.

use axum::{Json, extract::State};

use super::get::find;
use crate::{
    auth::Caller,
    error::ApiError,
    extract::Segment,
    schema::{error::ErrorDetail, model_server::DeletedModelServer},
    state::AppState,
};

/// Delete Model Server
///
/// With its history; its alias is free again. Jobs that were made before go on.
#[utoipa::path(
    delete,
    path = "/v4/serving/{model_server_id}",
    tag = "Model server",
    operation_id = "DELETE-V4-/v4/serving/model_server_id",
    params(("model_server_id" = String, Path)),
    responses(
        (status = 200, description = "Successful Response", body = DeletedModelServer),
        (status = 404, description = "The account has no such model server", body = ErrorDetail),
    ),
    security(("APIKeyHeader" = [])),
)]
pub(crate) async fn delete_model_server(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<String>,
) -> Result<Json<DeletedModelServer>, ApiError> {
    let server = find(&state, &caller, &id).await?;
    if !state.store.delete_model_server(server.id, &caller.account).await? {
        return Err(super::not_found());
    }
    state.catalogue.settle_servers(&state.store).await;
    Ok(Json(DeletedModelServer { model_server_id: server.id.to_string(), deleted: true }))
}
