//! The same for clients of before version 0.4, whose base address ends in `/v1/hosted_inference`:
//! endpoints go by their names, a task's status is its `state`, and its result is a text.

use axum::{
    Json, Router,
    extract::{Path, State},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http::HeaderMap;

use super::{
    create,
    endpoint::{Endpoint, all, named, unknown_name},
    request::Request,
    sync, task,
};
use crate::{
    auth::Caller,
    error::ApiError,
    extract::{Payload, Problems, Segment},
    schema::{
        error::{ErrorDetail, HTTPValidationError},
        launch_task::{
            HostedEndpoints, HostedTask, LaunchTaskCreated, LaunchTaskRequest, ModelEndpoint,
        },
    },
    state::AppState,
};

/// The routes of this resource.
pub(super) fn router() -> Router<AppState> {
    Router::new()
        .route("/v1/hosted_inference/endpoints", get(list_endpoints))
        .route("/v1/hosted_inference/endpoints/{name}", get(get_endpoint))
        .route("/v1/hosted_inference/endpoints/{name}/task_async/{task_id}", get(get_endpoint_task))
        .route("/v1/hosted_inference/task/result/{task_id}", get(get_task))
        .route("/v1/hosted_inference/task_async/{name}", post(create_task))
        .route("/v1/hosted_inference/task_sync/{name}", post(run_task))
}

/// List Endpoints
#[utoipa::path(
    get,
    path = "/v1/hosted_inference/endpoints",
    tag = "Launch",
    operation_id = "GET-V1-/v1/hosted_inference/endpoints",
    responses((status = 200, description = "Successful Response", body = HostedEndpoints)),
    security(("APIKeyHeader" = []), ("HTTPBasic" = []), ("HTTPBearer" = [])),
)]
pub(crate) async fn list_endpoints(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<Json<HostedEndpoints>, ApiError> {
    Ok(Json(HostedEndpoints { endpoints: all(&state, &caller.account).await? }))
}

/// Get Endpoint
#[utoipa::path(
    get,
    path = "/v1/hosted_inference/endpoints/{name}",
    tag = "Launch",
    operation_id = "GET-V1-/v1/hosted_inference/endpoints/name",
    params(("name" = String, Path)),
    responses(
        (status = 200, description = "Successful Response", body = ModelEndpoint),
        (status = 404, description = "The account has no such endpoint", body = ErrorDetail),
    ),
    security(("APIKeyHeader" = []), ("HTTPBasic" = []), ("HTTPBearer" = [])),
)]
pub(crate) async fn get_endpoint(
    State(state): State<AppState>,
    caller: Caller,
    Segment(name): Segment<String>,
) -> Result<Json<ModelEndpoint>, ApiError> {
    let found = named(&state, &caller.account, &name).await?;
    found.into_iter().next().map(Json).ok_or_else(unknown_name)
}

/// Create Async Task by Name
#[utoipa::path(
    post,
    path = "/v1/hosted_inference/task_async/{name}",
    tag = "Launch",
    operation_id = "POST-V1-/v1/hosted_inference/task_async/name",
    params(("name" = String, Path)),
    request_body = LaunchTaskRequest,
    responses(
        (status = 200, description = "Successful Response", body = LaunchTaskCreated,
            headers(("x-job-id" = String))),
        (status = 404, description = "The account has no such endpoint", body = ErrorDetail),
        (status = 409, description = "The model is not ready; not to be repeated",
            body = ErrorDetail),
        (status = 413, description = "The body is too large", body = ErrorDetail),
        (status = 422, description = "Validation Error", body = HTTPValidationError),
    ),
    security(("APIKeyHeader" = []), ("HTTPBasic" = []), ("HTTPBearer" = [])),
)]
pub(crate) async fn create_task(
    State(state): State<AppState>,
    caller: Caller,
    Segment(name): Segment<String>,
    headers: HeaderMap,
    payload: Payload,
) -> Result<Response, ApiError> {
    let path = format!("/v1/hosted_inference/task_async/{name}");
    let request = Request::read(&state, &path, &headers, payload, Problems::default()).await?;
    let endpoint = Endpoint::by_name(&state, &caller, &name).await?;
    let order = request.order(&state, caller.account, endpoint, false).await?;
    create::accept(&state, order).await
}

/// Get Async Task of an Endpoint
#[utoipa::path(
    get,
    path = "/v1/hosted_inference/endpoints/{name}/task_async/{task_id}",
    tag = "Launch",
    operation_id = "GET-V1-/v1/hosted_inference/endpoints/name/task_async/task_id",
    params(("name" = String, Path), ("task_id" = String, Path)),
    responses(
        (status = 200, description = "Successful Response", body = HostedTask),
        (status = 404, description = "The account has no such task", body = ErrorDetail),
    ),
    security(("APIKeyHeader" = []), ("HTTPBasic" = []), ("HTTPBearer" = [])),
)]
pub(crate) async fn get_endpoint_task(
    State(state): State<AppState>,
    caller: Caller,
    path: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
) -> Result<Json<HostedTask>, ApiError> {
    // A task is known by its id alone; its endpoint may be gone by now.
    let Path((_name, id)) = path.map_err(|_| ApiError::no_route())?;
    Ok(Json(task::find(&state, &caller, &id).await?.into()))
}

/// Get Async Task's Result
#[utoipa::path(
    get,
    path = "/v1/hosted_inference/task/result/{task_id}",
    tag = "Launch",
    operation_id = "GET-V1-/v1/hosted_inference/task/result/task_id",
    params(("task_id" = String, Path)),
    responses(
        (status = 200, description = "Successful Response", body = HostedTask),
        (status = 404, description = "The account has no such task", body = ErrorDetail),
    ),
    security(("APIKeyHeader" = []), ("HTTPBasic" = []), ("HTTPBearer" = [])),
)]
pub(crate) async fn get_task(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<String>,
) -> Result<Json<HostedTask>, ApiError> {
    Ok(Json(task::find(&state, &caller, &id).await?.into()))
}

/// Run Sync Task by Name
#[utoipa::path(
    post,
    path = "/v1/hosted_inference/task_sync/{name}",
    tag = "Launch",
    operation_id = "POST-V1-/v1/hosted_inference/task_sync/name",
    params(("name" = String, Path)),
    request_body = LaunchTaskRequest,
    responses(
        (status = 200, description = "Successful Response", body = HostedTask,
            headers(("x-job-id" = String))),
        (status = 404, description = "The account has no such endpoint", body = ErrorDetail),
        (status = 409, description = "The model is not ready; not to be repeated",
            body = ErrorDetail),
        (status = 413, description = "The body is too large", body = ErrorDetail),
        (status = 422, description = "Validation Error", body = HTTPValidationError),
        (status = 504, description = "The job has not ended within the time a caller is held and \
            goes on", body = ErrorDetail),
    ),
    security(("APIKeyHeader" = []), ("HTTPBasic" = []), ("HTTPBearer" = [])),
)]
pub(crate) async fn run_task(
    State(state): State<AppState>,
    caller: Caller,
    Segment(name): Segment<String>,
    headers: HeaderMap,
    payload: Payload,
) -> Result<Response, ApiError> {
    let path = format!("/v1/hosted_inference/task_sync/{name}");
    let request = Request::read(&state, &path, &headers, payload, Problems::default()).await?;
    let endpoint = Endpoint::by_name(&state, &caller, &name).await?;
    let order = request.order(&state, caller.account, endpoint, false).await?;
    let (id, task) = sync::ended(&state, order).await?;
    Ok(sync::answer(id, Json(HostedTask::from(task)).into_response()))
}
