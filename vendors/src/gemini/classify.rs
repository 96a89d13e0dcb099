//! What a failure of a Google API means to the queue; pure.
//!
//! Sources: <https://ai.google.dev/gemini-api/docs/troubleshooting>,
//! <https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/api-errors>.

use chrono::{DateTime, Utc};
use http::HeaderMap;
use inferq_common::error::{ErrorClass, JobError};
use inferq_common::usage::Usage;
use serde_json::Value;

use super::wire::WireError;
use crate::{
    error::{VendorError, answered, class_of_status, excerpt, shorten},
    hint,
    remote::Failure,
};

/// A key or an account that Google does not take, whatever the status: a bad key is a 400.
const AUTH_REASONS: &[&str] = &[
    "ACCESS_TOKEN_EXPIRED",
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
    "ACCESS_TOKEN_TYPE_UNSUPPORTED",
    "BILLING_DISABLED",
    "CONSUMER_INVALID",
    "CONSUMER_SUSPENDED",
    "CREDENTIALS_MISSING",
    "IAM_PERMISSION_DENIED",
    "SERVICE_DISABLED",
    "USER_PROJECT_DENIED",
];
const AUTH_TEXT: &[&str] = &["api key not valid", "api key expired", "api key not found"];
const CONTEXT_LENGTH_TEXT: &[&str] = &[
    "exceeds the maximum number of tokens",
    "exceeds the maximum token",
    "input context is too long",
    "maximum context length",
    "prompt is too long",
];

/// The error to keep of an answer that is not 2xx, or of a 2xx answer that holds an error; `advice`
/// is what a person can do about a refused credential.
pub(crate) fn error(failure: Failure<'_>, advice: &str, now: DateTime<Utc>) -> VendorError {
    let document: Option<Value> = serde_json::from_str(failure.body).ok();
    let wire = document.as_ref().and_then(WireError::of).unwrap_or_default();
    let text = wire.message.as_deref().unwrap_or(failure.body);
    let message = answered(failure.status, text);
    let wait = hint::retry_after(failure.headers, document.as_ref(), text, now);
    VendorError {
        error: JobError {
            vendor_status: failure.status,
            ..kept(&wire, failure.status, message, advice)
        },
        retry_after: None,
        usage: Usage::default(),
    }
    .after(wait)
}

/// The error of an element inside a stream.
pub(crate) fn in_stream(document: &Value, advice: &str, now: DateTime<Utc>) -> VendorError {
    let wire = WireError::of(document).unwrap_or_default();
    let text = wire.message.as_deref().unwrap_or("no reason given");
    let message = format!("the vendor broke the stream off: {}", excerpt(text));
    let wait = hint::retry_after(&HeaderMap::new(), Some(document), text, now);
    VendorError {
        error: kept(&wire, None, message, advice),
        retry_after: None,
        usage: Usage::default(),
    }
    .after(wait)
}

fn kept(wire: &WireError, status: Option<u16>, message: String, advice: &str) -> JobError {
    let class = class(status, wire);
    let hint = match class {
        ErrorClass::Auth if is_precondition(wire) => {
            Some("enable billing for the key's project, or call from a region that is served")
        }
        ErrorClass::Auth => Some(advice),
        ErrorClass::QuotaExhausted if is_without_quota(wire) => {
            Some("the key's project has no quota for this model at all")
        }
        ErrorClass::QuotaExhausted => {
            Some("a quota per day is used up; it comes back at midnight Pacific time")
        }
        _ => None,
    };
    let message = match hint {
        Some(hint) => format!("{message}; {hint}"),
        None => message,
    };
    let vendor_code = wire.status.as_deref().map(|word| shorten(word, 100));
    JobError { vendor_code, ..JobError::new(class, message) }
}

/// The class by what the body names, else by the status.
pub(crate) fn class(status: Option<u16>, wire: &WireError) -> ErrorClass {
    if is_auth(wire) {
        return ErrorClass::Auth;
    }
    if contains(wire, CONTEXT_LENGTH_TEXT) {
        return ErrorClass::ContextLength;
    }
    let class = wire.status.as_deref().and_then(class_of_word);
    let class = class.or_else(|| match status.or(wire.code)? {
        // The caller went away, says a server; ours did not.
        499 => Some(ErrorClass::Transient),
        status => Some(class_of_status(status)),
    });
    match class {
        Some(ErrorClass::RateLimited) if is_without_quota(wire) || is_daily(wire) => {
            ErrorClass::QuotaExhausted
        }
        // Whatever broke after the answer had begun, without a word for it.
        class => class.unwrap_or(ErrorClass::Transient),
    }
}

/// The codes of gRPC, and the interactions API's words.
fn class_of_word(word: &str) -> Option<ErrorClass> {
    Some(match word {
        "RESOURCE_EXHAUSTED" | "too_many_requests" => ErrorClass::RateLimited,
        "UNAVAILABLE" => ErrorClass::Overloaded,
        "ABORTED" | "CANCELLED" | "DATA_LOSS" | "DEADLINE_EXCEEDED" | "INTERNAL" | "UNKNOWN" => {
            ErrorClass::Transient
        }
        "FAILED_PRECONDITION" | "PERMISSION_DENIED" | "UNAUTHENTICATED" => ErrorClass::Auth,
        "NOT_FOUND" => ErrorClass::NotFound,
        "ALREADY_EXISTS" | "INVALID_ARGUMENT" | "OUT_OF_RANGE" | "UNIMPLEMENTED" => {
            ErrorClass::InvalidRequest
        }
        _ => return None,
    })
}

fn is_auth(wire: &WireError) -> bool {
    let named =
        |reason: &String| reason.starts_with("API_KEY_") || AUTH_REASONS.contains(&reason.as_str());
    wire.reasons.iter().any(named) || contains(wire, AUTH_TEXT)
}

fn is_precondition(wire: &WireError) -> bool {
    wire.status.as_deref() == Some("FAILED_PRECONDITION")
}

/// A quota per day: the wait that stands beside it is for another one.
fn is_daily(wire: &WireError) -> bool {
    wire.quotas.iter().any(|quota| quota.contains("PerDay"))
}

/// `limit: 0`: there is no such quota, and waiting will not bring one.
fn is_without_quota(wire: &WireError) -> bool {
    let message = wire.message.as_deref().unwrap_or_default();
    message.match_indices("limit: 0").any(|(at, found)| {
        let mut after = message[at + found.len()..].chars();
        match after.next() {
            Some('.') => !after.next().is_some_and(|c| c.is_ascii_digit()),
            Some(c) => !c.is_ascii_digit(),
            None => true,
        }
    })
}

fn contains(wire: &WireError, texts: &[&str]) -> bool {
    let message = wire.message.as_deref().unwrap_or_default().to_ascii_lowercase();
    texts.iter().any(|text| message.contains(text))
}

#[cfg(test)]
mod tests;
