use http::{HeaderName, HeaderValue};
use inferq_common::error::ErrorClass;

use super::*;

const NOVA: &str = "amazon.nova-lite-v1:0";
const CLAUDE: &str = "us.anthropic.claude-haiku-4-5-20251001-v1:0";

#[track_caller]
fn body(args: &str, id: &str, route: Route, mode: Mode) -> String {
    request_body(args, id, route, mode).unwrap()
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    pairs.iter().map(pair).collect()
}

fn read(route: Route, told: &HeaderMap, text: &str) -> Result<Parsed, VendorError> {
    let now = "2026-11-20T12:00:00Z".parse().unwrap();
    parse(route, told, text.into(), now)
}

#[test]
fn arguments_go_out_as_they_are_spelt() {
    let args = r#" { "messages" : [] , "inferenceConfig": {"temperature": 0.10}, "x": 1e400 } "#;
    for route in [Route::Converse, Route::CountTokens, Route::Invoke] {
        for mode in [Mode::Whole, Mode::Stream] {
            assert_eq!(body(args, NOVA, route, mode), args);
        }
    }
}

#[test]
fn the_model_and_the_stream_stand_in_the_path_alone() {
    let args = r#"{"modelId": "x", "messages" : [], "model":"y","stream":true, "a": 1.50}"#;
    let expected = r#"{ "messages" : [], "a": 1.50}"#;
    assert_eq!(body(args, NOVA, Route::Converse, Mode::Whole), expected);
    assert_eq!(body(args, NOVA, Route::Converse, Mode::Stream), expected);
    assert_eq!(body(r#"{"model":"x"}"#, NOVA, Route::Invoke, Mode::Whole), "{}");
}

#[test]
fn the_body_of_a_models_own_vendor_keeps_what_that_vendor_knows() {
    let args = r#"{"model":"x","prompt":"a","stream":true,"stream_options":{"a":1},"p":1}"#;
    let id = "cohere.command-light-text-v14";
    assert_eq!(
        body(args, id, Route::Invoke, Mode::Stream),
        r#"{"prompt":"a","stream":true,"stream_options":{"a":1},"p":1}"#
    );
    assert_eq!(body(args, id, Route::Invoke, Mode::Whole), r#"{"prompt":"a","p":1}"#);
    let off = r#"{"prompt":"a","stream":false}"#;
    assert_eq!(body(off, id, Route::Invoke, Mode::Whole), off);
}

#[test]
fn a_claude_models_request_gets_the_version_it_lacks() {
    let args = r#"{"max_tokens":5,"stream":true,"messages":[]}"#;
    let expected = r#"{"anthropic_version":"bedrock-2023-05-31","max_tokens":5,"messages":[]}"#;
    for mode in [Mode::Whole, Mode::Stream] {
        assert_eq!(body(args, CLAUDE, Route::Invoke, mode), expected);
    }
    let own = r#"{"anthropic_version":"2026-10-21","messages":[]}"#;
    assert_eq!(body(own, CLAUDE, Route::Invoke, Mode::Whole), own);
    let legacy = r#"{"prompt":"Human: a"}"#;
    assert_eq!(body(legacy, "anthropic.claude-v2", Route::Invoke, Mode::Whole), legacy);
    assert_eq!(
        body(r#"{"messages":[]}"#, CLAUDE, Route::Converse, Mode::Whole),
        r#"{"messages":[]}"#
    );
}

#[test]
fn the_endpoints_in_openais_format_get_openais_body() {
    let args = r#"{"messages":[],"model":"x"}"#;
    assert_eq!(
        body(args, "openai.gpt-oss-20b-1:0", Route::ChatCompletions, Mode::Stream),
        r#"{"model":"openai.gpt-oss-20b-1:0","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#
    );
}

#[test]
fn arguments_that_are_no_object_are_refused() {
    for route in [Route::Converse, Route::Invoke, Route::ChatCompletions] {
        assert!(request_body("[]", NOVA, route, Mode::Whole).is_err());
    }
}

#[test]
fn an_answer_of_converse_passes_and_its_usage_is_read() {
    let text = r#"{"output":{"message":{"role":"assistant","content":[{"text":"hi"}]}},
        "stopReason":"end_turn","usage":{"inputTokens":3,"outputTokens":5,"cacheReadInputTokens":8}}"#;
    let parsed = read(Route::Converse, &HeaderMap::new(), text).unwrap();
    assert_eq!(parsed.response.as_str(), text);
    assert_eq!(parsed.usage.input_tokens, Some(11));
    assert_eq!(parsed.usage.output_tokens, Some(5));
    assert_eq!(parsed.usage.cached_input_tokens, Some(8));
}

#[test]
fn the_usage_of_invoke_is_claudes_then_the_headers_then_what_else_the_body_tells() {
    let told = headers(&[
        ("x-amzn-bedrock-input-token-count", "7"),
        ("x-amzn-bedrock-output-token-count", "8"),
        ("x-amzn-bedrock-cache-read-input-token-count", "2"),
    ]);
    let none = HeaderMap::new();
    let claude = r#"{"type":"message","usage":{"input_tokens":3,"cache_creation_input_tokens":1,
        "cache_read_input_tokens":4,"output_tokens":5}}"#;
    let nova = r#"{"output":{},"usage":{"inputTokens":3,"outputTokens":5}}"#;
    let openai = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}"#;
    let titan = r#"{"embedding":[0.5],"inputTextTokenCount":3}"#;
    let usage = |told: &HeaderMap, text: &str| {
        let usage = read(Route::Invoke, told, text).unwrap().usage;
        (usage.input_tokens, usage.output_tokens)
    };
    assert_eq!(usage(&told, claude), (Some(8), Some(5)));
    assert_eq!(usage(&told, nova), (Some(9), Some(8)));
    assert_eq!(usage(&told, titan), (Some(9), Some(8)));
    assert_eq!(usage(&none, nova), (Some(3), Some(5)));
    assert_eq!(usage(&none, openai), (Some(3), Some(5)));
    assert_eq!(usage(&none, titan), (Some(3), None));
    assert_eq!(usage(&none, "{}"), (None, None));
}

#[test]
fn a_count_of_tokens_consumes_nothing() {
    let parsed = read(Route::CountTokens, &HeaderMap::new(), r#"{"inputTokens": 11}"#).unwrap();
    assert_eq!(parsed.usage, Usage::default());
    assert_eq!(parsed.response.as_str(), r#"{"inputTokens": 11}"#);
}

#[test]
fn an_error_inside_a_200_is_one() {
    for (text, class) in [
        (r#"{"message":"Too many tokens per day"}"#, ErrorClass::Transient),
        (r#"{"__type":"a#ThrottlingException","message":"slow"}"#, ErrorClass::RateLimited),
        (
            r#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#,
            ErrorClass::Overloaded,
        ),
        (
            r#"{"error":{"message":"bad","type":"invalid_request_error"}}"#,
            ErrorClass::InvalidRequest,
        ),
    ] {
        let error = read(Route::Invoke, &HeaderMap::new(), text).unwrap_err();
        assert_eq!(error.class(), class, "{text}: {error}");
        assert_eq!(error.error.vendor_status, None);
    }
}

#[test]
fn a_models_own_answer_may_be_a_list_and_nothing_else_may() {
    let list = r#"[{"generated_text":"a"}]"#;
    let parsed = read(Route::Invoke, &HeaderMap::new(), list).unwrap();
    assert_eq!(parsed.response.as_str(), list);
    for (route, text, class) in [
        (Route::Converse, list, ErrorClass::Protocol),
        (Route::Invoke, "[1,", ErrorClass::Transient),
        (Route::Invoke, "7", ErrorClass::Protocol),
        (Route::Invoke, "", ErrorClass::Protocol),
        (Route::Converse, r#"{"output":"#, ErrorClass::Transient),
        (Route::Converse, "<html>", ErrorClass::Protocol),
    ] {
        let error = read(route, &HeaderMap::new(), text).unwrap_err();
        assert_eq!(error.class(), class, "{text}");
    }
}
