use chrono::TimeDelta;
use http::{HeaderName, HeaderValue};

use super::*;

fn noon() -> DateTime<Utc> {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

fn of(status: u16, kind: &'static str, body: &str) -> VendorError {
    let mut headers = HeaderMap::new();
    if !kind.is_empty() {
        let name = HeaderName::from_static("x-amzn-errortype");
        headers.insert(name, HeaderValue::from_static(kind));
    }
    error(Failure { status: Some(status), headers: &headers, body }, noon())
}

#[test]
fn every_row_of_the_table_has_its_class() {
    use ErrorClass::{
        Auth, Blocked, ContextLength, InvalidRequest, NotFound, Overloaded, QuotaExhausted,
        RateLimited, Transient,
    };
    for (status, kind, message, expected) in [
        (400, "ValidationException", "The provided model identifier is invalid.", NotFound),
        (400, "ValidationException", "Malformed input request", InvalidRequest),
        (400, "ValidationException", "Input is too long for requested model.", ContextLength),
        (400, "", "Input Tokens Exceeded: Number of input tokens exceeds maximum", ContextLength),
        (400, "", "The provided model identifier is invalid.", NotFound),
        (400, "ValidationException", "has been blocked by our content filters", Blocked),
        (400, "ServiceQuotaExceededException", "quota", QuotaExhausted),
        (403, "AccessDeniedException", "You don't have access to the model", Auth),
        (403, "UnrecognizedClientException", "The security token is invalid.", Auth),
        (403, "InvalidSignatureException", "Signature expired: a is now earlier than b", Auth),
        (403, "ExpiredTokenException", "The security token is expired", Auth),
        (403, "", "The security token included in the request is expired", Auth),
        (404, "ResourceNotFoundException", "end of its life", NotFound),
        (404, "", "", NotFound),
        (408, "ModelTimeoutException", "", Transient),
        (424, "ModelErrorException", "", Transient),
        (424, "", "", Transient),
        (429, "ThrottlingException", "Too many requests, please wait", RateLimited),
        (429, "ThrottlingException", "Too many tokens, please wait", RateLimited),
        (429, "ThrottlingException", "Too many tokens per day, please wait", QuotaExhausted),
        (429, "", "Rate exceeded", RateLimited),
        (429, "ModelNotReadyException", "", Overloaded),
        (500, "InternalServerException", "", Transient),
        (500, "", "The system encountered an unexpected error", Transient),
        (503, "ServiceUnavailableException", "Model is getting throttled.", Overloaded),
        (503, "", "Service capacity limit has been reached.", Overloaded),
        (413, "", "", InvalidRequest),
    ] {
        for name in ["message", "Message"] {
            let body = serde_json::json!({ name: message }).to_string();
            let error = of(status, kind, &body);
            assert_eq!(error.class(), expected, "{status} {kind} {message}: {error}");
            assert!(error.to_string().contains(message));
            let code = Some(kind).filter(|kind| !kind.is_empty());
            assert_eq!(error.error.vendor_code.as_deref(), code);
            assert_eq!(error.error.vendor_status, Some(status));
        }
    }
}

#[test]
fn the_kind_is_found_in_the_header_or_the_body() {
    let address = "ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/";
    let error = of(400, address, "{}");
    assert_eq!(error.error.vendor_code.as_deref(), Some("ThrottlingException"));
    assert_eq!(error.class(), ErrorClass::RateLimited);
    let error = of(400, "", r#"{"__type":"com.amazon.coral#ThrottlingException"}"#);
    assert_eq!(error.error.vendor_code.as_deref(), Some("ThrottlingException"));
    assert_eq!(error.class(), ErrorClass::RateLimited);
}

#[test]
fn what_a_person_can_do_stands_in_the_message() {
    for (status, kind, message, advice) in [
        (403, "ExpiredTokenException", "expired", "AWS_SESSION_TOKEN"),
        (403, "AccessDeniedException", "no access", "bedrock:InvokeModel"),
        (403, "", "Authentication failed: your API Key", "AWS_BEARER_TOKEN_BEDROCK"),
        (
            400,
            "ValidationException",
            "Invocation of model ID x with on-demand throughput isn't supported.",
            "inference profile",
        ),
    ] {
        let body = serde_json::json!({ "message": message }).to_string();
        let error = of(status, kind, &body).to_string();
        assert!(error.contains(advice), "{error}");
    }
}

#[test]
fn a_wrong_clock_is_named_and_by_how_much() {
    let body = r#"{"message":"Signature expired: 20261120T120000Z is now earlier than …"}"#;
    let mut headers = HeaderMap::new();
    let date = httpdate::fmt_http_date((noon() + TimeDelta::minutes(20)).into());
    headers.insert("date", HeaderValue::from_str(&date).unwrap());
    let error = error(Failure { status: Some(403), headers: &headers, body }, noon());
    assert_eq!(error.class(), ErrorClass::Auth);
    assert!(
        error.to_string().ends_with("(set this machine's clock: it is 1200 s behind the vendor's)")
    );
    assert_eq!(refused(&error), Some(Refused::Time));
}

#[test]
fn only_refusals_of_the_keys_themselves_ask_for_others() {
    let what = |kind, message: &str| {
        refused(&of(403, kind, &serde_json::json!({ "message": message }).to_string()))
    };
    assert_eq!(what("ExpiredTokenException", "x"), Some(Refused::Keys));
    assert_eq!(what("InvalidSignatureException", "does not match"), Some(Refused::Keys));
    assert_eq!(
        what("", "The security token included in the request is invalid"),
        Some(Refused::Keys)
    );
    let denied = "User: a is not authorized to perform: b with an explicit deny in a policy";
    assert_eq!(what("AccessDeniedException", denied), Some(Refused::Keys));
    assert_eq!(what("AccessDeniedException", "You don't have access to the model"), None);
    assert_eq!(what("InvalidSignatureException", "Signature expired: x"), Some(Refused::Time));
}

#[test]
fn an_exception_in_a_stream_has_its_class() {
    use ErrorClass::{ContextLength, InvalidRequest, Overloaded, RateLimited, Transient};
    for (kind, message, expected) in [
        ("internalServerException", "x", Transient),
        ("modelStreamErrorException", "x", Transient),
        ("validationException", "x", InvalidRequest),
        ("validationException", "Input is too long", ContextLength),
        ("throttlingException", "x", RateLimited),
        ("modelTimeoutException", "x", Transient),
        ("serviceUnavailableException", "x", Overloaded),
        ("newException", "x", Transient),
    ] {
        let payload = serde_json::json!({ "message": message }).to_string();
        let error = exception(kind, &payload, noon());
        assert_eq!(error.class(), expected, "{kind}");
        assert_eq!(error.error.vendor_code.as_deref(), Some(kind));
        assert_eq!(error.to_string(), format!("the vendor broke the stream off: {message}"));
    }
}

#[test]
fn the_wait_and_the_models_own_words_are_told() {
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-retry-after", HeaderValue::from_static("1500"));
    let body = r#"{"message":"failed","originalStatusCode":400,"originalMessage":"too odd"}"#;
    let error = error(Failure { status: Some(424), headers: &headers, body }, noon());
    assert_eq!(error.to_string(), "the vendor answered 424: failed (the model: too odd)");
    assert_eq!(error.retry_after, Some(std::time::Duration::from_millis(1500)));
}
