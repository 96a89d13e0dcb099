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

use std::{sync::Arc, time::Duration};

use axum::{
    Json as JsonBody,
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use inferq_common::{
    error::{ErrorClass, JobError},
    id::JobId,
    job::{Job, JobResult, JobStatus, Json, Operation},
    view::JobView,
};
use serde_json::json;

use crate::{
    cancel::OnLeave,
    error::{ApiError, JOB_ID, SHOULD_RETRY, job_header, job_location},
    extract::Prefer,
    held,
    state::AppState,
    stream::{self, shape::Failure},
    submit::{self, Order, Placed},
    terms::Terms,
    twin,
    waiters::Waiter,
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

    /// After how long the answer becomes a 202.
    fn wait(self) -> Option<Duration> {
        match self {
            Self::Synchronous => None,
            Self::WaitThenAccept(wait) => Some(wait),
            Self::Accept => Some(Duration::ZERO),
        }
    }
}

/// Makes the job and answers as the caller wants it. A copy of a request whose job still runs joins
/// that job.
pub(crate) async fn place(
    state: &AppState,
    order: Order,
    terms: Terms,
) -> Result<Response, ApiError> {
    let mode = Mode::of(terms.prefer, terms.callback);
    if let Some(job) = twin::find(state, &order, terms).await? {
        return join(state, job, mode, terms).await;
    }
    if mode == Mode::Accept {
        return accept(state, order, terms.prefer).await;
    }
    if order.stream {
        return stream::answer::place(state, order, terms, mode.wait()).await;
    }
    let cancel = terms.cancel_on_disconnect;
    let (placed, waiter) = submit::submit_and_wait(state, order, cancel).await?;
    let Placed { job, repeated, mut leave } = placed;
    if repeated && mode == Mode::Synchronous && !job.status.is_final() && !terms.sent_again {
        leave.disarm();
        return Err(ApiError::JobConflict {
            detail: "the first request with this idempotency key is still in progress".into(),
            job_id: job.id,
            status: job.status,
        });
    }
    // Of a repeated request the event goes to the first, and it may be over already.
    let pace = if repeated { Pace::POLL } else { Pace::NET };
    wait(state, job, (waiter, pace, leave), mode, terms).await
}

/// Answers with a job that is there already.
async fn join(state: &AppState, job: Job, mode: Mode, terms: Terms) -> Result<Response, ApiError> {
    if mode == Mode::Accept {
        let (job, result) = find(state, &job.account, job.id).await?;
        return Ok(accepted(job, result, terms.prefer));
    }
    if job.stream {
        return stream::answer::join(state, job, terms, mode.wait()).await;
    }
    let waiter = state.waiters.register(job.id);
    let leave = OnLeave::new(terms.cancel_on_disconnect, state, job.id, &job.account);
    wait(state, job, (waiter, Pace::POLL, leave), mode, terms).await
}

/// Answers when the job has ended, or when the caller must not be held any longer in silence.
async fn wait(
    state: &AppState,
    job: Job,
    (mut waiter, pace, mut leave): (Waiter, Pace, OnLeave),
    mode: Mode,
    terms: Terms,
) -> Result<Response, ApiError> {
    let max = Duration::from_secs(state.config.max_wait_secs);
    let limit = mode.wait().unwrap_or(max).min(max);
    let rhythm = terms.rhythm().filter(|rhythm| rhythm.begin < limit);
    let silence = rhythm.map_or(limit, |rhythm| rhythm.begin);
    let first = if job.status.is_final() { Duration::ZERO } else { silence };
    let mut wait = Wait { account: job.account, job_id: job.id, pace, limit: first };
    let mut ended = wait.clone().for_end(state, &mut waiter).await;
    if let (Ok(None), Some(rhythm), Mode::Synchronous) = (&ended, rhythm, mode) {
        wait.limit = limit.saturating_sub(silence);
        if let Ok(permit) = Arc::clone(&state.requests).try_acquire_owned() {
            let waiting = (wait, waiter);
            return Ok(held::hold(state, job.operation, waiting, rhythm.every, leave, permit));
        }
        // A caller in silence may yet have its answer in time, or comes again and joins the job.
        ended = wait.clone().for_end(state, &mut waiter).await;
    }
    leave.disarm();
    match ended? {
        Some((status, result)) => {
            let mut response = finished(job.operation, job.id, status, result);
            if let Some(applied) = terms.prefer.applied() {
                response.headers_mut().insert(PREFERENCE_APPLIED, applied);
            }
            Ok(response)
        }
        None if mode == Mode::Synchronous => Err(ApiError::still_running(job.id)),
        None => {
            let (job, result) = find(state, &wait.account, job.id).await?;
            Ok(accepted(job, result, terms.prefer))
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
    let Placed { job, repeated, .. } = submit::submit(state, order).await?;
    if !repeated {
        return Ok(accepted(job, None, prefer));
    }
    let (job, result) = find(state, &account, job.id).await?;
    Ok(accepted(job, result, prefer))
}

/// 202 with the job as it is.
pub(crate) fn accepted(job: Job, result: Option<JobResult>, prefer: Prefer) -> Response {
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
    let mut response = match (operation, failure(status, result.error)) {
        (operation, None) => raw_json(success(operation, id, result.response.as_ref())),
        (Operation::Inference, Some(error)) => return failed(id, &Failure::of_job(error)),
        (Operation::Execute, Some(error)) => {
            // A failure inside a 200, as v4 has it.
            JsonBody(Failure::of_job(error).document_v4(id)).into_response()
        }
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

/// The document of a job that succeeded: the seed's `GenericInferenceResponse`, or its
/// `GenericModelResponse` with the job's id beside its members. The response is copied once.
pub(crate) fn success(operation: Operation, id: JobId, response: Option<&Json>) -> String {
    let response = response.map_or("null", Json::as_str);
    match operation {
        Operation::Inference => {
            const HEAD: &str = r#"{"object":"generic_inference","response":"#;
            let mut text = String::with_capacity(HEAD.len() + response.len() + 1);
            text.push_str(HEAD);
            text.push_str(response);
            text.push('}');
            text
        }
        Operation::Execute => {
            const HEAD: &str =
                r#"{"status":"SUCCESS","status_code":200,"error_message":null,"result":"#;
            format!(r#"{HEAD}{response},"job_id":"{id}"}}"#)
        }
    }
}

/// The answer to a job that did not succeed, with a status of its own.
pub(crate) fn failed(id: JobId, failure: &Failure) -> Response {
    let body = json!({ "detail": failure.message, "error": failure.error, "job_id": id });
    let mut response = (failure.status, JsonBody(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    headers.insert(JOB_ID, job_header(id));
    response
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
