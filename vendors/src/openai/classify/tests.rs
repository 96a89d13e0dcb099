use std::time::Duration;

use chrono::DateTime;
use http::{HeaderName, HeaderValue};

use super::*;

fn failure(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> VendorError {
    let headers: HeaderMap = headers
        .iter()
        .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
    let failure = Failure { status: Some(status), headers: &headers, body };
    error(&super::super::flavor::OPENAI, failure, DateTime::UNIX_EPOCH)
}

#[test]
fn openais_own_errors_have_their_classes() {
    use ErrorClass::{
        Auth, Blocked, ContextLength, InvalidRequest, NotFound, Overloaded, QuotaExhausted,
        RateLimited, Transient,
    };
    for (status, kind, code, message, class) in [
        (400, "invalid_request_error", "unsupported_parameter", "no 'stop'", InvalidRequest),
        (400, "invalid_request_error", "null", "Invalid token", InvalidRequest),
        (400, "invalid_request_error", "context_length_exceeded", "too long", ContextLength),
        (400, "invalid_request_error", "model_not_found", "no such model", NotFound),
        (400, "invalid_request_error", "content_policy_violation", "no", Blocked),
        (401, "invalid_request_error", "invalid_api_key", "wrong key", Auth),
        (403, "invalid_request_error", "null", "not allowed", Auth),
        (404, "invalid_request_error", "model_not_found", "no such model", NotFound),
        (404, "invalid_request_error", "null", "This is not a chat model", NotFound),
        (429, "requests", "rate_limit_exceeded", "try again", RateLimited),
        (429, "rate_limit_error", "slow_down", "slow", RateLimited),
        (429, "insufficient_quota", "insufficient_quota", "no money", QuotaExhausted),
        (429, "null", "billing_not_active", "no money", QuotaExhausted),
        (429, "tokens", "rate_limit_exceeded", "Request too large for x", ContextLength),
        (429, "input-images", "rate_limit_exceeded", "Request too large for x", InvalidRequest),
        (429, "resource_unavailable", "null", "flex", Overloaded),
        (500, "server_error", "server_error", "sorry", Transient),
        (503, "service_unavailable_error", "server_is_overloaded", "busy", Overloaded),
        (503, "null", "slow_down", "busy", Overloaded),
        (403, "null", "insufficient_quota", "no money", QuotaExhausted),
    ] {
        let quoted =
            |word: &str| if word == "null" { word.to_owned() } else { format!("\"{word}\"") };
        let (kind_json, code_json) = (quoted(kind), quoted(code));
        let body = format!(
            r#"{{"error":{{"message":"{message}","type":{kind_json},"param":null,"code":{code_json}}}}}"#
        );
        let error = failure(status, &[], &body).error;
        assert_eq!(error.class, class, "{status} {body}");
        assert_eq!(error.vendor_status, Some(status));
        let word = [code, kind].into_iter().find(|&word| word != "null");
        assert_eq!(error.vendor_code.as_deref(), word);
        assert_eq!(error.message, format!("the vendor answered {status}: {message}"));
    }
}

#[test]
fn the_errors_of_self_hosted_servers_have_their_classes() {
    use ErrorClass::{
        Auth, ContextLength, InvalidRequest, NotFound, Overloaded, RateLimited, Transient,
    };
    for (status, body, class) in [
        (
            401,
            r#"{"error":{"code":401,"message":"Invalid API Key","type":"authentication_error"}}"#,
            Auth,
        ),
        (
            400,
            r#"{"error":{"code":400,"message":"request (9 tokens) exceeds","type":"exceed_context_size_error"}}"#,
            ContextLength,
        ),
        (
            400,
            r#"{"error":{"code":400,"message":"Failed to load image","type":"invalid_request_error"}}"#,
            InvalidRequest,
        ),
        (
            500,
            r#"{"error":{"code":500,"message":"tools param requires --jinja flag","type":"server_error"}}"#,
            InvalidRequest,
        ),
        (500, r#"{"error":{"code":500,"message":"slot failed","type":"server_error"}}"#, Transient),
        (
            501,
            r#"{"error":{"code":501,"message":"no embeddings here","type":"not_supported_error"}}"#,
            InvalidRequest,
        ),
        (
            503,
            r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#,
            Overloaded,
        ),
        (
            400,
            r#"{"object":"error","message":"This model's maximum context length is 9","type":"BadRequestError","code":400}"#,
            ContextLength,
        ),
        (
            404,
            r#"{"object":"error","message":"no such model","type":"NotFoundError","param":null,"code":404}"#,
            NotFound,
        ),
        (404, r#"{"error":"model 'x' not found"}"#, NotFound),
        (429, r#"{"error":"Model is overloaded","error_type":"overloaded"}"#, Overloaded),
        (422, r#"{"detail":[{"loc":["body"],"msg":"Field required"}]}"#, InvalidRequest),
        (429, r#"{"message":"API rate limit exceeded"}"#, RateLimited),
    ] {
        assert_eq!(failure(status, &[], body).class(), class, "{body}");
    }
    let error = failure(404, &[], r#"{"error":"model 'x' not found"}"#);
    assert_eq!(error.to_string(), "the vendor answered 404: model 'x' not found");
}

#[test]
fn a_gateways_text_is_repeated_on_one_line() {
    let error = failure(503, &[], "upstream connect error\r\nor disconnect");
    assert_eq!(error.class(), ErrorClass::Overloaded);
    let message = "the vendor answered 503: upstream connect error or disconnect";
    assert_eq!(error.to_string(), message);
    assert_eq!(failure(502, &[], "").to_string(), "the vendor answered 502 (Bad Gateway)");
    assert_eq!(failure(599, &[], " ").to_string(), "the vendor answered 599");
    assert!(failure(500, &[], &"x".repeat(9000)).to_string().len() < 500);
    assert_eq!(failure(302, &[], "").class(), ErrorClass::Protocol);
}

#[test]
fn a_hint_is_kept_where_another_attempt_may_follow() {
    let hint = [("retry-after", "20")];
    assert_eq!(failure(429, &hint, "{}").retry_after, Some(Duration::from_secs(20)));
    assert_eq!(failure(503, &hint, "busy").retry_after, Some(Duration::from_secs(20)));
    assert_eq!(failure(400, &hint, "{}").retry_after, None);
    let body = r#"{"error":{"message":"Please try again in 174ms.","code":"rate_limit_exceeded"}}"#;
    assert_eq!(failure(429, &[], body).retry_after, Some(Duration::from_millis(174)));
}

#[test]
fn x_should_retry_wins_over_the_status() {
    let no = [("x-should-retry", "false"), ("retry-after", "1")];
    for (status, class) in [
        (429, ErrorClass::QuotaExhausted),
        (409, ErrorClass::InvalidRequest),
        (500, ErrorClass::InvalidRequest),
        (503, ErrorClass::InvalidRequest),
        (401, ErrorClass::Auth),
    ] {
        let error = failure(status, &no, "");
        assert_eq!((error.class(), error.retry_after), (class, None), "{status}");
    }
    let refused = failure(500, &no, "");
    assert!(refused.to_string().contains("another attempt would not help"));
    let hint = refused.error.with_hint().hint.unwrap();
    assert!(hint.starts_with("the vendor asked not to be asked again"), "{hint}");
    let yes = [("x-should-retry", "true"), ("retry-after", "1")];
    let error = failure(400, &yes, "");
    assert_eq!(error.class(), ErrorClass::Transient);
    assert_eq!(error.retry_after, Some(Duration::from_secs(1)));
    assert_eq!(failure(429, &yes, "").class(), ErrorClass::RateLimited);
    for (status, class) in
        [(401, ErrorClass::Auth), (403, ErrorClass::Auth), (402, ErrorClass::QuotaExhausted)]
    {
        assert_eq!(failure(status, &yes, "").class(), class, "never tried again");
    }
    let quota = r#"{"error":{"code":"insufficient_quota","message":"x"}}"#;
    assert_eq!(failure(429, &yes, quota).class(), ErrorClass::QuotaExhausted);
}
