use bytes::Bytes;
use inferq_common::error::ErrorClass;

use super::*;
use crate::framing::Frame;

#[test]
fn a_message_has_a_version_and_no_model() {
    let body = |args, mode| message(args, mode).unwrap();
    let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(
        parsed(&body(r#"{"model":"x","messages":[],"stream":true}"#, Mode::Whole)),
        serde_json::json!({"anthropic_version": "vertex-2023-10-16", "messages": []})
    );
    assert_eq!(
        parsed(&body(r#"{"anthropic_version":"2026-10-21","messages":[]}"#, Mode::Stream)),
        serde_json::json!({"anthropic_version": "2026-10-21", "messages": [], "stream": true})
    );
    assert!(message("[]", Mode::Whole).is_err());
}

#[test]
fn tokens_are_counted_of_a_model_in_the_body() {
    assert_eq!(
        counted(r#"{"messages":[]}"#, "claude-x").unwrap(),
        r#"{"anthropic_version":"vertex-2023-10-16","model":"claude-x","messages":[]}"#
    );
    assert_eq!(
        counted(r#"{"anthropic_version":"v","messages":[]}"#, "claude-x").unwrap(),
        r#"{"model":"claude-x","anthropic_version":"v","messages":[]}"#
    );
    assert!(counted("7", "claude-x").is_err());
}

#[test]
fn errors_of_both_shapes_end_a_stream() {
    let noon = "2026-11-20T12:00:00Z".parse().unwrap();
    for (event, expected) in [
        (
            r#"{"type":"error","error":{"type":"overloaded_error","message":"no"}}"#,
            ErrorClass::Overloaded,
        ),
        (
            r#"{"error":{"code":429,"message":"no","status":"RESOURCE_EXHAUSTED"}}"#,
            ErrorClass::RateLimited,
        ),
        (r#"[{"error":{"code":503,"status":"UNAVAILABLE"}}]"#, ErrorClass::Overloaded),
    ] {
        let (_, mut reader) = follow(&HeaderMap::new(), "check it").unwrap();
        let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":25}}}"#;
        reader.take(Frame::from(Bytes::from_static(start.as_bytes())), noon).unwrap();
        let error = reader.take(Frame::from(Bytes::from(event)), noon).unwrap_err();
        assert_eq!(error.class(), expected, "{event}");
        assert_eq!(error.usage.input_tokens, Some(25));
    }
}
