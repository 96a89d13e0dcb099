//! `GET /v4/serving/{model_server_id}`, by alias, and what it runs.

use axum::{Json, extract::State};
use inferq_common::{id::ModelServerId, model::ModelServer};

use super::is_alias;
use crate::{
    auth::Caller,
    error::ApiError,
    extract::Segment,
    schema::{
        error::{ErrorDetail, HTTPValidationError},
        model_server::{ModelServerDeployment, ModelServerInfo},
    },
    state::AppState,
};

/// Get Model Server
#[utoipa::path(
    get,
    path = "/v4/serving/{model_server_id}",
    tag = "Model server",
    operation_id = "GET-V4-/v4/serving/model_server_id",
    params(("model_server_id" = String, Path)),
    responses(
        (status = 200, description = "Successful Response", body = ModelServerInfo),
        (status = 404, description = "The account has no such model server", body = ErrorDetail),
        (status = 422, description = "Validation Error", body = HTTPValidationError),
    ),
    security(("APIKeyHeader" = [])),
)]
pub(crate) async fn get_model_server(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<String>,
) -> Result<Json<ModelServerInfo>, ApiError> {
    Ok(Json(find(&state, &caller, &id).await?.into()))
}

/// Get Model Server's Deployment
#[utoipa::path(
    get,
    path = "/v4/serving/{model_server_id}/deployment",
    tag = "Model server",
    operation_id = "GET-V4-/v4/serving/model_server_id/deployment",
    params(("model_server_id" = String, Path)),
    responses(
        (status = 200, description = "Successful Response", body = ModelServerDeployment),
        (status = 404, description = "The account has no such model server", body = ErrorDetail),
        (status = 422, description = "Validation Error", body = HTTPValidationError),
    ),
    security(("APIKeyHeader" = [])),
)]
pub(crate) async fn get_deployment(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<String>,
) -> Result<Json<ModelServerDeployment>, ApiError> {
    let server = find(&state, &caller, &id).await?;
    Ok(Json(ModelServerDeployment { model_deployment_id: server.model_deployment_id }))
}

/// Get Model Server by Alias
#[utoipa::path(
    get,
    path = "/v4/serving/a/{alias}",
    tag = "Model server",
    operation_id = "GET-V4-/v4/serving/a/{alias}",
    params(("alias" = String, Path)),
    responses(
        (status = 200, description = "Successful Response", body = ModelServerInfo),
        (status = 404, description = "The account has no such alias", body = ErrorDetail),
        (status = 422, description = "Validation Error", body = HTTPValidationError),
    ),
    security(("APIKeyHeader" = [])),
)]
pub(crate) async fn get_model_server_by_alias(
    State(state): State<AppState>,
    caller: Caller,
    Segment(alias): Segment<String>,
) -> Result<Json<ModelServerInfo>, ApiError> {
    // What cannot be an alias is not looked for: a database may refuse the very question.
    let found = if is_alias(&alias) {
        state.store.find_model_server_by_alias(&alias, &caller.account).await?
    } else {
        None
    };
    let server = found
        .ok_or(ApiError::NotFound("the account has no model server with this alias".into()))?;
    Ok(Json(server.into()))
}

/// The account's model server with this id.
///
/// # Errors
/// 404 if there is none.
pub(crate) async fn find(
    state: &AppState,
    caller: &Caller,
    id: &str,
) -> Result<ModelServer, ApiError> {
    let found = match id.parse::<ModelServerId>() {
        Ok(id) => state.store.find_model_server(id, &caller.account).await?,
        Err(_) => None,
    };
    found.ok_or_else(super::not_found)
}
