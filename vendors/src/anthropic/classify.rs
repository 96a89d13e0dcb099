//! What a failure means to the queue; pure.
//!
//! Source: <https://platform.claude.com/docs/en/api/errors>. Where the vendor tells two failures
//! apart in its text alone, this reads the text.

use chrono::{DateTime, Utc};
use http::HeaderMap;
use inferq_common::{
    error::{ErrorClass, JobError},
    usage::Usage,
};
use serde_json::Value;

use super::wire::WireError;
use crate::{
    error::{VendorError, answered, class_of_status, excerpt, obey_should_retry, shorten},
    hint,
    remote::Failure,
};

/// Money, or a limit that somebody has to raise; sent with 429, without a wait.
const SPENT: &[&str] = &[
    "enforced_spend_limit_reached",
    "contract_spend_limit_reached",
    "linked_organization_spend_limit_reached",
    "linked_organization_billing_unavailable",
];
/// The same, told with 400 and in words alone.
const SPENT_TEXT: &[&str] =
    &["credit balance is too low", "specified api usage limit", "spend limit", "spending limit"];
const CONTEXT_LENGTH_TEXT: &[&str] = &["prompt is too long", "exceed context limit"];
const BLOCKED_TEXT: &[&str] = &["blocked by content filtering"];

/// The error to keep of an answer that is not 2xx, or of a 2xx answer that holds an error.
pub(crate) fn error(failure: Failure<'_>, now: DateTime<Utc>) -> VendorError {
    let document: Option<Value> = serde_json::from_str(failure.body).ok();
    let wire = document.as_ref().and_then(WireError::of).unwrap_or_default();
    let text = wire.message.as_deref().unwrap_or(failure.body);
    let hint = hint::retry_after(failure.headers, document.as_ref(), text, now);
    let message = answered(failure.status, text);
    let class = class(failure.status, &wire);
    let error = keep(failure.status, class, message, wire);
    obey_should_retry(error, failure.headers, false).after(hint)
}

/// The error of an event inside a stream.
pub(crate) fn in_stream(wire: WireError, now: DateTime<Utc>) -> VendorError {
    let class = class(None, &wire);
    let text = wire.message.as_deref().unwrap_or("no reason given");
    let hint = hint::retry_after(&HeaderMap::new(), None, text, now);
    let message = format!("the vendor broke the stream off: {}", excerpt(text));
    keep(None, class, message, wire).after(hint)
}

fn keep(status: Option<u16>, class: ErrorClass, message: String, wire: WireError) -> VendorError {
    let vendor_code = wire.words().next().map(|word| shorten(word, 100));
    let vendor_request_id = wire.request_id.map(|id| shorten(&id, 200));
    let error = JobError {
        class,
        message,
        vendor_status: status,
        vendor_code,
        vendor_request_id,
        hint: None,
    };
    VendorError { error, retry_after: None, usage: Usage::default() }
}

/// The class by what the body names, else by the status.
pub(crate) fn class(status: Option<u16>, wire: &WireError) -> ErrorClass {
    let message = wire.message.as_deref().unwrap_or_default().to_ascii_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    let kind = wire.kind.as_deref().unwrap_or_default();
    let is_refusal = status.is_none_or(|status| (400..500).contains(&status));
    if wire.code.as_deref().is_some_and(|code| SPENT.contains(&code))
        || is_refusal && kind != "authentication_error" && says(SPENT_TEXT)
    {
        return ErrorClass::QuotaExhausted;
    }
    if is_refusal && says(CONTEXT_LENGTH_TEXT) {
        return ErrorClass::ContextLength;
    }
    if is_refusal && says(BLOCKED_TEXT) {
        return ErrorClass::Blocked;
    }
    match (kind, status) {
        ("invalid_request_error" | "request_too_large", _) => ErrorClass::InvalidRequest,
        ("authentication_error" | "permission_error", _) => ErrorClass::Auth,
        ("billing_error", _) => ErrorClass::QuotaExhausted,
        ("not_found_error", _) => ErrorClass::NotFound,
        ("conflict_error" | "timeout_error", _) => ErrorClass::Transient,
        ("rate_limit_error", _) => ErrorClass::RateLimited,
        ("overloaded_error", _) => ErrorClass::Overloaded,
        // `api_error`, and words that are not known.
        (_, Some(status)) => class_of_status(status),
        (_, None) => ErrorClass::Transient,
    }
}

#[cfg(test)]
mod tests;
