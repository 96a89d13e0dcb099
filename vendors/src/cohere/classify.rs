//! What a failure means to the queue; pure.
//!
//! Source: <https://docs.cohere.com/reference/errors>. Where the vendor tells two failures apart in
//! its text alone, this reads the text.

use chrono::{DateTime, Utc};
use http::HeaderMap;
use inferq_common::{
    error::{ErrorClass, JobError},
    usage::Usage,
};
use serde_json::Value;

use super::{KEY_ADVICE, wire, wire::WireError};
use crate::{
    error::{VendorError, answered, class_of_status, excerpt, shorten},
    hint,
    remote::Failure,
};

/// The error to keep of an answer that is not 2xx, or of a 2xx answer that holds an error.
pub(super) fn error(failure: Failure<'_>, now: DateTime<Utc>) -> VendorError {
    let document: Option<Value> = serde_json::from_str(failure.body).ok();
    let wire = document.as_ref().and_then(WireError::of).unwrap_or_default();
    let text = wire.message.as_deref().unwrap_or(failure.body);
    let hint = hint::retry_after(failure.headers, document.as_ref(), text, now);
    let class = class(failure.status, &wire);
    let error = JobError {
        class,
        message: advised(class, answered(failure.status, text)),
        vendor_status: failure.status,
        vendor_code: wire.kind.as_deref().map(|kind| shorten(kind, 100)),
        vendor_request_id: wire
            .id
            .map(|id| shorten(&id, 200))
            .or_else(|| wire::trace_id(failure.headers)),
        hint: None,
    };
    VendorError { error, retry_after: None, usage: Usage::default() }.after(hint)
}

/// Adds what a person can do.
fn advised(class: ErrorClass, message: String) -> String {
    match class {
        ErrorClass::Auth => format!("{message}; {KEY_ADVICE}"),
        ErrorClass::QuotaExhausted => {
            format!("{message}; a production key has no monthly limit of calls")
        }
        _ => message,
    }
}

/// Whether an answer that ends for this reason is none.
pub(super) fn is_failure(finish_reason: &str) -> bool {
    matches!(finish_reason, "ERROR" | "TIMEOUT")
}

/// The error of an answer that ended with `ERROR` or `TIMEOUT`; `text` is what the vendor said.
pub(super) fn gave_up(reason: &str, text: Option<&str>, now: DateTime<Utc>) -> VendorError {
    let class = named(None, None, text.unwrap_or_default()).unwrap_or(ErrorClass::Transient);
    let message = match text {
        Some(text) => format!("the vendor gave up on the answer ({reason}): {}", excerpt(text)),
        None => format!("the vendor gave up on the answer ({reason})"),
    };
    let mut error = VendorError::new(class, advised(class, message));
    error.error.vendor_code = Some(reason.to_owned());
    error.after(hint::retry_after(&HeaderMap::new(), None, text.unwrap_or_default(), now))
}

/// The error of an event inside a stream.
pub(super) fn in_stream(wire: WireError, now: DateTime<Utc>) -> VendorError {
    let class = class(None, &wire);
    let text = wire.message.as_deref().unwrap_or("no reason given");
    let hint = hint::retry_after(&HeaderMap::new(), None, text, now);
    let message = format!("the vendor broke the stream off: {}", excerpt(text));
    let mut error = VendorError::new(class, advised(class, message));
    error.error.vendor_code = wire.kind.map(|kind| shorten(&kind, 100));
    error.error.vendor_request_id = wire.id.map(|id| shorten(&id, 200));
    error.after(hint)
}

/// The class by what the body says, else by the status.
fn class(status: Option<u16>, wire: &WireError) -> ErrorClass {
    let message = wire.message.as_deref().unwrap_or_default();
    named(status, wire.kind.as_deref(), message)
        .unwrap_or_else(|| status.map_or(ErrorClass::Transient, class_of_status))
}

/// What the body says so clearly, or the status means to Cohere alone.
pub(super) fn named(status: Option<u16>, kind: Option<&str>, message: &str) -> Option<ErrorClass> {
    let message = message.to_ascii_lowercase();
    let says = |text| message.contains(text);
    match status {
        // Trial keys have a limit by the minute, which passes, and one by the month.
        Some(429) if says("api calls / month") => Some(ErrorClass::QuotaExhausted),
        // The client closed the request. It was not us: we would not read the answer.
        Some(499) => Some(ErrorClass::Transient),
        // A token of the request or of the answer is on a deny list.
        Some(498) => Some(ErrorClass::Blocked),
        Some(429 | 500..) => None,
        _ if kind == Some("TOO_MANY_TOKENS") || message.starts_with("too many tokens") => {
            Some(ErrorClass::ContextLength)
        }
        _ if message.starts_with("blocked input") || message.starts_with("blocked output") => {
            Some(ErrorClass::Blocked)
        }
        // The model wrote nonsense; with another seed it may not.
        _ if says("no valid response generated") => Some(ErrorClass::Transient),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
