//! What clients are told when something is wrong, in FastAPI's `detail` shape.

use std::{borrow::Cow, sync::Arc};

use axum::{
    Json as JsonBody,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use inferq_common::{
    id::JobId,
    job::{JobStatus, Json},
    store::{StoreError, group::GroupError},
};
use serde::Serialize;
use serde_json::Value;
use tracing::{error, warn};

/// Tells the clients' libraries whether a repeat of the request could help.
pub const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Names the job a response is about.
pub const JOB_ID: HeaderName = HeaderName::from_static("x-job-id");

/// Why a request was not done. A variant exists where status, headers or body differ.
#[derive(Debug)]
pub enum ApiError {
    /// 422 with FastAPI's list: members of the request are wrong.
    Invalid(Vec<Problem>),
    /// 422 with a text: the request is well-formed but cannot be done as it stands.
    Refused(Cow<'static, str>),
    /// 401: no key, an unknown one or a revoked one.
    Unauthorized(&'static str),
    /// 403: the key may not do this.
    Forbidden(Cow<'static, str>),
    /// 404: there is no such thing in the caller's account.
    NotFound(Cow<'static, str>),
    /// 405; the router adds `Allow`.
    MethodNotAllowed,
    /// 408: the body did not arrive in time.
    BodyTimeout,
    /// 409, not to be repeated: it clashes with what is there.
    Conflict(Cow<'static, str>),
    /// 409, not to be repeated: the state of this job does not allow it.
    JobConflict { detail: Cow<'static, str>, job_id: JobId, status: JobStatus },
    /// 413.
    TooLarge { limit_bytes: usize },
    /// 503 with `Retry-After`: the same request may succeed in a second. The cause goes to the log.
    Unavailable { detail: &'static str, cause: Option<Box<dyn std::error::Error + Send + Sync>> },
    /// 503, not to be repeated: an operator has to configure something first.
    NotConfigured(Cow<'static, str>),
    /// 504, not to be repeated: the job goes on, but the caller is not held any longer.
    StillRunning { detail: &'static str, job_id: JobId },
    /// 503, not to be repeated: this process stops while the caller waits; the job goes on.
    Stopping { job_id: JobId },
    /// 500. The cause goes to the log, never to the client.
    Internal(Box<dyn std::error::Error + Send + Sync>),
}

/// The JSON of an error. Inputs are shown as they were spelt.
#[derive(Serialize)]
struct Body<'a> {
    detail: Detail<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<JobId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<JobStatus>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Detail<'a> {
    Text(Cow<'a, str>),
    List(&'a [Problem]),
}

impl<'a> Detail<'a> {
    const fn of(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

/// One wrong member of a request, as FastAPI words it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Problem {
    /// The kind of the problem, a contract: `missing`, `int_parsing`, …
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Where it is: `["body", "model"]`.
    pub loc: Vec<Loc>,
    /// For people.
    pub msg: Cow<'static, str>,
    /// What was given, unless it is large.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctx: Option<Value>,
}

/// One step on the way to a member of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Loc {
    Name(Cow<'static, str>),
    /// An index, or the byte offset of a syntax error.
    At(usize),
}

impl From<&'static str> for Loc {
    fn from(name: &'static str) -> Self {
        Self::Name(Cow::Borrowed(name))
    }
}

impl ApiError {
    /// 500: a cause that only the log may see.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(cause.into())
    }

    /// 503: this process has too much to do, which passes.
    pub const fn unavailable(detail: &'static str) -> Self {
        Self::Unavailable { detail, cause: None }
    }

    /// 503 with what the client is told; `None`: 500, for it will not pass.
    fn refused(
        detail: Option<&'static str>,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        match detail {
            Some(detail) => Self::Unavailable { detail, cause: Some(cause.into()) },
            None => Self::internal(cause),
        }
    }

    /// 404 of FastAPI itself: no such route.
    pub const fn no_route() -> Self {
        Self::NotFound(Cow::Borrowed("Not Found"))
    }

    /// 504: nobody is held for longer than this.
    pub(crate) const fn still_running(job_id: JobId) -> Self {
        let detail = "the job has not ended within the time a caller is held; it goes on";
        Self::StillRunning { detail, job_id }
    }

    /// The status and a text, for those whose answer has begun and can have neither of its own.
    pub(crate) fn summary(&self) -> (StatusCode, String) {
        if let Self::Internal(cause) = self {
            error!(error = %Chain(cause.as_ref()), "answer could not be finished");
        }
        match self.parts() {
            (status, Detail::Text(text)) => (status, text.into_owned()),
            (status, Detail::List(_)) => (status, "the request is invalid".to_owned()),
        }
    }

    /// The status and the `detail` of each variant.
    fn parts(&self) -> (StatusCode, Detail<'_>) {
        match self {
            Self::Invalid(problems) => (StatusCode::UNPROCESSABLE_ENTITY, Detail::List(problems)),
            Self::Refused(detail) => (StatusCode::UNPROCESSABLE_ENTITY, Detail::of(detail)),
            Self::Unauthorized(detail) => (StatusCode::UNAUTHORIZED, Detail::of(detail)),
            Self::Forbidden(detail) => (StatusCode::FORBIDDEN, Detail::of(detail)),
            Self::NotFound(detail) => (StatusCode::NOT_FOUND, Detail::of(detail)),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, Detail::of("Method Not Allowed"))
            }
            Self::BodyTimeout => {
                (StatusCode::REQUEST_TIMEOUT, Detail::of("the request body did not arrive in time"))
            }
            Self::Conflict(detail) | Self::JobConflict { detail, .. } => {
                (StatusCode::CONFLICT, Detail::of(detail))
            }
            Self::TooLarge { limit_bytes } => {
                let detail = format!("the request body is larger than {limit_bytes} bytes");
                (StatusCode::PAYLOAD_TOO_LARGE, Detail::Text(detail.into()))
            }
            Self::Unavailable { detail, .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, Detail::of(detail))
            }
            Self::NotConfigured(detail) => (StatusCode::SERVICE_UNAVAILABLE, Detail::of(detail)),
            Self::StillRunning { detail, .. } => (StatusCode::GATEWAY_TIMEOUT, Detail::of(detail)),
            Self::Stopping { .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                Detail::of("this process is stopping; the job goes on and can be read by its id"),
            ),
            Self::Internal(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, Detail::of("Internal Server Error"))
            }
        }
    }

    /// The job the error is about, and its status where that is the reason.
    fn job(&self) -> Option<(JobId, Option<JobStatus>)> {
        match self {
            Self::JobConflict { job_id, status, .. } => Some((*job_id, Some(*status))),
            Self::StillRunning { job_id, .. } | Self::Stopping { job_id } => Some((*job_id, None)),
            _ => None,
        }
    }

    /// Whether a client's library that repeats this status by itself must be told not to.
    fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Conflict(_)
                | Self::JobConflict { .. }
                | Self::NotConfigured(_)
                | Self::StillRunning { .. }
                | Self::Stopping { .. }
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match &self {
            Self::Internal(cause) => {
                error!(error = %Chain(cause.as_ref()), "request could not be served");
            }
            Self::Unavailable { detail, cause: None } => warn!(detail, "request refused for now"),
            Self::Unavailable { detail, cause: Some(cause) } => {
                warn!(detail, error = %Chain(cause.as_ref()), "request refused for now");
            }
            _ => {}
        }
        let (status, detail) = self.parts();
        let (job_id, job_status) = self.job().unzip();
        let body = Body { detail, job_id, status: job_status.flatten() };
        let mut response = (status, JsonBody(body)).into_response();
        let headers = response.headers_mut();
        if let Some(job_id) = job_id {
            headers.insert(JOB_ID, job_header(job_id));
            headers.insert(header::LOCATION, job_location(job_id));
        }
        if self.is_final() {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        match self {
            Self::Unavailable { .. } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Unauthorized(_) => {
                headers.insert(
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static("Bearer realm=\"inferq\""),
                );
            }
            _ => {}
        }
        response
    }
}

/// The value of `x-job-id`.
pub(crate) fn job_header(id: JobId) -> HeaderValue {
    HeaderValue::try_from(id.to_string()).expect("a UUID is visible ASCII")
}

/// The value of `Location` for a job.
pub(crate) fn job_location(id: JobId) -> HeaderValue {
    HeaderValue::try_from(format!("/v5/jobs/{id}")).expect("a UUID is visible ASCII")
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::refused(unavailable(&error), error)
    }
}

/// A failure that all who asked at once are told.
impl From<Arc<StoreError>> for ApiError {
    fn from(error: Arc<StoreError>) -> Self {
        Self::refused(unavailable(&error), error)
    }
}

impl From<GroupError> for ApiError {
    fn from(error: GroupError) -> Self {
        let detail = match &error {
            GroupError::Store(cause) => unavailable(cause),
            GroupError::Full => Some("too many jobs wait to be stored"),
            GroupError::Closed => Some("this process is stopping"),
        };
        Self::refused(detail, error)
    }
}

/// What a client is told of a store that cannot be used for now; `None`: the error is a defect.
fn unavailable(error: &StoreError) -> Option<&'static str> {
    match error {
        StoreError::Unavailable(_) => Some("the store is unavailable"),
        StoreError::NotMigrated(_) => Some("the store's tables are not up to date"),
        StoreError::Corrupt { .. } | StoreError::Other(_) => None,
    }
}

/// An error with all its causes in one line.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A full disk would otherwise be told nowhere: heartbeats may still fit on it.
    #[test]
    fn the_log_is_told_why_the_store_is_unavailable() {
        let full = || StoreError::Unavailable("database or disk is full".into());
        for error in [ApiError::from(full()), ApiError::from(GroupError::Store(Arc::new(full())))] {
            let ApiError::Unavailable { detail, cause: Some(cause) } = error else {
                panic!("{error:?}");
            };
            assert_eq!(detail, "the store is unavailable");
            let told = Chain(cause.as_ref()).to_string();
            assert_eq!(told, "the store is unavailable: database or disk is full");
        }
    }
}
