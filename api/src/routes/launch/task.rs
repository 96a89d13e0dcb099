//! `GET /v1/async-tasks/{task_id}`, and what a job looks like as a task.

use axum::{Json, extract::State};
use inferq_common::{
    id::JobId,
    job::{JobResult, JobStatus},
};

use crate::{
    answer::{failure, status_of},
    auth::Caller,
    error::ApiError,
    extract::Segment,
    schema::{
        error::ErrorDetail,
        launch_task::{LaunchTask, LaunchTaskResult, LaunchTaskStatus},
    },
    state::AppState,
};

/// Get Async Task
///
/// A job that was cancelled or has expired is a failure too. Ids that are unknown, malformed or
/// another account's are a 404.
#[utoipa::path(
    get,
    path = "/v1/async-tasks/{task_id}",
    tag = "Launch",
    operation_id = "GET-V1-/v1/async-tasks/task_id",
    params(("task_id" = String, Path)),
    responses(
        (status = 200, description = "Successful Response", body = LaunchTask),
        (status = 404, description = "The account has no such task", body = ErrorDetail),
    ),
    security(("APIKeyHeader" = []), ("HTTPBasic" = []), ("HTTPBearer" = [])),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<String>,
) -> Result<Json<LaunchTask>, ApiError> {
    Ok(Json(find(&state, &caller, &id).await?))
}

/// A job of the caller's account as a task.
///
/// # Errors
/// 404 if there is none with this id.
pub(super) async fn find(
    state: &AppState,
    caller: &Caller,
    id: &str,
) -> Result<LaunchTask, ApiError> {
    let unknown = || ApiError::NotFound("the account has no task with this id".into());
    let id: JobId = id.parse().map_err(|_| unknown())?;
    let (job, result) = state.path.find(id, &caller.account).await?.ok_or_else(unknown)?;
    Ok(LaunchTask { task_id: Some(id), ..of(job.status, result.unwrap_or_default()) })
}

/// How a job stands, in Launch's words.
pub(super) fn of(status: JobStatus, result: JobResult) -> LaunchTask {
    let unfinished = |status| LaunchTask {
        task_id: None,
        status,
        result: None,
        traceback: None,
        status_code: None,
        error: None,
    };
    match status {
        JobStatus::Queued => unfinished(LaunchTaskStatus::Pending),
        JobStatus::Running => unfinished(LaunchTaskStatus::Started),
        JobStatus::Succeeded | JobStatus::Failed | JobStatus::Cancelled | JobStatus::Expired => {
            match failure(status, result.error) {
                None => LaunchTask {
                    result: Some(LaunchTaskResult {
                        result: result
                            .response
                            .map_or_else(|| "null".to_owned(), |json| json.as_str().to_owned()),
                    }),
                    status_code: Some(200),
                    ..unfinished(LaunchTaskStatus::Success)
                },
                Some(error) => LaunchTask {
                    traceback: Some(error.message.clone()),
                    status_code: Some(status_of(error.class).as_u16()),
                    error: Some(error),
                    ..unfinished(LaunchTaskStatus::Failure)
                },
            }
        }
    }
}
