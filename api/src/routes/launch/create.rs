//! `POST /v1/async-tasks`.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, Uri};

use super::{endpoint::Endpoint, request};
use crate::{
    auth::Caller,
    error::{ApiError, JOB_ID, job_header},
    extract::Payload,
    schema::{
        error::{ErrorDetail, HTTPValidationError},
        launch_task::{LaunchTaskCreated, LaunchTaskRequest},
    },
    state::AppState,
    submit::{self, Order},
};

/// Create Async Task
///
/// Makes a job and answers with its id.
#[utoipa::path(
    post,
    path = "/v1/async-tasks",
    tag = "Launch",
    operation_id = "POST-V1-/v1/async-tasks",
    params(
        ("model_endpoint_id" = String, Query, description =
            "The id of a registered model or of a model server, or `vendor/name`"),
        ("idempotency-key" = Option<String>, Header, description =
            "1 to 255 characters; a repeat with the same body is answered with the first task"),
    ),
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
pub(crate) async fn create(
    State(state): State<AppState>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    payload: Payload,
) -> Result<Response, ApiError> {
    let (id, request) = request::read(&state, &uri, &headers, payload).await?;
    let endpoint = Endpoint::by_id(&state, &caller, &id).await?;
    let order = request.order(&state, caller.account, endpoint, false).await?;
    accept(&state, order).await
}

/// Makes the job of a task; nobody waits.
pub(super) async fn accept(state: &AppState, order: Order) -> Result<Response, ApiError> {
    let task_id = submit::submit(state, order).await?.job.id;
    let mut response = Json(LaunchTaskCreated { task_id }).into_response();
    response.headers_mut().insert(JOB_ID, job_header(task_id));
    Ok(response)
}
