//! What Fireworks' errors mean to the queue; pure.
//!
//! Source: <https://docs.fireworks.ai/guides/inference-error-codes>.

use inferq_common::error::ErrorClass;

use crate::openai::{
    classify::{any, contains},
    wire::WireError,
};

/// For errors without a status: inside a stream, or inside a 200.
const CODES: &[(&str, ErrorClass)] = &[
    ("NOT_FOUND", ErrorClass::NotFound),
    ("FORBIDDEN", ErrorClass::Auth),
    ("UNAUTHORIZED", ErrorClass::Auth),
    ("INVALID_ARGUMENT", ErrorClass::InvalidRequest),
    ("RATE_LIMIT_EXCEEDED", ErrorClass::RateLimited),
    ("RESOURCE_EXHAUSTED", ErrorClass::RateLimited),
    ("UNAVAILABLE", ErrorClass::Overloaded),
    ("PAYMENT_REQUIRED", ErrorClass::QuotaExhausted),
];

/// The class of an error in Fireworks' own words; `None`: the status tells.
pub(super) fn class(status: Option<u16>, wire: &WireError) -> Option<ErrorClass> {
    let message = wire.message.as_deref().unwrap_or_default();
    if any(wire, &["DEPLOYMENT_SCALING_UP"]) {
        // A cold start takes minutes.
        return Some(ErrorClass::Overloaded);
    }
    match status {
        // An adapter that cannot be loaded has the same status as a suspended account.
        Some(412) if contains(message, &["lora", "adapter", "addon"]) => {
            Some(ErrorClass::InvalidRequest)
        }
        Some(402 | 412) => Some(ErrorClass::QuotaExhausted),
        Some(_) => None,
        None => CODES.iter().find(|(code, _)| wire.is(code)).map(|(_, class)| *class),
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use http::HeaderMap;

    use super::{super::FLAVOR, *};
    use crate::{error::VendorError, openai::classify, remote::Failure};

    fn failure(status: Option<u16>, body: &str) -> VendorError {
        let failure = Failure { status, headers: &HeaderMap::new(), body };
        classify::error(&FLAVOR, failure, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn fireworks_errors_have_their_classes_whatever_their_shape() {
        use ErrorClass::{
            Auth, ContextLength, InvalidRequest, NotFound, Overloaded, QuotaExhausted, RateLimited,
            Transient,
        };
        let coded =
            |code: &str| format!(r#"{{"error":{{"message":"m","code":"{code}","type":"error"}}}}"#);
        let scaling = coded("DEPLOYMENT_SCALING_UP");
        let not_found = coded("NOT_FOUND");
        let forbidden = coded("FORBIDDEN");
        for (status, body, class) in [
            (
                400,
                r#"{"error":{"object":"error","type":"invalid_request_error","code":"invalid_request_error","message":"Extra inputs are not permitted"}}"#,
                InvalidRequest,
            ),
            (
                400,
                r#"{"error":{"message":"The prompt is too long: 9, model maximum context length: 8"}}"#,
                ContextLength,
            ),
            (401, r#"{"error":"unauthorized"}"#, Auth),
            (402, r#"{"error":"Payment Required"}"#, QuotaExhausted),
            (403, r#"{"error":"unauthorized"}"#, Auth),
            (403, forbidden.as_str(), Auth),
            (404, not_found.as_str(), NotFound),
            (408, "", Transient),
            (412, r#"{"error":{"message":"Account acme is suspended"}}"#, QuotaExhausted),
            (412, r#"{"error":{"message":"cannot load LoRA weights"}}"#, InvalidRequest),
            (413, "", InvalidRequest),
            (422, r#"{"detail":[{"loc":["body","n"],"msg":"no","type":"t"}]}"#, InvalidRequest),
            (425, "", Transient),
            (429, r#"{"error":"Too Many Requests","message":"You have exceeded"}"#, RateLimited),
            (
                429,
                r#"{"fault":{"faultstring":"Spike arrest","detail":{"errorcode":"p.S"}}}"#,
                RateLimited,
            ),
            (500, "", Transient),
            (502, "", Transient),
            (503, scaling.as_str(), Overloaded),
            (503, "busy", Overloaded),
            (504, "", Transient),
            (520, "", Transient),
        ] {
            assert_eq!(failure(Some(status), body).class(), class, "{status} {body}");
        }
        let error = failure(Some(429), r#"{"error":"Too Many Requests","message":"You have"}"#);
        assert_eq!(error.to_string(), "the vendor answered 429: Too Many Requests: You have");
        let error = failure(Some(503), &scaling).error;
        assert_eq!(error.vendor_code.as_deref(), Some("DEPLOYMENT_SCALING_UP"));
    }

    #[test]
    fn inside_a_stream_the_code_tells() {
        for (code, class) in CODES {
            let body = format!(r#"{{"error":{{"message":"m","code":"{code}"}}}}"#);
            assert_eq!(failure(None, &body).class(), *class, "{code}");
        }
        let unknown = r#"{"error":{"message":"m","code":"INTERNAL"}}"#;
        assert_eq!(failure(None, unknown).class(), ErrorClass::Transient);
    }

    #[test]
    fn a_refused_key_says_where_keys_come_from() {
        let error = failure(Some(403), r#"{"error":"unauthorized"}"#).to_string();
        assert!(
            error.ends_with("; set FIREWORKS_API_KEY or vendors.fireworks_ai.api_key"),
            "{error}"
        );
    }
}
