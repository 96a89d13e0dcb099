//! `POST /v4/serving/{model_server_id}/execute`.

use axum::{extract::State, response::Response};
use http::HeaderMap;

use super::get::find;
use crate::{
    auth::Caller,
    error::ApiError,
    extract::{Payload, Segment},
    routes::execute::execute_server,
    schema::{
        error::{ErrorDetail, HTTPValidationError},
        inference::{GenericModelRequest, GenericModelResponse},
        job::{FailedInference, Job},
        words::JobPriority,
    },
    state::AppState,
};

/// Execute by Model Server
///
/// As by alias.
#[utoipa::path(
    post,
    path = "/v4/serving/{model_server_id}/execute",
    tag = "Model server",
    operation_id = "POST-V4-/v4/serving/model_server_id/execute",
    params(
        ("model_server_id" = String, Path),
        ("x-callback-url" = Option<String>, Header, description =
            "Where the job is posted once it has ended; the answer is 202 then"),
        ("x-priority" = Option<JobPriority>, Header),
        ("x-timeout-seconds" = Option<i64>, Header, minimum = 1, maximum = 86_400,
            description = "Bounds one attempt; 60 if not given"),
        ("x-num-retries" = Option<i64>, Header, minimum = 0, maximum = 10,
            description = "Attempts after the first; 2 if not given"),
        ("prefer" = Option<String>, Header, description =
            "`respond-async`: 202 at once. `wait=N`: 202 if the job has not ended after N seconds"),
        ("x-cancel-on-disconnect" = Option<bool>, Header, description =
            "Whether the job is cancelled once its caller is gone"),
        ("idempotency-key" = Option<String>, Header, description =
            "1 to 255 characters; a repeat with the same body is answered with the first job"),
        ("x-stainless-read-timeout" = Option<String>, Header, description =
            "Seconds for which the caller waits for a byte; the answer begins 5 s before, with white \
            space if it is not there yet"),
        ("x-stainless-retry-count" = Option<String>, Header, description =
            "Above 0: a copy of a request, which joins the first one's job while that runs"),
    ),
    request_body = GenericModelRequest,
    responses(
        (status = 200, description = "Successful Response", headers(("x-job-id" = String)),
            content(
                (GenericModelResponse = "application/json"),
                (String = "text/event-stream"),
            )),
        (status = 202, description = "The job is accepted", body = Job,
            headers(("location" = String, description = "The job"), ("retry-after" = i64))),
        (status = 400, description = "The vendor calls a streamed request invalid",
            body = FailedInference),
        (status = 404, description = "The account has no such model server", body = ErrorDetail),
        (status = 409, description = "The first request with this idempotency key is still in \
            progress; not to be repeated", body = ErrorDetail),
        (status = 413, description = "The body is too large", body = ErrorDetail),
        (status = 422, description = "Validation Error", body = HTTPValidationError),
        (status = 429, description = "The vendor asks to slow down; only if a stream was asked for",
            body = FailedInference),
        (status = 502, description = "The vendor failed; only if a stream was asked for",
            body = FailedInference),
        (status = 504, description = "The job has not ended within the time a caller is held and \
            goes on", body = ErrorDetail),
    ),
    security(("APIKeyHeader" = [])),
)]
pub(crate) async fn execute_model_server(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<String>,
    headers: HeaderMap,
    payload: Payload,
) -> Result<Response, ApiError> {
    let server = find(&state, &caller, &id).await?;
    let path = format!("/v4/serving/{}/execute", server.id);
    execute_server(&state, caller, &path, &headers, payload, &server).await
}
