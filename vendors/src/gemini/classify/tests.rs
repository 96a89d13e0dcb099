use std::time::Duration;

use serde_json::json;

use super::*;

fn noon() -> DateTime<Utc> {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

#[track_caller]
fn failed(status: u16, body: &Value) -> VendorError {
    let (headers, body) = (HeaderMap::new(), body.to_string());
    error(Failure { status: Some(status), headers: &headers, body: &body }, "check it", noon())
}

fn answer(code: u16, status: &str, message: &str) -> Value {
    json!({"error": {"code": code, "message": message, "status": status}})
}

#[test]
fn every_row_of_the_vendors_table_has_its_class() {
    use ErrorClass::{
        Auth, ContextLength, InvalidRequest, NotFound, Overloaded, RateLimited, Transient,
    };
    for (status, word, message, expected) in [
        (400, "INVALID_ARGUMENT", "Unknown name \"x\"", InvalidRequest),
        (400, "OUT_OF_RANGE", "no", InvalidRequest),
        (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", Auth),
        (400, "INVALID_ARGUMENT", "API key expired. Please renew the API key.", Auth),
        (
            400,
            "INVALID_ARGUMENT",
            "The input token count (9) exceeds the maximum number of tokens allowed (8).",
            ContextLength,
        ),
        (400, "FAILED_PRECONDITION", "User location is not supported for the API use.", Auth),
        (401, "UNAUTHENTICATED", "no", Auth),
        (403, "PERMISSION_DENIED", "no", Auth),
        (404, "NOT_FOUND", "models/x is not found for API version v1beta", NotFound),
        (409, "ABORTED", "no", Transient),
        (429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).", RateLimited),
        (499, "CANCELLED", "The operation was cancelled.", Transient),
        (500, "INTERNAL", "no", Transient),
        (501, "UNIMPLEMENTED", "no", InvalidRequest),
        (503, "UNAVAILABLE", "The model is overloaded.", Overloaded),
        (504, "DEADLINE_EXCEEDED", "no", Transient),
    ] {
        let error = failed(status, &answer(status, word, message));
        assert_eq!(error.class(), expected, "{status} {word}: {message}");
        assert_eq!(error.error.vendor_status, Some(status));
        assert_eq!(error.error.vendor_code.as_deref(), Some(word));
        assert!(error.to_string().starts_with(&format!("the vendor answered {status}: {message}")));
        let listed = failed(status, &json!([answer(status, word, message)]));
        assert_eq!(listed, error, "in a list");
    }
}

#[test]
fn without_googles_words_the_status_decides() {
    for (status, expected) in [
        (400, ErrorClass::InvalidRequest),
        (403, ErrorClass::Auth),
        (429, ErrorClass::RateLimited),
        (499, ErrorClass::Transient),
        (502, ErrorClass::Transient),
        (503, ErrorClass::Overloaded),
    ] {
        let headers = HeaderMap::new();
        let failure = Failure { status: Some(status), headers: &headers, body: "<html>no</html>" };
        let error = error(failure, "check it", noon());
        assert_eq!(error.class(), expected, "{status}");
        assert!(error.to_string().contains("<html>no</html>"));
    }
    let words = json!({"error": {"message": "no", "code": "too_many_requests"}});
    assert_eq!(failed(429, &words).class(), ErrorClass::RateLimited);
}

#[test]
fn a_reason_wins_over_the_status() {
    for reason in ["API_KEY_INVALID", "API_KEY_SERVICE_BLOCKED", "SERVICE_DISABLED"] {
        let mut body = answer(400, "INVALID_ARGUMENT", "no");
        body["error"]["details"] = json!([{"reason": reason}]);
        let error = failed(400, &body);
        assert_eq!(error.class(), ErrorClass::Auth, "{reason}");
        assert!(error.to_string().ends_with("no; check it"), "{error}");
    }
}

#[test]
fn the_wait_is_read_from_the_details() {
    let mut body = answer(429, "RESOURCE_EXHAUSTED", "Please retry in 48.9s.");
    body["error"]["details"] = json!([
        {"violations": [{"quotaId": "GenerateRequestsPerMinutePerProject"}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "48s"},
    ]);
    let error = failed(429, &body);
    assert_eq!(error.class(), ErrorClass::RateLimited);
    assert_eq!(error.retry_after, Some(Duration::from_secs(48)));
}

#[test]
fn a_quota_per_day_is_not_waited_for() {
    let mut body = answer(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.");
    body["error"]["details"] = json!([
        {"violations": [{"quotaId": "PerMinute"}, {"quotaId": "GenerateRequestsPerDayPerModel"}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3s"},
    ]);
    let error = failed(429, &body);
    assert_eq!((error.class(), error.retry_after), (ErrorClass::QuotaExhausted, None));
    assert!(error.to_string().contains("midnight Pacific time"), "{error}");
}

#[test]
fn a_quota_of_zero_never_comes() {
    for (message, expected) in [
        ("Quota exceeded for metric: m, limit: 0", ErrorClass::QuotaExhausted),
        ("Quota exceeded for metric: m, limit: 0, model: x", ErrorClass::QuotaExhausted),
        ("limit: 0. Please retry in 3s.", ErrorClass::QuotaExhausted),
        ("limit: 0.5, model: x", ErrorClass::RateLimited),
        ("limit: 01", ErrorClass::RateLimited),
        ("limit: 10, limit: 0", ErrorClass::QuotaExhausted),
    ] {
        let error = failed(429, &answer(429, "RESOURCE_EXHAUSTED", message));
        assert_eq!(error.class(), expected, "{message}");
    }
    let other = failed(400, &answer(400, "INVALID_ARGUMENT", "limit: 0"));
    assert_eq!(other.class(), ErrorClass::InvalidRequest);
}

#[test]
fn an_error_inside_a_stream_has_its_class_too() {
    for (document, expected) in [
        (answer(503, "UNAVAILABLE", "no"), ErrorClass::Overloaded),
        (json!({"error": {"code": 429}}), ErrorClass::RateLimited),
        (json!({"error": {}}), ErrorClass::Transient),
        (json!([answer(500, "INTERNAL", "no")]), ErrorClass::Transient),
    ] {
        let error = in_stream(&document, "check it", noon());
        assert_eq!(error.class(), expected, "{document}");
        assert_eq!(error.error.vendor_status, None);
    }
}
