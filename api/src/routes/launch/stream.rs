//! `POST /v1/streaming-tasks`.

use axum::{extract::State, response::Response};
use http::{HeaderMap, Uri};
use inferq_common::{id::JobId, job::Json};

use super::{endpoint::Endpoint, request};
use crate::{
    auth::Caller,
    error::ApiError,
    extract::Payload,
    schema::{
        error::{ErrorDetail, HTTPValidationError},
        job::FailedInference,
        launch_task::{LaunchTask, LaunchTaskRequest, LaunchTaskResult, LaunchTaskStatus},
    },
    state::AppState,
    stream::{
        answer::place_in,
        shape::{Failure, Shape},
        sse,
    },
    terms::Terms,
};

/// Each chunk is a task that has succeeded. Nothing marks the end: Launch's clients read every event
/// as a task.
const SHAPE: Shape = Shape { chunk, failure, done: "" };

/// Run Streaming Task
///
/// Makes a job and answers with its chunks as they come, each as a task of its own. What fails before
/// the first of them is an error of its own status, what fails later an event with `FAILURE`.
#[utoipa::path(
    post,
    path = "/v1/streaming-tasks",
    tag = "Launch",
    operation_id = "POST-V1-/v1/streaming-tasks",
    params(
        ("model_endpoint_id" = String, Query, description =
            "The id of a registered model or of a model server, or `vendor/name`"),
        ("idempotency-key" = Option<String>, Header, description =
            "1 to 255 characters; a repeat with the same body is answered with the first task"),
    ),
    request_body = LaunchTaskRequest,
    responses(
        (status = 200, description = "Successful Response", content_type = "text/event-stream",
            body = String, headers(("x-job-id" = String))),
        (status = 400, description = "The vendor calls the request invalid", body = FailedInference),
        (status = 404, description = "The account has no such endpoint, or the vendor knows no such \
            model", body = ErrorDetail),
        (status = 409, description = "The model is not ready, or the job was cancelled; not to be \
            repeated", body = ErrorDetail),
        (status = 413, description = "The body is too large", body = ErrorDetail),
        (status = 422, description = "Validation Error", body = HTTPValidationError),
        (status = 429, description = "The vendor asks to slow down, after all retries",
            body = FailedInference),
        (status = 502, description = "The vendor failed, after all retries", body = FailedInference),
        (status = 504, description = "The job timed out", body = FailedInference),
    ),
    security(("APIKeyHeader" = []), ("HTTPBasic" = []), ("HTTPBearer" = [])),
)]
pub(crate) async fn run(
    State(state): State<AppState>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    payload: Payload,
) -> Result<Response, ApiError> {
    let (id, request) = request::read(&state, &uri, &headers, payload).await?;
    let endpoint = Endpoint::by_id(&state, &caller, &id).await?;
    let order = request.order(&state, caller.account, endpoint, true).await?;
    place_in(&state, order, SHAPE, Terms::default(), None).await
}

/// A text is given as it is, any other chunk as the text of its JSON.
fn chunk(text: &mut String, chunk: &Json) {
    let result = serde_json::from_str::<String>(chunk.as_str())
        .unwrap_or_else(|_| chunk.as_str().to_owned());
    let task = LaunchTask {
        task_id: None,
        status: LaunchTaskStatus::Success,
        result: Some(LaunchTaskResult { result }),
        traceback: None,
        status_code: Some(200),
        error: None,
    };
    push(text, &task);
}

fn failure(text: &mut String, id: JobId, failure: &Failure) {
    let task = LaunchTask {
        task_id: Some(id),
        status: LaunchTaskStatus::Failure,
        result: None,
        traceback: Some(failure.message.clone()),
        status_code: Some(failure.status.as_u16()),
        error: failure.error.clone(),
    };
    push(text, &task);
}

fn push(text: &mut String, task: &LaunchTask) {
    sse::push(text, None, None, &serde_json::to_string(task).expect("a task is always JSON"));
}
