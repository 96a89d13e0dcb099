use std::time::Duration;

use chrono::DateTime;
use http::HeaderValue;

use super::*;

fn failure(status: u16, body: &str) -> VendorError {
    let mut headers = HeaderMap::new();
    headers.insert("x-debug-trace-id", HeaderValue::from_static("trace-1"));
    headers.insert("retry-after", HeaderValue::from_static("7"));
    error(Failure { status: Some(status), headers: &headers, body }, DateTime::UNIX_EPOCH)
}

#[test]
fn every_documented_error_has_its_class() {
    use ErrorClass::{
        Auth, Blocked, ContextLength, InvalidRequest, NotFound, Overloaded, QuotaExhausted,
        RateLimited, Transient,
    };
    for (status, message, class) in [
        (400, "invalid request: list of documents must not be empty", InvalidRequest),
        (400, "too many tokens: size limit exceeded by 9 tokens.", ContextLength),
        (400, "blocked output: this generation may be a violation", Blocked),
        (401, "invalid api token", Auth),
        (402, "pay first", QuotaExhausted),
        (403, "not allowed", Auth),
        (404, "model 'x' not found, make sure", NotFound),
        (404, "model 'x' was removed on September 15, 2025.", NotFound),
        (422, "invalid type: parameter k", InvalidRequest),
        (422, "No valid response generated. Try updating messages", Transient),
        (429, "a Trial key, which is limited to 10 API calls / minute.", RateLimited),
        (429, "a Trial key, which is limited to 1000 API calls / month.", QuotaExhausted),
        (498, "deny-listed token", Blocked),
        (499, "client closed request", Transient),
        (500, "internal server error", Transient),
        (501, "not implemented", InvalidRequest),
        (503, "too many tokens are being served", Overloaded),
        (504, "timeout", Transient),
    ] {
        let body = format!(r#"{{"id":"e1","message":"{message}"}}"#);
        let error = failure(status, &body);
        assert_eq!(error.class(), class, "{status} {message}");
        let wait = class.is_transient().then_some(Duration::from_secs(7));
        assert_eq!(error.retry_after, wait, "{status} {message}");
        let error = error.error;
        assert_eq!(error.vendor_status, Some(status));
        assert_eq!(error.vendor_request_id.as_deref(), Some("e1"));
        assert!(error.message.starts_with(&format!("the vendor answered {status}: {message}")));
    }
}

#[test]
fn what_a_person_can_do_is_said() {
    let error = failure(401, r#"{"message":"invalid api token"}"#);
    assert_eq!(
        error.to_string(),
        "the vendor answered 401: invalid api token; set COHERE_API_KEY or vendors.cohere.api_key"
    );
    let error = failure(429, r#"{"message":"limited to 1000 API calls / month"}"#);
    assert!(error.to_string().ends_with("; a production key has no monthly limit of calls"));
}

#[test]
fn the_type_and_the_trace_are_kept() {
    let error = failure(400, r#"{"message":"no","error_type":"TOO_MANY_TOKENS"}"#).error;
    assert_eq!(error.class, ErrorClass::ContextLength);
    assert_eq!(error.vendor_code.as_deref(), Some("TOO_MANY_TOKENS"));
    assert_eq!(error.vendor_request_id.as_deref(), Some("trace-1"));
    let error = failure(502, "<html>").error;
    assert_eq!(
        (error.class, error.message.as_str()),
        (ErrorClass::Transient, "the vendor answered 502: <html>")
    );
}
