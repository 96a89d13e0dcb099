//! `POST /v1/sync-tasks`.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, Uri};
use inferq_common::id::JobId;

use super::{endpoint::Endpoint, request, task};
use crate::{
    auth::Caller,
    error::{ApiError, JOB_ID, job_header},
    extract::Payload,
    schema::{
        error::{ErrorDetail, HTTPValidationError},
        launch_task::{LaunchTask, LaunchTaskRequest},
    },
    state::AppState,
    submit::{self, Order, Placed},
    waiting::{Pace, Wait},
};

/// Run Sync Task
///
/// Makes a job and answers once it has ended; a job that did not succeed is told within a 200, as
/// Launch does.
#[utoipa::path(
    post,
    path = "/v1/sync-tasks",
    tag = "Launch",
    operation_id = "POST-V1-/v1/sync-tasks",
    params(
        ("model_endpoint_id" = String, Query, description =
            "The id of a registered model or of a model server, or `vendor/name`"),
        ("idempotency-key" = Option<String>, Header, description =
            "1 to 255 characters; a repeat with the same body is answered with the first task"),
    ),
    request_body = LaunchTaskRequest,
    responses(
        (status = 200, description = "Successful Response", body = LaunchTask,
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
pub(crate) async fn run(
    State(state): State<AppState>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    payload: Payload,
) -> Result<Response, ApiError> {
    let (id, request) = request::read(&state, &uri, &headers, payload).await?;
    let endpoint = Endpoint::by_id(&state, &caller, &id).await?;
    let order = request.order(&state, caller.account, endpoint, false).await?;
    let (id, task) = ended(&state, order).await?;
    Ok(answer(id, Json(task).into_response()))
}

/// Makes the job of a task and waits for its end.
///
/// # Errors
/// `StillRunning` when it has not come after the time a caller is held.
pub(super) async fn ended(state: &AppState, order: Order) -> Result<(JobId, LaunchTask), ApiError> {
    let account = order.account.clone();
    let (placed, mut waiter) = submit::submit_and_wait(state, order, false).await?;
    let Placed { job, repeated, .. } = placed;
    let over = job.status.is_final();
    let wait = Wait {
        account,
        job_id: job.id,
        // Of a repeated request the event goes to the first, and it may be over already.
        pace: if repeated { Pace::POLL } else { Pace::NET },
        limit: if over { Duration::ZERO } else { Duration::from_secs(state.config.max_wait_secs) },
    };
    let Some((status, result)) = wait.for_end(state, &mut waiter).await? else {
        return Err(ApiError::still_running(job.id));
    };
    Ok((job.id, task::of(status, result)))
}

/// Names the job on its answer.
pub(super) fn answer(id: JobId, mut response: Response) -> Response {
    response.headers_mut().insert(JOB_ID, job_header(id));
    response
}
