use chrono::DateTime;
use http::{HeaderValue, header::CONTENT_TYPE};
use inferq_common::{error::ErrorClass, usage::Usage};
use proptest::prelude::*;

use super::*;

#[track_caller]
fn body(args: &str, mode: Mode) -> String {
    request_body(args, Model::InBody("claude-x"), mode).unwrap()
}

#[test]
fn the_model_is_put_in_front_and_the_rest_stays_as_it_is_spelt() {
    for (args, sent) in [
        (r#"{ "b" : 1.50,"a":[1e999] }"#, r#"{"model":"claude-x", "b" : 1.50,"a":[1e999] }"#),
        (r#"{"model":"x","betas":["b"]}"#, r#"{"model":"claude-x","betas":["b"]}"#),
        (r#"{"anthropic_version":"v"}"#, r#"{"model":"claude-x","anthropic_version":"v"}"#),
        ("{}", r#"{"model":"claude-x"}"#),
    ] {
        assert_eq!(body(args, Mode::Whole), sent);
    }
}

#[test]
fn whether_it_streams_is_the_callers_choice() {
    for (args, whole, stream) in [
        (r#"{"a":1}"#, r#","a":1}"#, r#","stream":true,"a":1}"#),
        (r#"{"stream":true,"a":1}"#, r#","a":1}"#, r#","stream":true,"a":1}"#),
        (r#"{"a":1,"stream":false}"#, r#","a":1,"stream":false}"#, r#","stream":true,"a":1}"#),
        (r#"{"stream":1}"#, "}", r#","stream":true}"#),
    ] {
        assert_eq!(body(args, Mode::Whole), format!(r#"{{"model":"claude-x"{whole}"#));
        assert_eq!(body(args, Mode::Stream), format!(r#"{{"model":"claude-x"{stream}"#));
    }
}

#[test]
fn a_body_without_model_names_the_version_instead() {
    let nowhere = |args, stream_member, mode| {
        let model = Model::Nowhere { anthropic_version: "vertex-2023-10-16", stream_member };
        request_body(args, model, mode).unwrap()
    };
    let args = r#"{"model":"x","stream":false,"a":1}"#;
    let version = r#"{"anthropic_version":"vertex-2023-10-16""#;
    assert_eq!(nowhere(args, true, Mode::Whole), format!(r#"{version},"stream":false,"a":1}}"#));
    assert_eq!(nowhere(args, true, Mode::Stream), format!(r#"{version},"stream":true,"a":1}}"#));
    for mode in [Mode::Whole, Mode::Stream] {
        assert_eq!(nowhere(args, false, mode), format!(r#"{version},"a":1}}"#));
    }
    let own = r#"{"a":1,"anthropic_version":"v"}"#;
    assert_eq!(nowhere(own, false, Mode::Whole), r#"{"anthropic_version":"v","a":1}"#);
}

#[test]
fn refused_members_are_left_out() {
    let args = r#"{"temperature":1,"a":{"top_p":1},"top_p":1,"top_k":0}"#;
    let refused = ["temperature", "top_p", "top_k"];
    let body = request_body_without(&refused, args, Model::InBody("m"), Mode::Whole).unwrap();
    assert_eq!(body, r#"{"model":"m","a":{"top_p":1}}"#);
}

#[test]
fn arguments_that_are_no_object_have_no_body() {
    let nowhere = Model::Nowhere { anthropic_version: "v", stream_member: true };
    for args in ["[]", "1", "", "{", "{} {}"] {
        assert!(request_body(args, Model::InBody("m"), Mode::Whole).is_err(), "{args}");
        assert!(request_body(args, nowhere, Mode::Whole).is_err(), "{args}");
    }
}

fn read(route: Route, body: &str) -> Result<Parsed, VendorError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    parse(route, &headers, body.as_bytes().to_vec(), DateTime::UNIX_EPOCH)
}

const MESSAGE: &str = r#"{"id":"msg_1","type":"message","content":[],"stop_reason":"end_turn",
    "usage":{"input_tokens":3,"cache_read_input_tokens":2,"output_tokens":4}}"#;

#[test]
fn a_message_comes_back_as_it_is_with_its_usage() {
    let parsed = read(Route::Messages, MESSAGE).unwrap();
    assert_eq!(parsed.response.as_str(), MESSAGE);
    assert_eq!(parsed.usage.input_tokens, Some(5));
    assert_eq!(parsed.usage.output_tokens, Some(4));
    assert_eq!(parsed.request_id, None);
}

#[test]
fn counted_tokens_are_not_consumed() {
    let counted = r#"{"input_tokens":14}"#;
    let parsed = read(Route::CountTokens, counted).unwrap();
    assert_eq!((parsed.response.as_str(), parsed.usage), (counted, Usage::default()));
}

#[test]
fn an_error_inside_a_success_is_one() {
    let body = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let error = read(Route::Messages, body).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Overloaded);
    assert_eq!(error.to_string(), "the vendor answered an error: Overloaded");
    assert_eq!(error.error.vendor_code.as_deref(), Some("overloaded_error"));
}

#[test]
fn what_is_no_message_is_told_from_what_is_cut() {
    for (body, class) in [
        ("", ErrorClass::Protocol),
        ("<html>", ErrorClass::Protocol),
        ("[1]", ErrorClass::Protocol),
        (&MESSAGE[..40], ErrorClass::Transient),
    ] {
        assert_eq!(read(Route::Messages, body).unwrap_err().class(), class, "{body}");
    }
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    assert_eq!(read(Route::Messages, &deep).unwrap_err().class(), ErrorClass::Protocol);
}

#[test]
fn a_usage_of_absurd_size_is_not_read() {
    let body = format!(r#"{{"usage":{{"input_tokens":1,"x":"{}"}}}}"#, "x".repeat(20_000));
    assert_eq!(read(Route::Messages, &body).unwrap().usage, Usage::default());
}

proptest! {
    #[test]
    fn a_body_is_the_arguments_with_the_model(
        members in proptest::collection::btree_map("[a-z_]{1,12}", -9i64..9, 0..6),
        streams: bool,
    ) {
        let mut expected = serde_json::to_value(&members).unwrap();
        let mode = if streams { Mode::Stream } else { Mode::Whole };
        let sent = body(&expected.to_string(), mode);
        let sent: Value = serde_json::from_str(&sent).unwrap();
        expected["model"] = "claude-x".into();
        expected.as_object_mut().unwrap().remove("stream");
        if streams {
            expected["stream"] = true.into();
        }
        prop_assert_eq!(sent, expected);
    }
}
