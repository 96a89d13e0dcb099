//! What a failure means to the queue; pure.
//!
//! Source: <https://platform.openai.com/docs/guides/error-codes>. Where a vendor tells two failures
//! apart in its text alone, this reads the text.

use chrono::{DateTime, Utc};
use http::HeaderMap;
use inferq_common::error::{ErrorClass, JobError};
use inferq_common::usage::Usage;
use serde_json::Value;

use super::{Flavor, wire::WireError};
use crate::{
    error::{VendorError, answered, class_of_status, excerpt, obey_should_retry, shorten},
    hint,
    remote::Failure,
};

/// Money or a quota that comes back next month, whatever the status.
const QUOTA: &[&str] = &[
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "billing_hard_limit_reached",
    "billing_not_active",
];
/// The second is llama.cpp's.
const CONTEXT_LENGTH: &[&str] = &["context_length_exceeded", "exceed_context_size_error"];
/// vLLM, SGLang and llama.cpp say it in these words only.
const CONTEXT_LENGTH_TEXT: &[&str] =
    &["maximum context length", "exceeds the available context size"];
const BLOCKED: &[&str] = &["content_filter", "content_policy_violation", "moderation_blocked"];
const OVERLOADED: &[&str] = &[
    "server_is_overloaded",
    "service_unavailable_error",
    "service_unavailable",
    "resource_unavailable",
    "overloaded",
    "overloaded_error",
    "unavailable_error",
];
/// llama.cpp answers 500 with these to what it will never be able to do.
const PERMANENT_500_TEXT: &[&str] = &["requires --jinja", "cannot use both", "not support"];

/// The error to keep of an answer that is not 2xx, or of a 2xx answer that holds an error.
pub(crate) fn error(flavor: &Flavor, failure: Failure<'_>, now: DateTime<Utc>) -> VendorError {
    let document: Option<Value> = serde_json::from_str(failure.body).ok();
    let wire = document.as_ref().and_then(WireError::of);
    let text = wire.as_ref().and_then(|wire| wire.message.as_deref()).unwrap_or(failure.body);
    let message = answered(failure.status, text);
    let retry_after = hint::retry_after(failure.headers, document.as_ref(), text, now);
    let wire = wire.unwrap_or_default();
    let class = class(flavor, failure.status, &wire);
    let is_named = named(flavor, failure.status, &wire).is_some();
    let error = VendorError {
        error: JobError {
            class,
            message: advised(flavor, class, message),
            vendor_status: failure.status,
            vendor_code: wire.words().next().map(|word| shorten(word, 100)),
            vendor_request_id: None,
            hint: None,
        },
        retry_after: None,
        usage: Usage::default(),
    };
    obey_should_retry(error, failure.headers, is_named).after(retry_after)
}

/// The message, with what a person can do about a refused key.
fn advised(flavor: &Flavor, class: ErrorClass, message: String) -> String {
    match (class, flavor.key_advice) {
        (ErrorClass::Auth, advice) if !advice.is_empty() => format!("{message}; {advice}"),
        _ => message,
    }
}

/// The error of an event inside a stream.
pub(crate) fn in_stream(flavor: &Flavor, wire: &WireError, now: DateTime<Utc>) -> VendorError {
    let class = class(flavor, None, wire);
    let text = wire.message.as_deref().unwrap_or("no reason given");
    let hint = hint::retry_after(&HeaderMap::new(), None, text, now);
    let message = format!("the vendor broke the stream off: {}", excerpt(text));
    let mut error = VendorError::new(class, advised(flavor, class, message));
    error.error.vendor_code = wire.words().next().map(|word| shorten(word, 100));
    error.retry_after = hint.filter(|_| class.is_transient());
    error
}

/// The class by what the body names, else by the status, else by the broad words.
fn class(flavor: &Flavor, status: Option<u16>, wire: &WireError) -> ErrorClass {
    if let Some(class) = named(flavor, status, wire) {
        return class;
    }
    let message = wire.message.as_deref().unwrap_or_default();
    match status.or(wire.status) {
        Some(500) if wire.status.is_some() && contains(message, PERMANENT_500_TEXT) => {
            ErrorClass::InvalidRequest
        }
        Some(503) => ErrorClass::Overloaded,
        Some(429) if any(wire, OVERLOADED) => ErrorClass::Overloaded,
        Some(status) => class_of_status(status),
        None => by_words(wire),
    }
}

/// What the body names: in the vendor's own words, or so clearly that the status does not matter.
fn named(flavor: &Flavor, status: Option<u16>, wire: &WireError) -> Option<ErrorClass> {
    (flavor.class)(status, wire).or_else(|| named_as_by_openai(wire))
}

fn named_as_by_openai(wire: &WireError) -> Option<ErrorClass> {
    let message = wire.message.as_deref().unwrap_or_default();
    if any(wire, QUOTA) {
        Some(ErrorClass::QuotaExhausted)
    } else if wire.is("rate_limit_exceeded") && message.starts_with("Request too large for") {
        // The request is larger than the limit itself: waiting does not help.
        Some(if wire.is("tokens") { ErrorClass::ContextLength } else { ErrorClass::InvalidRequest })
    } else if any(wire, CONTEXT_LENGTH) || contains(message, CONTEXT_LENGTH_TEXT) {
        Some(ErrorClass::ContextLength)
    } else if any(wire, BLOCKED) {
        Some(ErrorClass::Blocked)
    } else if wire.is("model_not_found") {
        Some(ErrorClass::NotFound)
    } else {
        None
    }
}

/// For an error without any status: inside a stream, or inside a 200.
fn by_words(wire: &WireError) -> ErrorClass {
    let is = |words: &[&str]| any(wire, words);
    if is(OVERLOADED) {
        ErrorClass::Overloaded
    } else if is(&["rate_limit_exceeded", "rate_limit_error", "slow_down", "too_many_requests"]) {
        ErrorClass::RateLimited
    } else if is(&["invalid_api_key", "authentication_error", "permission_error"]) {
        ErrorClass::Auth
    } else if is(&["not_found_error", "NotFoundError", "not_found"]) {
        ErrorClass::NotFound
    } else if is(&["invalid_request_error", "BadRequestError", "not_supported_error", "validation"])
        || wire.words().any(|word| word.starts_with("invalid_") || word.starts_with("unsupported_"))
    {
        ErrorClass::InvalidRequest
    } else {
        // `server_error` and whatever else broke on the vendor's side after it had begun.
        ErrorClass::Transient
    }
}

/// Whether one of these is the code or the type.
pub(crate) fn any(wire: &WireError, words: &[&str]) -> bool {
    words.iter().any(|word| wire.is(word))
}

/// Whether one of these, in lower case, stands in the message.
pub(crate) fn contains(message: &str, texts: &[&str]) -> bool {
    let message = message.to_ascii_lowercase();
    texts.iter().any(|text| message.contains(text))
}

#[cfg(test)]
mod tests;
