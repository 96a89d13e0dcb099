//! What a caller who made a job is answered.
//!
//! A job that did not succeed becomes an HTTP status by its error's class:
//!
//! | class | status | why |
//! | --- | --- | --- |
//! | `invalid_request`, `context_length`, `blocked` | 400 | the request has to change |
//! | `not_found` | 404 | the vendor knows no such model |
//! | `cancelled` | 409 | a client ended it |
//! | `rate_limited` | 429 | after all retries |
//! | `internal` | 500 | a defect of inferq |
//! | `auth`, `quota_exhausted` | 502 | the platform's credential, not the caller's |
//! | `transient`, `lost`, `protocol`, `response_too_large` | 502 | the vendor or the way to it |
//! | `overloaded` | 503 | after all retries |
//! | `timeout`, `expired` | 504 | time ran out |
//!
//! All of them carry `x-should-retry: false`: the platform has made the retries that were asked for.

use std::time::Duration;

use axum::{
    Json as JsonBody,
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use inferq_common::{
    error::{ErrorClass, JobError},
    id::JobId,
    job::{Job, JobResult, JobStatus, Operation},
    view::JobView,
};
use serde_json::json;

use crate::{
    error::{ApiError, JOB_ID, SHOULD_RETRY, job_header, job_location},
    extract::Prefer,
    state::AppState,
    submit::{self, Order, Placed},
    waiting::{Pace, Wait, find},
};

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How long a caller waits for the end of a job, and what follows when it has not come by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// As long as the platform holds callers; then 504.
    Synchronous,
    /// Then 202.
    WaitThenAccept(Duration),
    /// 202 at once.
    Accept,
}

impl Mode {
    fn of(prefer: Prefer, callback: bool) -> Self {
        match prefer.wait {
            Some(wait) if !wait.is_zero() => Self::WaitThenAccept(wait),
            Some(_) => Self::Accept,
            None if prefer.respond_async || callback => Self::Accept,
            None => Self::Synchronous,
        }
    }

    fn limit(self, max: Duration) -> Option<Duration> {
        match self {
            Self::Synchronous => Some(max),
            Self::WaitThenAccept(wait) => Some(wait.min(max)),
            Self::Accept => None,
        }
    }
}

/// Makes the job and answers as the caller prefers. `callback` says whether the request itself named
/// a callback URL: then nobody waits unless `Prefer` says so.
pub(crate) async fn place(
    state: &AppState,
    order: Order,
    prefer: Prefer,
    callback: bool,
) -> Result<Response, ApiError> {
    let mode = Mode::of(prefer, callback);
    let Some(limit) = mode.limit(Duration::from_secs(state.config.max_wait_secs)) else {
        return accept(state, order, prefer).await;
    };
    let account = order.account.clone();
    let (Placed { job, repeated }, waiter) = submit::submit_and_wait(state, order).await?;
    if repeated && mode == Mode::Synchronous && !job.status.is_final() {
        return Err(ApiError::JobConflict {
            detail: "the first request with this idempotency key is still in progress".into(),
            job_id: job.id,
            status: job.status,
        });
    }
    // Of a repeated request the event goes to the first, and it may be over already.
    let pace = if repeated { Pace::POLL } else { Pace::NET };
    let limit = if job.status.is_final() { Duration::ZERO } else { limit };
    let (operation, job_id) = (job.operation, job.id);
    let wait = Wait { account: &account, job_id, pace, limit };
    match wait.for_end(state, waiter).await? {
        Some((status, result)) => {
            let mut response = finished(operation, job_id, status, result);
            if let Some(applied) = prefer.applied() {
                response.headers_mut().insert(PREFERENCE_APPLIED, applied);
            }
            Ok(response)
        }
        None if mode == Mode::Synchronous => Err(ApiError::StillRunning {
            detail: "the job has not ended within the time a caller is held; it goes on",
            job_id,
        }),
        None => {
            let (job, result) = find(state, &account, job_id).await?;
            Ok(accepted(job, result, prefer))
        }
    }
}

/// Makes the job and answers 202 with it; nobody waits.
pub(crate) async fn accept(
    state: &AppState,
    order: Order,
    prefer: Prefer,
) -> Result<Response, ApiError> {
    let account = order.account.clone();
    let Placed { job, repeated } = submit::submit(state, order).await?;
    if !repeated {
        return Ok(accepted(job, None, prefer));
    }
    let (job, result) = find(state, &account, job.id).await?;
    Ok(accepted(job, result, prefer))
}

/// 202 with the job as it is.
fn accepted(job: Job, result: Option<JobResult>, prefer: Prefer) -> Response {
    let id = job.id;
    let mut response = (StatusCode::ACCEPTED, JsonBody(JobView::new(job, result))).into_response();
    let headers = response.headers_mut();
    headers.insert(JOB_ID, job_header(id));
    headers.insert(header::LOCATION, job_location(id));
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    if let Some(applied) = prefer.applied() {
        headers.insert(PREFERENCE_APPLIED, applied);
    }
    response
}

/// The synchronous answer to an ended job, in the shape of the operation that made it.
fn finished(operation: Operation, id: JobId, status: JobStatus, result: JobResult) -> Response {
    let failure = failure(status, result.error);
    let mut response = match (operation, failure) {
        (Operation::Inference, None) => {
            inferred(result.response.as_ref().map_or("null", |r| r.as_str()))
        }
        (Operation::Inference, Some(error)) => failed(id, &error),
        (Operation::Execute, None) => {
            executed(id, result.response.as_ref().map_or("null", |r| r.as_str()))
        }
        (Operation::Execute, Some(error)) => execution_failed(id, &error),
    };
    response.headers_mut().insert(JOB_ID, job_header(id));
    response
}

/// Why a job did not succeed; `None`: it did.
pub(crate) fn failure(status: JobStatus, error: Option<JobError>) -> Option<JobError> {
    let (class, message) = match status {
        JobStatus::Succeeded => return None,
        JobStatus::Cancelled => (ErrorClass::Cancelled, "the job was cancelled"),
        JobStatus::Expired => (ErrorClass::Expired, "the job expired before it started"),
        JobStatus::Failed | JobStatus::Queued | JobStatus::Running => {
            (ErrorClass::Internal, "the job failed")
        }
    };
    Some(error.unwrap_or_else(|| JobError::new(class, message)))
}

/// The HTTP status that stands for a job's error.
pub(crate) const fn status_of(class: ErrorClass) -> StatusCode {
    // No wildcard: a new class must choose.
    match class {
        ErrorClass::InvalidRequest | ErrorClass::ContextLength | ErrorClass::Blocked => {
            StatusCode::BAD_REQUEST
        }
        ErrorClass::NotFound => StatusCode::NOT_FOUND,
        ErrorClass::Cancelled => StatusCode::CONFLICT,
        ErrorClass::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorClass::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorClass::Auth
        | ErrorClass::QuotaExhausted
        | ErrorClass::Transient
        | ErrorClass::Lost
        | ErrorClass::Protocol
        | ErrorClass::ResponseTooLarge => StatusCode::BAD_GATEWAY,
        ErrorClass::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        ErrorClass::Timeout | ErrorClass::Expired => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// A JSON text as a response, copied nowhere.
fn raw_json(text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The seed's `GenericInferenceResponse`.
fn inferred(response: &str) -> Response {
    const HEAD: &str = r#"{"object":"generic_inference","response":"#;
    let mut text = String::with_capacity(HEAD.len() + response.len() + 1);
    text.push_str(HEAD);
    text.push_str(response);
    text.push('}');
    raw_json(text)
}

fn failed(id: JobId, error: &JobError) -> Response {
    let body = json!({ "detail": error.message, "error": error, "job_id": id });
    let mut response = (status_of(error.class), JsonBody(body)).into_response();
    response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    response
}

/// The seed's `GenericModelResponse`, with the job's id beside its members.
fn executed(id: JobId, result: &str) -> Response {
    const HEAD: &str = r#"{"status":"SUCCESS","status_code":200,"error_message":null,"result":"#;
    raw_json(format!(r#"{HEAD}{result},"job_id":"{id}"}}"#))
}

/// A failure inside a 200, as v4 has it.
fn execution_failed(id: JobId, error: &JobError) -> Response {
    let body = json!({
        "status": "FAILURE",
        "status_code": status_of(error.class).as_u16(),
        "error_message": error.message,
        "result": null,
        "error": error,
        "job_id": id,
    });
    JsonBody(body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_or_a_preference_makes_a_call_asynchronous() {
        let wait = |secs| Some(Duration::from_secs(secs));
        let prefer = |respond_async, wait| Prefer { respond_async, wait };
        assert_eq!(Mode::of(prefer(false, None), false), Mode::Synchronous);
        assert_eq!(Mode::of(prefer(false, None), true), Mode::Accept);
        assert_eq!(Mode::of(prefer(true, None), false), Mode::Accept);
        let five = Mode::WaitThenAccept(Duration::from_secs(5));
        assert_eq!(Mode::of(prefer(true, wait(5)), true), five);
        assert_eq!(Mode::of(prefer(false, wait(5)), false), five);
        assert_eq!(Mode::of(prefer(false, wait(0)), false), Mode::Accept);
    }

    #[test]
    fn every_class_of_failure_has_a_status_of_its_own_kind() {
        for &class in ErrorClass::ALL {
            assert!(status_of(class).is_client_error() || status_of(class).is_server_error());
        }
    }
}
