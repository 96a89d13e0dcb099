use chrono::DateTime;
use http::HeaderValue;
use inferq_common::error::ErrorClass;

use super::*;

fn read(body: &str) -> Result<Parsed, VendorError> {
    let mut headers = HeaderMap::new();
    headers.insert("x-debug-trace-id", HeaderValue::from_static("trace-1"));
    parse(&headers, body.as_bytes().to_vec(), DateTime::UNIX_EPOCH)
}

#[test]
fn answers_come_back_as_they_are_with_usage_and_id() {
    for (body, input, output, id) in [
        (
            r#"{"id":"c1","finish_reason":"MAX_TOKENS","message":{"role":"assistant","content":[]},
            "usage":{"tokens":{"input_tokens":5.0,"output_tokens":2.0}}}"#,
            Some(5),
            Some(2),
            "c1",
        ),
        (
            r#"{"id":"e1","embeddings":{"float":[[0.10]]},"texts":["a"],
            "meta":{"billed_units":{"input_tokens":3}}}"#,
            Some(3),
            None,
            "e1",
        ),
        (r#"{"results":[],"meta":{"billed_units":{"search_units":1}}}"#, None, None, "trace-1"),
        (r#"{"message":"odd","results":[]}"#, None, None, "trace-1"),
    ] {
        let parsed = read(body).unwrap();
        assert_eq!(parsed.response.as_str(), body);
        assert_eq!((parsed.usage.input_tokens, parsed.usage.output_tokens), (input, output));
        assert_eq!(parsed.request_id.as_deref(), Some(id));
    }
}

#[test]
fn an_answer_the_model_gave_up_on_is_none() {
    for reason in ["ERROR", "TIMEOUT"] {
        let body = format!(
            r#"{{"id":"c1","finish_reason":"{reason}","message":{{"content":[]}},
            "usage":{{"tokens":{{"input_tokens":5}}}}}}"#
        );
        let error = read(&body).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Transient);
        assert_eq!(error.to_string(), format!("the vendor gave up on the answer ({reason})"));
        assert_eq!(error.error.vendor_code.as_deref(), Some(reason));
        assert_eq!(error.error.vendor_request_id.as_deref(), Some("c1"));
        assert_eq!(error.usage.input_tokens, Some(5));
    }
}

#[test]
fn an_error_inside_a_success_is_one() {
    let error = read(r#"{"id":"x1","message":"too many tokens: 9"}"#).unwrap_err();
    assert_eq!(error.class(), ErrorClass::ContextLength);
    assert_eq!(error.error.vendor_request_id.as_deref(), Some("x1"));
}

#[test]
fn what_is_no_answer_is_told_from_what_is_cut() {
    for (body, class) in [
        ("", ErrorClass::Protocol),
        ("<html>", ErrorClass::Protocol),
        ("[1]", ErrorClass::Protocol),
        (r#"{"id":"c1","mess"#, ErrorClass::Transient),
    ] {
        assert_eq!(read(body).unwrap_err().class(), class, "{body}");
    }
}
