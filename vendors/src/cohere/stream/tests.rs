use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::remote::follow_events;

/// What a stream of these events hands on, and how it ends.
fn read(events: &[&str]) -> (usize, Result<Reader, VendorError>) {
    let mut headers = HeaderMap::new();
    headers.insert("x-debug-trace-id", HeaderValue::from_static("trace-1"));
    let mut reader = Reader::new(&headers);
    let (n_passed, end) = follow_events(&mut reader, events);
    (n_passed, end.map(|()| reader))
}

#[track_caller]
fn error(events: &[&str]) -> VendorError {
    read(events).1.unwrap_err()
}

const START: &str =
    r#"{"id":"m1","type":"message-start","delta":{"message":{"role":"assistant"}}}"#;
const WORD: &str =
    r#"{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"a"}}}}"#;
const END: &str = r#"{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{
    "billed_units":{"input_tokens":7},"tokens":{"input_tokens":502.0,"output_tokens":24}}}}"#;

#[test]
fn every_event_is_handed_on_up_to_the_terminator() {
    let (n_passed, reader) = read(&[START, "", WORD, END, "[DONE]", "after"]);
    let reader = reader.unwrap();
    let usage = reader.usage();
    assert_eq!((n_passed, usage.input_tokens, usage.output_tokens), (3, Some(502), Some(24)));
    assert_eq!(reader.request_id().as_deref(), Some("m1"));
    let (n_passed, reader) = read(&[WORD, r#"{"type":"message-end"}"#]);
    assert_eq!((n_passed, reader.unwrap().request_id().as_deref()), (2, Some("trace-1")));
}

#[test]
fn a_stream_without_its_end_was_cut() {
    for events in [&[] as &[&str], &[START], &[START, WORD], &[START, WORD, "[DONE]"]] {
        let error = error(events);
        assert_eq!(error.class(), ErrorClass::Transient);
        assert!(error.to_string().contains("ended before"), "{error}");
    }
}

#[test]
fn an_answer_the_model_gave_up_on_is_an_error() {
    for (reason, text, class) in [
        ("ERROR", "No valid response generated. Try updating messages", ErrorClass::Transient),
        ("ERROR", "too many tokens: 9", ErrorClass::ContextLength),
        ("TIMEOUT", "slow", ErrorClass::Transient),
    ] {
        let end = format!(
            r#"{{"type":"message-end","delta":{{"finish_reason":"{reason}","usage":{{}},"error":"{text}"}}}}"#
        );
        let (n_passed, outcome) = read(&[START, WORD, &end, "[DONE]"]);
        let error = outcome.unwrap_err();
        assert_eq!((n_passed, error.class()), (2, class), "{reason} {text}");
        let message = format!("the vendor gave up on the answer ({reason}): {text}");
        assert_eq!(error.to_string(), message);
        assert_eq!(error.error.vendor_request_id.as_deref(), Some("m1"));
    }
}

#[test]
fn an_error_in_place_of_an_event_ends_the_stream() {
    for event in [r#"{"message":"sorry"}"#, r#"{"type":"error","error":{"message":"sorry"}}"#] {
        let error = error(&[START, event]);
        assert_eq!(error.class(), ErrorClass::Transient);
        assert_eq!(error.to_string(), "the vendor broke the stream off: sorry");
    }
    assert_eq!(read(&[r#"{"type":"debug","message":"x"}"#, END]).0, 2);
}

#[test]
fn what_is_no_event_breaks_the_stream() {
    for event in ["<html>", "[1]", "{", "7"] {
        assert_eq!(error(&[START, event]).class(), ErrorClass::Protocol, "{event}");
    }
}

proptest! {
    #[test]
    fn no_event_panics(kind in "[a-z-]{0,14}|message-start|message-end|error", value in ".{0,30}") {
        let delta = serde_json::json!({"finish_reason": value, "usage": value, "error": value});
        let event = serde_json::json!({"type": kind, "id": value, "delta": delta, "error": value});
        let _ = read(&[&event.to_string(), &value]);
    }
}
