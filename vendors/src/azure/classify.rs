//! What the errors of Azure's layers mean to the queue; pure.
//!
//! Four layers answer: the models in OpenAI's shape, the gateway with the status as its code, the
//! inference of other models with words for codes, and whatever stands before them with plain text.
//! Claude on Foundry answers in Anthropic's shape.
//!
//! Source: <https://learn.microsoft.com/en-us/azure/ai-foundry/openai/reference>.

use chrono::{DateTime, Utc};
use inferq_common::error::ErrorClass;
use serde_json::Value;

use super::FLAVOR;
use crate::{
    anthropic,
    error::VendorError,
    openai::{
        self,
        classify::{any, contains},
        wire::WireError,
    },
    remote::Failure,
};

const BLOCKED: &[&str] = &["ResponsibleAIPolicyViolation", "contentFilter", "content_filtered"];
const RATE_LIMITED: &[&str] = &["RateLimitReached", "TooManyRequests"];
const NOT_FOUND: &[&str] = &["DeploymentNotFound", "ResourceNotFound", "unknown_model"];
const AT_CAPACITY: &[&str] =
    &["high demand", "at capacity", "nocapacity", "no capacity", "model is overloaded"];
/// The hosts of other models say it in these words only.
const TOO_LONG: &[&str] =
    &["maximum context length", "maximum number of tokens", "prompt is too long"];

/// The error to keep of an answer that is not 2xx.
pub(super) fn error(failure: Failure<'_>, now: DateTime<Utc>) -> VendorError {
    let is_claude = || {
        let document: Option<Value> = serde_json::from_str(failure.body).ok();
        document.is_some_and(|document| document.get("type").is_some_and(|kind| kind == "error"))
    };
    let mut error = if failure.body.contains(r#""error""#) && is_claude() {
        anthropic::classify::error(failure, now)
    } else {
        openai::classify::error(&FLAVOR, failure, now)
    };
    let advice = match (error.class(), error.error.vendor_code.as_deref()) {
        (ErrorClass::NotFound, Some("DeploymentNotFound")) => {
            "the name after azure/ is that of a deployment, not of a model"
        }
        (ErrorClass::NotFound, Some("404")) => {
            "vendors.azure.base_url is the endpoint of the resource, and vendors.azure.api the \
             surface it has: v1, classic or inference"
        }
        (ErrorClass::Auth, _) if !error.error.message.ends_with(FLAVOR.key_advice) => {
            FLAVOR.key_advice
        }
        _ => return error,
    };
    error.error.message.push_str("; ");
    error.error.message.push_str(advice);
    error
}

/// The class of an error in Azure's own words; `None`: the status tells.
pub(super) fn class(status: Option<u16>, wire: &WireError) -> Option<ErrorClass> {
    let says = |texts| contains(wire.message.as_deref().unwrap_or_default(), texts);
    if any(wire, BLOCKED) {
        return Some(ErrorClass::Blocked);
    }
    if matches!(status.or(wire.status), Some(429)) && says(AT_CAPACITY) {
        return Some(ErrorClass::Overloaded);
    }
    if matches!(status, Some(400 | 422)) && says(TOO_LONG) {
        return Some(ErrorClass::ContextLength);
    }
    match status {
        // The host of a model passes on that the model broke.
        Some(424) => Some(ErrorClass::Transient),
        None if any(wire, RATE_LIMITED) => Some(ErrorClass::RateLimited),
        None if any(wire, NOT_FOUND) => Some(ErrorClass::NotFound),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    fn failure(status: Option<u16>, headers: &[(&'static str, &str)], body: &str) -> VendorError {
        let headers: HeaderMap = headers
            .iter()
            .map(|&(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
            })
            .collect();
        error(Failure { status, headers: &headers, body }, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn the_errors_of_every_layer_have_their_classes() {
        use ErrorClass::{
            Auth, Blocked, ContextLength, InvalidRequest, NotFound, Overloaded, QuotaExhausted,
            RateLimited, Transient,
        };
        for (status, body, class) in [
            // OpenAI's shape.
            (
                400,
                r#"{"error":{"message":"The response was filtered","type":null,"param":"prompt","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
                Blocked,
            ),
            (
                400,
                r#"{"error":{"message":"no","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
                Blocked,
            ),
            (400, r#"{"error":{"message":"no","code":"invalid_api_version"}}"#, InvalidRequest),
            (400, r#"{"error":{"message":"no","code":"OperationNotSupported"}}"#, InvalidRequest),
            (400, r#"{"error":{"message":"no","code":"context_length_exceeded"}}"#, ContextLength),
            (
                404,
                r#"{"error":{"type":"invalid_request_error","code":"DeploymentNotFound","message":"no"}}"#,
                NotFound,
            ),
            (429, r#"{"error":{"message":"no","code":"insufficient_quota"}}"#, QuotaExhausted),
            (500, r#"{"error":{"message":"no","details":"why"}}"#, Transient),
            (503, r#"{"error":{"message":"no"}}"#, Overloaded),
            // The gateway's.
            (401, r#"{"error":{"code":"401","message":"Access denied"}}"#, Auth),
            (403, r#"{"error":{"code":"403","message":"Public access is disabled"}}"#, Auth),
            (404, r#"{"error":{"code":"404","message":"Resource not found"}}"#, NotFound),
            (
                429,
                r#"{"error":{"code":"429","message":"have exceeded call rate limit"}}"#,
                RateLimited,
            ),
            (
                429,
                r#"{"error":{"code":"429","message":"have exceeded token rate limit"}}"#,
                RateLimited,
            ),
            (
                429,
                r#"{"error":{"code":"429","message":"System is experiencing high demand"}}"#,
                Overloaded,
            ),
            (429, r#"{"statusCode":429,"message":"Rate limit is exceeded."}"#, RateLimited),
            // Other models'.
            (
                429,
                r#"{"error":{"code":"RateLimitReached","message":"no","details":"no"}}"#,
                RateLimited,
            ),
            (
                422,
                r#"{"error":{"code":"Invalid input","status":422,"message":"invalid input error","details":[{"loc":["body","tool_choice"],"msg":"Input should be a valid string","input":{"a":1}}]}}"#,
                InvalidRequest,
            ),
            (
                400,
                r#"{"error":{"code":"400","message":"exceeds maximum context length"}}"#,
                ContextLength,
            ),
            (424, r#"{"error":{"code":"424","message":"Failed dependency"}}"#, Transient),
            // Plain text.
            (408, "upstream request timeout", Transient),
            (413, "Failed to buffer the request body: length limit exceeded", InvalidRequest),
            (502, "<html>", Transient),
            // Anthropic's.
            (
                529,
                r#"{"type":"error","error":{"type":"overloaded_error","message":"no"}}"#,
                Overloaded,
            ),
            (
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9 tokens > 8 maximum"}}"#,
                ContextLength,
            ),
            (
                401,
                r#"{"type":"error","error":{"type":"authentication_error","message":"no"}}"#,
                Auth,
            ),
        ] {
            assert_eq!(failure(Some(status), &[], body).class(), class, "{status} {body}");
        }
    }

    #[test]
    fn inside_a_stream_the_code_tells() {
        for (code, class) in [
            ("429", ErrorClass::RateLimited),
            ("RateLimitReached", ErrorClass::RateLimited),
            ("content_filter", ErrorClass::Blocked),
            ("DeploymentNotFound", ErrorClass::NotFound),
            ("500", ErrorClass::Transient),
        ] {
            let body = format!(r#"{{"error":{{"message":"m","code":"{code}"}}}}"#);
            assert_eq!(failure(None, &[], &body).class(), class, "{code}");
        }
    }

    #[test]
    fn the_first_wait_that_is_more_than_nothing_counts() {
        let body = r#"{"error":{"code":"429","message":"Please retry after 86400 seconds."}}"#;
        let wait = |headers: &[(&'static str, &str)]| failure(Some(429), headers, body).retry_after;
        let zero = [("retry-after", "1"), ("retry-after-ms", "0")];
        assert_eq!(wait(&zero), Some(Duration::from_secs(1)));
        assert_eq!(wait(&[("retry-after-ms", "250")]), Some(Duration::from_millis(250)));
        assert_eq!(wait(&[]), Some(Duration::from_hours(24)));
    }

    #[test]
    fn a_person_is_told_what_to_do() {
        let deployment = r#"{"error":{"code":"DeploymentNotFound","message":"no"}}"#;
        let message = failure(Some(404), &[], deployment).to_string();
        assert!(message.ends_with("that of a deployment, not of a model"), "{message}");
        let path = r#"{"error":{"code":"404","message":"Resource not found"}}"#;
        let message = failure(Some(404), &[], path).to_string();
        assert!(message.contains("vendors.azure.api the surface"), "{message}");
        for body in [
            r#"{"error":{"code":"401","message":"Access denied"}}"#,
            r#"{"type":"error","error":{"type":"authentication_error","message":"no"}}"#,
        ] {
            let message = failure(Some(401), &[], body).to_string();
            assert_eq!(message.matches("AZURE_OPENAI_API_KEY").count(), 1, "{message}");
        }
        let details = r#"{"error":{"code":"Invalid input","message":"invalid input error","details":[{"loc":["body","tool_choice"],"msg":"Input should be a valid string","input":{"a":"secret"}}]}}"#;
        let message = failure(Some(422), &[], details).to_string();
        assert_eq!(
            message,
            "the vendor answered 422: invalid input error: body.tool_choice: Input should be a \
             valid string"
        );
    }
}
