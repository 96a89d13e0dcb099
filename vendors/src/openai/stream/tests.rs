use super::*;
use crate::remote::follow_events;

/// What a stream of these events hands on, and how it ends.
fn read(route: Route, events: &[&str]) -> (usize, Result<Usage, VendorError>) {
    let mut reader = Reader::new(&super::super::flavor::OPENAI, route);
    let (n_passed, end) = follow_events(&mut reader, events);
    (n_passed, end.map(|()| reader.usage()))
}

#[track_caller]
fn error(route: Route, events: &[&str]) -> VendorError {
    read(route, events).1.unwrap_err()
}

const WORD: &str =
    r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}],"usage":null}"#;
const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;

#[test]
fn a_chat_stream_ends_with_its_terminator_and_its_usage() {
    let usage = Usage { input_tokens: Some(3), output_tokens: Some(2), ..Usage::default() };
    let read_all = read(Route::ChatCompletions, &[WORD, STOP, USAGE, "[DONE]", "after"]);
    assert_eq!(read_all, (3, Ok(usage)));
    assert_eq!(read(Route::ChatCompletions, &[WORD, "[DONE]"]), (1, Ok(Usage::default())));
    assert_eq!(read(Route::ChatCompletions, &[WORD, STOP]), (2, Ok(Usage::default())));
    let text = r#"{"choices":[{"text":"a","finish_reason":"length"}]}"#;
    assert_eq!(read(Route::Completions, &[text]), (1, Ok(Usage::default())));
}

#[test]
fn a_chat_stream_without_its_end_was_cut() {
    let empty = r#"{"choices":[{"finish_reason":""}]}"#;
    for events in [&[] as &[&str], &[WORD], &[WORD, USAGE], &[WORD, empty]] {
        let error = error(Route::ChatCompletions, events);
        assert_eq!(error.class(), ErrorClass::Transient);
        assert!(error.to_string().contains("ended before"), "{error}");
    }
    assert_eq!(error(Route::ChatCompletions, &[USAGE]).usage.input_tokens, Some(3));
}

#[test]
fn a_stream_of_two_choices_is_cut_until_both_have_ended() {
    let other = r#"{"choices":[{"index":1,"delta":{"content":"b"},"finish_reason":null}]}"#;
    let stop = r#"{"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}"#;
    let cut = error(Route::ChatCompletions, &[WORD, other, STOP]);
    assert_eq!(cut.class(), ErrorClass::Transient);
    assert_eq!(read(Route::ChatCompletions, &[WORD, other, STOP, stop]).0, 4);
    assert!(read(Route::ChatCompletions, &[WORD, other, STOP, stop]).1.is_ok());
    assert!(read(Route::ChatCompletions, &[WORD, other, STOP, "[DONE]"]).1.is_ok());
}

#[test]
fn an_error_in_a_chat_stream_ends_it() {
    for (event, class, message) in [
        (
            r#"{"error":{"message":"busy","type":"service_unavailable_error"}}"#,
            ErrorClass::Overloaded,
            "busy",
        ),
        (r#"{"error":{"message":"no","code":400}}"#, ErrorClass::InvalidRequest, "no"),
        (r#"{"error":"broken"}"#, ErrorClass::Transient, "broken"),
        (
            r#"{"object":"error","message":"no","type":"BadRequestError","code":400}"#,
            ErrorClass::InvalidRequest,
            "no",
        ),
    ] {
        let (n_passed, end) = read(Route::ChatCompletions, &[WORD, event, "[DONE]"]);
        let error = end.unwrap_err();
        assert_eq!((n_passed, error.class()), (1, class), "{event}");
        assert_eq!(error.to_string(), format!("the vendor broke the stream off: {message}"));
    }
    let null = r#"{"choices":[{"finish_reason":"stop"}],"error":null}"#;
    assert!(read(Route::ChatCompletions, &[null]).1.is_ok());
}

#[test]
fn an_event_that_is_no_object_is_a_breach_of_protocol() {
    for event in ["hello", "[1]", "{\"a\":"] {
        for route in [Route::ChatCompletions, Route::Responses] {
            assert_eq!(error(route, &[event]).class(), ErrorClass::Protocol, "{event}");
        }
    }
}

const DELTA: &str = r#"{"type":"response.output_text.delta","delta":"a"}"#;

#[test]
fn a_responses_stream_ends_with_its_last_event() {
    for kind in ["response.completed", "response.incomplete"] {
        let last = format!(
            r#"{{"type":"{kind}","response":{{"usage":{{"input_tokens":5,"output_tokens":1}}}}}}"#
        );
        let usage = Usage { input_tokens: Some(5), output_tokens: Some(1), ..Usage::default() };
        assert_eq!(read(Route::Responses, &[DELTA, &last, "[DONE]"]), (2, Ok(usage)), "{kind}");
    }
    assert_eq!(error(Route::Responses, &[DELTA]).class(), ErrorClass::Transient);
}

#[test]
fn a_responses_stream_that_failed_says_why() {
    let flat = r#"{"type":"error","code":"server_error","message":"sorry","param":null}"#;
    let nested = r#"{"type":"error","error":{"type":"server_error","code":"server_error","message":"sorry"}}"#;
    let failed = r#"{"type":"response.failed","response":{"error":{"code":"server_error","message":"sorry"},
        "usage":{"input_tokens":5}}}"#;
    for event in [flat, nested, failed] {
        let error = error(Route::Responses, &[DELTA, event]);
        assert_eq!(error.class(), ErrorClass::Transient, "{event}");
        assert_eq!(error.error.vendor_code.as_deref(), Some("server_error"));
        assert_eq!(error.to_string(), "the vendor broke the stream off: sorry");
    }
    assert_eq!(error(Route::Responses, &[failed]).usage.input_tokens, Some(5));
    let limit = r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"Please try again in 2s."}}}"#;
    let error = error(Route::Responses, &[limit]);
    assert_eq!(error.class(), ErrorClass::RateLimited);
    assert_eq!(error.retry_after, Some(std::time::Duration::from_secs(2)));
}
