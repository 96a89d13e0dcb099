use std::time::Duration;

use chrono::DateTime;
use http::{HeaderName, HeaderValue};

use super::*;

fn failure(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> VendorError {
    let headers: HeaderMap = headers
        .iter()
        .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
    error(Failure { status: Some(status), headers: &headers, body }, DateTime::UNIX_EPOCH)
}

fn document(kind: &str, message: &str) -> String {
    format!(
        r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}"}},"request_id":"req_1"}}"#
    )
}

#[test]
fn every_documented_error_has_its_class() {
    use ErrorClass::{
        Auth, Blocked, ContextLength, InvalidRequest, NotFound, Overloaded, QuotaExhausted,
        RateLimited, Transient,
    };
    for (status, kind, message, class) in [
        (400, "invalid_request_error", "temperature: range: 0..1", InvalidRequest),
        (400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum", ContextLength),
        (
            400,
            "invalid_request_error",
            "input length and `max_tokens` exceed context limit: 9 + 1 > 8",
            ContextLength,
        ),
        (400, "invalid_request_error", "Your credit balance is too low to", QuotaExhausted),
        (
            400,
            "invalid_request_error",
            "You have reached your specified API usage limits.",
            QuotaExhausted,
        ),
        (400, "invalid_request_error", "Output blocked by content filtering policy", Blocked),
        (401, "authentication_error", "invalid x-api-key", Auth),
        (402, "billing_error", "pay", QuotaExhausted),
        (403, "permission_error", "no", Auth),
        (404, "not_found_error", "model: claude-x", NotFound),
        (409, "conflict_error", "again", Transient),
        (413, "request_too_large", "too large", InvalidRequest),
        (429, "rate_limit_error", "concurrent connections", RateLimited),
        (500, "api_error", "Internal server error", Transient),
        (500, "api_error", "we spend limit", Transient),
        (503, "api_error", "busy", Overloaded),
        (504, "timeout_error", "slow", Transient),
        (529, "overloaded_error", "Overloaded", Overloaded),
        (422, "brand_new_error", "new", InvalidRequest),
        (502, "brand_new_error", "new", Transient),
    ] {
        let error = failure(status, &[], &document(kind, message)).error;
        assert_eq!(error.class, class, "{status} {kind} {message}");
        assert_eq!(error.vendor_status, Some(status));
        assert_eq!(error.vendor_code.as_deref(), Some(kind));
        assert_eq!(error.vendor_request_id.as_deref(), Some("req_1"));
        assert_eq!(error.message, format!("the vendor answered {status}: {message}"));
    }
}

#[test]
fn a_spent_budget_is_not_waited_for() {
    for code in SPENT {
        let body = format!(
            r#"{{"error":{{"type":"rate_limit_error","message":"no","details":{{"error_code":"{code}"}}}}}}"#
        );
        let error = failure(429, &[("retry-after", "9")], &body);
        assert_eq!(error.class(), ErrorClass::QuotaExhausted, "{code}");
        assert_eq!((error.retry_after, error.error.vendor_code.as_deref()), (None, Some(*code)));
    }
    let ramp = r#"{"error":{"type":"rate_limit_error","message":"no",
        "details":{"error_code":"ramp_limit_exceeded"}}}"#;
    let error = failure(429, &[("retry-after", "9")], ramp);
    assert_eq!(error.class(), ErrorClass::RateLimited);
    assert_eq!(error.retry_after, Some(Duration::from_secs(9)));
}

#[test]
fn the_vendors_word_on_another_attempt_wins() {
    for (status, kind, word, class) in [
        (500, "api_error", "false", ErrorClass::InvalidRequest),
        (529, "overloaded_error", "false", ErrorClass::InvalidRequest),
        (429, "rate_limit_error", "false", ErrorClass::QuotaExhausted),
        (429, "rate_limit_error", "true", ErrorClass::RateLimited),
        (400, "invalid_request_error", "true", ErrorClass::Transient),
        (400, "invalid_request_error", "false", ErrorClass::InvalidRequest),
        (401, "authentication_error", "true", ErrorClass::Auth),
        (402, "billing_error", "true", ErrorClass::QuotaExhausted),
    ] {
        let headers = [("x-should-retry", word), ("retry-after", "3")];
        let error = failure(status, &headers, &document(kind, "no"));
        assert_eq!(error.class(), class, "{status} {word}");
        assert_eq!(error.retry_after.is_some(), class.is_transient());
        let refused = "(the vendor says that another attempt would not help)";
        let was_transient = word == "false" && status != 400;
        assert_eq!(error.to_string().ends_with(refused), was_transient, "{error}");
    }
}

#[test]
fn what_gateways_say_is_understood() {
    let error = failure(503, &[], "upstream connect error or disconnect/reset before headers.");
    assert_eq!(error.class(), ErrorClass::Overloaded);
    assert!(
        error
            .to_string()
            .ends_with("503: upstream connect error or disconnect/reset before headers.")
    );
    assert_eq!(failure(502, &[], "").to_string(), "the vendor answered 502 (Bad Gateway)");
    assert_eq!(failure(404, &[], r#"{"error":"no"}"#).to_string(), "the vendor answered 404: no");
}
