use chrono::DateTime;
use proptest::prelude::*;

use super::*;
use crate::remote::follow_events;

/// What a stream of these events hands on, and how it ends.
fn read(events: &[&str]) -> (usize, Result<Usage, VendorError>) {
    let mut reader = Reader::new();
    let (n_passed, end) = follow_events(&mut reader, events);
    (n_passed, end.map(|()| reader.usage()))
}

#[track_caller]
fn error(events: &[&str]) -> VendorError {
    read(events).1.unwrap_err()
}

const START: &str = r#"{"type":"message_start","message":{"id":"msg_1","content":[],
    "usage":{"input_tokens":12,"cache_read_input_tokens":5,"output_tokens":1}}}"#;
const PING: &str = r#"{"type": "ping"}"#;
const WORD: &str =
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}"#;
const DELTA: &str =
    r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":11}  }"#;
const STOP: &str = r#"{"type":"message_stop"   }"#;

#[test]
fn every_event_is_handed_on_up_to_the_last_and_usage_is_cumulative() {
    let usage = Usage {
        input_tokens: Some(17),
        cached_input_tokens: Some(5),
        output_tokens: Some(11),
        ..Usage::default()
    };
    assert_eq!(read(&[START, PING, "", WORD, DELTA, STOP, "after"]), (5, Ok(usage)));
    let unknown = r#"{"type":"something_new","message":3}"#;
    assert_eq!(read(&[unknown, "[DONE]", STOP]), (2, Ok(Usage::default())));
    let server_tool = r#"{"type":"message_delta","usage":{"input_tokens":900,"output_tokens":2}}"#;
    let usage = read(&[START, server_tool, STOP]).1.unwrap();
    assert_eq!((usage.input_tokens, usage.output_tokens), (Some(905), Some(2)));
}

#[test]
fn a_stream_without_its_end_was_cut() {
    for events in [&[] as &[&str], &[START], &[START, WORD, DELTA], &["[DONE]"]] {
        let error = error(events);
        assert_eq!(error.class(), ErrorClass::Transient);
        assert!(error.to_string().contains("ended before"), "{error}");
    }
    assert_eq!(error(&[START, WORD]).usage.input_tokens, Some(17));
}

#[test]
fn an_error_in_a_stream_ends_it() {
    for (kind, class) in [
        ("overloaded_error", ErrorClass::Overloaded),
        ("api_error", ErrorClass::Transient),
        ("rate_limit_error", ErrorClass::RateLimited),
        ("invalid_request_error", ErrorClass::InvalidRequest),
        ("brand_new_error", ErrorClass::Transient),
    ] {
        let event = format!(
            r#"{{"type":"error","error":{{"details":null,"type":"{kind}","message":"Sorry"}},"request_id":"req_1"}}"#
        );
        let (n_passed, outcome) = read(&[START, &event, STOP]);
        let error = outcome.unwrap_err();
        assert_eq!((n_passed, error.class()), (1, class), "{kind}");
        assert_eq!(error.to_string(), "the vendor broke the stream off: Sorry");
        assert_eq!(error.error.vendor_code.as_deref(), Some(kind));
        assert_eq!(error.error.vendor_request_id.as_deref(), Some("req_1"));
        assert_eq!(error.usage.input_tokens, Some(17));
    }
    assert_eq!(error(&[r#"{"type":"error"}"#]).class(), ErrorClass::Transient);
}

#[test]
fn what_is_no_event_breaks_the_stream() {
    for event in ["<html>", "[1]", "{", "7"] {
        let error = error(&[START, event]);
        assert_eq!(error.class(), ErrorClass::Protocol, "{event}");
        assert_eq!(error.usage.input_tokens, Some(17));
    }
    let mut reader = Reader::new();
    let broken = Bytes::from_static(b"{\"type\":\"\xff\"}");
    let error = reader.take(broken.into(), DateTime::UNIX_EPOCH).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Protocol);
}

proptest! {
    #[test]
    fn no_event_panics(kind in "[a-z_]{0,14}|message_start|message_delta|error", value in ".{0,30}") {
        let event = serde_json::json!({"type": kind, "message": value, "usage": value, "error": value});
        let _ = read(&[&event.to_string(), &value]);
    }
}
