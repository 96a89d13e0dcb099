//! `POST /v4/serving/{model_server_id}/rollback`.

use axum::{Json, extract::State};
use inferq_common::store::serving::{RolledBack, Switching};

use super::get::find;
use crate::{
    auth::Caller,
    error::ApiError,
    extract::Segment,
    schema::{error::ErrorDetail, model_server::RollbackModelServerResponse},
    state::AppState,
};

/// Roll Model Server Back
///
/// It runs what it ran before the last switch; the next rollback goes one switch further. Calls made
/// after the answer run that, in every process.
#[utoipa::path(
    post,
    path = "/v4/serving/{model_server_id}/rollback",
    tag = "Model server",
    operation_id = "POST-V4-/v4/serving/model_server_id/rollback",
    params(("model_server_id" = String, Path)),
    responses(
        (status = 200, description = "Successful Response", body = RollbackModelServerResponse),
        (status = 404, description = "The account has no such model server", body = ErrorDetail),
        (status = 409, description = "It has run nothing else before, or that was deleted; not to \
            be repeated", body = ErrorDetail),
    ),
    security(("APIKeyHeader" = [])),
)]
pub(crate) async fn roll_back(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<String>,
) -> Result<Json<RollbackModelServerResponse>, ApiError> {
    let server = find(&state, &caller, &id).await?;
    let by = caller.key.to_string();
    let switching = Switching { by: &by, now: state.clock.now() };
    match state.store.roll_back_model_server(server.id, &caller.account, switching).await? {
        RolledBack::Done { server, from } => {
            state.catalogue.settle_servers(&state.store).await;
            Ok(Json(RollbackModelServerResponse {
                from_deployment: from,
                rolled_back_to_deployment: server.model_deployment_id,
            }))
        }
        RolledBack::Missing => Err(super::not_found()),
        RolledBack::Nothing => Err(ApiError::Conflict(
            "there is nothing to roll back to: this model server has run nothing else before"
                .into(),
        )),
        RolledBack::NoModel(to) => Err(ApiError::Conflict(
            format!("model {to}, which this model server ran before, was deleted").into(),
        )),
    }
}
