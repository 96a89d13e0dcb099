//! What xAI's errors mean to the queue; pure.
//!
//! An error is `{"code": "…", "error": "…"}`: the code is a sentence for a gRPC status or, newer, a
//! word with hyphens, and tells less than the text. A wrong key is a 400, and the same 429 or 403
//! may pass in a minute or not before someone pays.
//!
//! Source: <https://docs.x.ai/docs/key-information/debugging>.

use inferq_common::error::ErrorClass;

use crate::openai::{
    classify::{any, contains},
    wire::WireError,
};

const WRONG_KEY: &[&str] = &["incorrect api key", "invalid api key", "no api key"];
const NO_CREDITS: &[&str] = &["used all available credits", "monthly spending limit"];
const BLOCKED: &[&str] = &["violates usage guidelines"];
const TOO_LONG: &[&str] = &["maximum prompt length"];
const AT_CAPACITY: &[&str] = &["at capacity"];

const EXHAUSTED: &[&str] = &["Some resource has been exhausted", "resource-exhausted"];

/// The class that a code stands for where the status does not say more.
const CODES: &[(&[&str], ErrorClass)] = &[
    (&["Client specified an invalid argument", "invalid-argument"], ErrorClass::InvalidRequest),
    (&["Some requested entity was not found", "not-found"], ErrorClass::NotFound),
    (&["The service is currently unavailable", "unavailable"], ErrorClass::Overloaded),
    (
        &[
            "The caller does not have permission to execute the specified operation",
            "permission-denied",
        ],
        ErrorClass::Auth,
    ),
    (
        &["The request does not have valid authentication credentials", "unauthenticated"],
        ErrorClass::Auth,
    ),
    (
        &["Deadline expired before operation could complete", "deadline-exceeded"],
        ErrorClass::Transient,
    ),
    (&["Internal error", "internal"], ErrorClass::Transient),
    (&["Unknown error", "unknown"], ErrorClass::Transient),
    (&["The operation was cancelled", "cancelled"], ErrorClass::Transient),
    (&["The operation was aborted", "aborted"], ErrorClass::Transient),
    (
        &["Operation is not implemented or not supported", "unimplemented"],
        ErrorClass::InvalidRequest,
    ),
    (&["Unrecoverable data loss or corruption", "data-loss"], ErrorClass::Transient),
];

/// The class of an error in xAI's own words; `None`: the status tells.
pub(super) fn class(status: Option<u16>, wire: &WireError) -> Option<ErrorClass> {
    let says = |texts| contains(wire.message.as_deref().unwrap_or_default(), texts);
    if says(NO_CREDITS) {
        return Some(ErrorClass::QuotaExhausted);
    }
    if says(WRONG_KEY) && !matches!(status, Some(500..)) {
        return Some(ErrorClass::Auth);
    }
    if says(BLOCKED) {
        return Some(ErrorClass::Blocked);
    }
    if says(TOO_LONG) {
        return Some(ErrorClass::ContextLength);
    }
    // A 422 for want of capacity is told from a malformed request by its code alone.
    if any(wire, EXHAUSTED) && matches!(status, None | Some(422 | 429)) {
        let is_full = status == Some(422) || says(AT_CAPACITY);
        return Some(if is_full { ErrorClass::Overloaded } else { ErrorClass::RateLimited });
    }
    // An unknown model of the Responses API is a 400 as well.
    let is_silent = matches!(status, None | Some(400));
    let code = CODES.iter().find(|(words, _)| any(wire, words)).filter(|_| is_silent)?;
    Some(code.1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::DateTime;
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{super::FLAVOR, *};
    use crate::{error::VendorError, openai::classify, remote::Failure};

    fn failure(status: Option<u16>, code: &str, text: &str) -> VendorError {
        let body = serde_json::json!({"code": code, "error": text}).to_string();
        let failure = Failure { status, headers: &HeaderMap::new(), body: &body };
        classify::error(&FLAVOR, failure, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn xais_errors_have_their_classes() {
        use ErrorClass::{
            Auth, Blocked, ContextLength, InvalidRequest, NotFound, Overloaded, QuotaExhausted,
            RateLimited, Transient,
        };
        let invalid = "Client specified an invalid argument";
        let exhausted = "Some resource has been exhausted";
        let denied = "The caller does not have permission to execute the specified operation";
        let credits = "Your team 1 has either used all available credits or reached its monthly \
                       spending limit.";
        for (status, code, text, class) in [
            (400, invalid, "Model x does not support parameter reasoningEffort.", InvalidRequest),
            (400, "invalid-argument", "Incorrect API key provided.", Auth),
            (400, invalid, "This model's maximum prompt length is 9 but …", ContextLength),
            (400, "Some requested entity was not found", "The model x does not exist", NotFound),
            (400, "not-found", "The model x does not exist", NotFound),
            (401, "unauthenticated", "No bearer token", Auth),
            (403, denied, "Your team is blocked", Auth),
            (403, "permission-denied", "Your team is blocked", Auth),
            (403, denied, credits, QuotaExhausted),
            (403, denied, "Content violates usage guidelines. Failed check: X", Blocked),
            (404, "Some requested entity was not found", "The model x was deprecated", NotFound),
            (405, "", "Method not allowed", InvalidRequest),
            (415, "", "Expected request with `Content-Type: application/json`", InvalidRequest),
            (422, "", "Failed to deserialize the JSON body", InvalidRequest),
            (422, invalid, "Failed to deserialize the JSON body", InvalidRequest),
            (422, exhausted, "The service is temporarily at capacity.", Overloaded),
            (429, exhausted, "Too many tokens for team 1", RateLimited),
            (429, exhausted, "The model is at capacity", Overloaded),
            (429, exhausted, credits, QuotaExhausted),
            (500, "Internal error", "oops", Transient),
            (500, "Client specified an invalid argument", "oops", Transient),
            (502, "", "", Transient),
            (503, "The service is currently unavailable", "The model is at capacity", Overloaded),
            (504, "Deadline expired before operation could complete", "", Transient),
        ] {
            let error = failure(Some(status), code, text).error;
            assert_eq!(error.class, class, "{status} {code} {text}");
            assert_eq!(error.vendor_status, Some(status));
            assert_eq!(error.vendor_code.as_deref(), Some(code).filter(|code| !code.is_empty()));
            assert!(error.message.contains(text), "{}", error.message);
        }
    }

    #[test]
    fn inside_a_stream_the_code_tells() {
        use ErrorClass::{Auth, InvalidRequest, NotFound, Overloaded, RateLimited, Transient};
        for (code, class) in [
            ("invalid-argument", InvalidRequest),
            ("not-found", NotFound),
            ("The service is currently unavailable", Overloaded),
            ("Some resource has been exhausted", RateLimited),
            ("permission-denied", Auth),
            ("unauthenticated", Auth),
            ("deadline-exceeded", Transient),
            ("Internal error", Transient),
            ("Unrecoverable data loss or corruption", Transient),
            ("unimplemented", InvalidRequest),
            ("something-new", Transient),
        ] {
            assert_eq!(failure(None, code, "x").class(), class, "{code}");
        }
    }

    #[test]
    fn a_refused_key_says_where_keys_come_from() {
        let error = failure(Some(400), "invalid-argument", "Incorrect API key provided.");
        assert_eq!(
            error.to_string(),
            "the vendor answered 400: Incorrect API key provided.; set XAI_API_KEY or \
             vendors.xai.api_key"
        );
    }

    #[test]
    fn a_wait_that_is_named_is_kept() {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static("retry-after"), HeaderValue::from_static("3"));
        let body = r#"{"code":"Some resource has been exhausted","error":"slow"}"#;
        let failure = Failure { status: Some(429), headers: &headers, body };
        let error = classify::error(&FLAVOR, failure, DateTime::UNIX_EPOCH);
        assert_eq!(error.retry_after, Some(Duration::from_secs(3)));
    }
}
