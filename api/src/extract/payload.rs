//! Request bodies.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Bytes, HttpBody as _, to_bytes},
    extract::{FromRequest, Request},
};
use futures::StreamExt as _;
use http::{HeaderMap, header};
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::OwnedSemaphorePermit;

use super::{Fault, Members};
use crate::{
    error::{ApiError, Loc, Problem},
    state::AppState,
};

/// A body has this long to arrive.
const BODY_TIMEOUT: Duration = Duration::from_mins(2);

/// Of a body that is too large, this much is read so that the client comes to read its answer.
const MAX_DISCARD_BYTES: usize = 128 << 20;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);

/// Part of the memory that bodies may take together; given back when dropped.
pub type Share = OwnedSemaphorePermit;

/// The unit in which the memory for bodies is shared out.
pub(crate) const SHARE_BYTES: usize = 1024;

/// A request's body, read whole and not parsed yet.
#[derive(Debug)]
pub struct Payload {
    pub bytes: Bytes,
    /// Held until the job is stored.
    pub share: Option<Share>,
    /// Whether its content type is JSON, or absent.
    json: bool,
}

impl FromRequest<AppState> for Payload {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let limit_bytes = state.config.max_body_bytes;
        let json = is_json(request.headers());
        let waits_for_consent = request.headers().contains_key(header::EXPECT);
        let body = request.into_body();
        let hint = body.size_hint();
        if hint.lower() > limit_bytes as u64 {
            if !waits_for_consent {
                discard(body).await;
            }
            return Err(ApiError::TooLarge { limit_bytes });
        }
        // A body of unknown length may become as large as any.
        let size = hint.upper().and_then(|size| usize::try_from(size).ok()).unwrap_or(limit_bytes);
        let share = share(state, size.min(limit_bytes))?;
        let bytes = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, limit_bytes))
            .await
            .map_err(|_| ApiError::BodyTimeout)?
            .map_err(|error| unreadable(&error, limit_bytes))?;
        Ok(Self { bytes, share: Some(share), json })
    }
}

/// Reads a body that is too large and drops it, up to a bound.
///
/// Most clients send the whole body before they read the answer: closing at once would show them a
/// broken pipe instead of the 413.
async fn discard(body: axum::body::Body) {
    let mut frames = body.into_data_stream();
    let read = async {
        let mut n_bytes = 0;
        while let Some(Ok(frame)) = frames.next().await {
            n_bytes += frame.len();
            if n_bytes > MAX_DISCARD_BYTES {
                break;
            }
        }
    };
    // Past this the client gets what it gets.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, read).await;
}

/// # Errors
/// `Unavailable` where the bodies in flight take all the memory they may.
fn share(state: &AppState, bytes: usize) -> Result<Share, ApiError> {
    let units = u32::try_from(bytes.div_ceil(SHARE_BYTES)).unwrap_or(u32::MAX);
    Arc::clone(&state.bodies)
        .try_acquire_many_owned(units)
        .map_err(|_| ApiError::unavailable("too many large requests are being read"))
}

impl Payload {
    /// The members `names` of the JSON object the body must be.
    ///
    /// # Errors
    /// 422 as FastAPI words it: no body, another content type, no JSON, no object.
    pub fn members(&self, names: &'static [&'static str]) -> Result<Members<'_>, ApiError> {
        let text = self.text()?;
        Members::parse(body(), text, names).map_err(one)
    }

    /// The body as text, if it is there and of the right type; it may yet be no JSON.
    pub fn text(&self) -> Result<&str, ApiError> {
        if self.bytes.is_empty() {
            let null: &RawValue = RawValue::NULL;
            return Err(one(Fault::missing().at(body(), Some(null))));
        }
        if !self.json {
            let shown = to_raw_value(&String::from_utf8_lossy(&self.bytes)).ok();
            let fault = Fault::new(
                "model_attributes_type",
                "Input should be a valid dictionary or object to extract fields from",
            );
            return Err(one(fault.at(body(), shown.as_deref())));
        }
        str::from_utf8(&self.bytes).map_err(|error| {
            let mut loc = body();
            loc.push(Loc::At(error.valid_up_to()));
            let fault = Fault::new("json_invalid", "JSON decode error")
                .with_ctx(serde_json::json!({ "error": "invalid UTF-8" }));
            one(fault.at(loc, None))
        })
    }
}

fn body() -> Vec<Loc> {
    vec!["body".into()]
}

fn one(problem: Problem) -> ApiError {
    ApiError::Invalid(vec![problem])
}

/// FastAPI's rule: `json` or `…+json`; no content type counts as JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return true };
    let Ok(value) = value.to_str() else { return false };
    let essence = value.split(';').next().unwrap_or(value).trim().to_ascii_lowercase();
    essence
        .strip_prefix("application/")
        .is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

fn unreadable(error: &axum::Error, limit_bytes: usize) -> ApiError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return ApiError::TooLarge { limit_bytes };
        }
        cause = error.source();
    }
    // The client went away or broke the framing: nobody is likely to read this.
    ApiError::Invalid(vec![
        Fault::new("json_invalid", "JSON decode error")
            .with_ctx(serde_json::json!({ "error": "the body ended early" }))
            .at(body(), None),
    ])
}
