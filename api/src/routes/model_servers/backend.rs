//! `PUT /v4/serving/{model_server_id}/backend`.

use axum::{Json, extract::State};
use inferq_common::store::serving::{Switched, Switching};
use serde_json::value::RawValue;

use super::{create::deployment, get::find};
use crate::{
    auth::Caller,
    error::ApiError,
    extract::{Payload, Segment},
    schema::{
        check::{Findings, check},
        error::{ErrorDetail, HTTPValidationError},
        model_server::{UpdateModelServerBackendRequest, UpdateModelServerBackendResponse},
    },
    state::AppState,
};

/// Update Model Server's Backend
///
/// Calls made after the answer run the new model, in every process; those made before end with the
/// one they began with. Where it runs that model already nothing changes.
#[utoipa::path(
    put,
    path = "/v4/serving/{model_server_id}/backend",
    tag = "Model server",
    operation_id = "PUT-V4-/v4/serving/model_server_id/backend",
    params(("model_server_id" = String, Path)),
    request_body = UpdateModelServerBackendRequest,
    responses(
        (status = 200, description = "Successful Response", body = UpdateModelServerBackendResponse),
        (status = 404, description = "The account has no such model server", body = ErrorDetail),
        (status = 422, description = "Validation Error", body = HTTPValidationError),
    ),
    security(("APIKeyHeader" = [])),
)]
pub(crate) async fn update_backend(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<String>,
    payload: Payload,
) -> Result<Json<UpdateModelServerBackendResponse>, ApiError> {
    payload.members(&[])?;
    let server = find(&state, &caller, &id).await?;
    let body: &RawValue = serde_json::from_str(payload.text()?).map_err(ApiError::internal)?;
    let mut findings = Findings::of_body();
    let read = check::<UpdateModelServerBackendRequest>(body, &mut findings);
    let to = match &read {
        Some((_, request)) => {
            deployment(&request.new_model_deployment_id, &state, &caller.account).await?
        }
        None => Err(String::new()),
    };
    if let (Some(_), Err(reason)) = (&read, &to) {
        findings.refuse("new_model_deployment_id", reason);
    }
    findings.finish()?;
    let to = to.map_err(ApiError::internal)?;
    let by = caller.key.to_string();
    let switching = Switching { by: &by, now: state.clock.now() };
    match state.store.switch_model_server(server.id, &caller.account, &to, switching).await? {
        Switched::Done { server, from } => {
            // Also where it ran it already: the switch that made it so may not be over yet.
            state.catalogue.settle_servers(&state.store).await;
            Ok(Json(UpdateModelServerBackendResponse::new(server, from)))
        }
        Switched::Missing => Err(super::not_found()),
        Switched::NoModel => Err(ApiError::Conflict("this model has just been deleted".into())),
    }
}
