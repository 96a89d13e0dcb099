//! `DELETE /v5/models/{model_id}`.

use axum::{Json, extract::State};
use inferq_common::store::serving::Removed;

use super::{deploying, find, not_found};
use crate::{
    auth::Caller,
    error::ApiError,
    extract::Segment,
    schema::{error::ErrorDetail, model::DeletedModel},
    state::AppState,
};

/// Delete Model
///
/// Jobs that were made before go on. Once this is answered none is made with it by any process; a
/// hosted `vendor/name` can be called as one that was never registered.
#[utoipa::path(
    delete,
    path = "/v5/models/{model_id}",
    tag = "Models",
    operation_id = "DELETE-V5-/v5/models/model_id",
    params(("model_id" = String, Path)),
    responses(
        (status = 200, description = "Successful Response", body = DeletedModel),
        (status = 404, description = "The account has no such model", body = ErrorDetail),
        (status = 409, description = "A model server runs it, or it is being deployed; not to be \
            repeated", body = ErrorDetail),
    ),
    security(("APIKeyHeader" = [])),
)]
pub(crate) async fn delete_model(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<String>,
) -> Result<Json<DeletedModel>, ApiError> {
    let model = find(&state, &caller, &id).await?;
    match state.store.delete_model(model.id, &caller.account).await? {
        Removed::Done => {
            state.catalogue.settle_models().await;
            Ok(Json(DeletedModel { id: model.id.to_string(), object: "model", deleted: true }))
        }
        Removed::Missing => Err(not_found()),
        Removed::Deploying(model) => Err(deploying(&model)),
        Removed::InUse(server) => {
            let alias =
                server.alias.map_or_else(String::new, |alias| format!(" (alias '{alias}')"));
            let detail = format!(
                "model server {}{alias} runs this model; switch it to another one with \
                 PUT /v4/serving/{}/backend, or delete it, and then delete the model",
                server.id, server.id
            );
            Err(ApiError::Conflict(detail.into()))
        }
    }
}
