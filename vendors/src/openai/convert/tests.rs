use chrono::DateTime;
use http::{HeaderValue, header::CONTENT_TYPE};
use inferq_common::error::ErrorClass;
use proptest::prelude::*;
use serde_json::Value;

use super::{super::flavor::OPENAI, *};

fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH
}

#[track_caller]
fn whole(args: &str) -> String {
    request_body(args, Some("gpt-5"), Mode::Whole, true).unwrap()
}

#[test]
fn the_model_is_put_in_front_and_the_rest_stays_as_it_is_spelt() {
    assert_eq!(
        whole(r#"{ "b" : 1.50,"a":12345678901234567890123 , "b":1e999,"é":"\ud83e\udd80 \/"}"#),
        r#"{"model":"gpt-5", "b" : 1.50,"a":12345678901234567890123 , "b":1e999,"é":"\ud83e\udd80 \/"}"#
    );
    assert_eq!(whole(" {} "), r#"{"model":"gpt-5"}"#);
    assert_eq!(whole("{ \n}"), r#"{"model":"gpt-5"}"#);
}

#[test]
fn a_model_in_the_arguments_gives_way() {
    for (args, body) in [
        (r#"{"model":"x"}"#, r#"{"model":"gpt-5"}"#),
        (r#"{"model":"x","a":1}"#, r#"{"model":"gpt-5","a":1}"#),
        (r#"{"a":1,"model":"x"}"#, r#"{"model":"gpt-5","a":1}"#),
        (r#"{"a":1 , "model":"x" , "b":2 }"#, r#"{"model":"gpt-5","a":1 , "b":2 }"#),
        (r#"{"model":1,"a":1,"model":{"b":[]},"\u006dodel":"y"}"#, r#"{"model":"gpt-5","a":1}"#),
        (r#"{"a":{"model":"x"},"Model":1}"#, r#"{"model":"gpt-5","a":{"model":"x"},"Model":1}"#),
    ] {
        assert_eq!(whole(args), body, "{args}");
    }
}

#[test]
fn the_name_of_the_model_is_escaped() {
    let body = request_body("{}", Some("a\"b\\é"), Mode::Whole, true).unwrap();
    assert_eq!(body, r#"{"model":"a\"b\\é"}"#);
}

#[test]
fn a_call_for_the_whole_answer_never_streams() {
    for (args, body) in [
        (r#"{"stream":true,"stream_options":{"include_usage":true},"a":1}"#, r#","a":1}"#),
        (r#"{"stream":false,"a":1}"#, r#","stream":false,"a":1}"#),
        (r#"{"stream":null}"#, r#","stream":null}"#),
        (r#"{"stream":"yes"}"#, "}"),
    ] {
        assert_eq!(whole(args), format!(r#"{{"model":"gpt-5"{body}"#), "{args}");
    }
}

#[test]
fn a_call_for_a_stream_asks_for_usage() {
    let stream = |args, asks| request_body(args, Some("m"), Mode::Stream, asks).unwrap();
    let options = r#""stream_options":{"include_usage":true}"#;
    for args in [r#"{"a":1}"#, r#"{"stream":false,"a":1}"#, r#"{"stream_options":null,"a":1}"#] {
        let body = format!(r#"{{"model":"m","stream":true,{options},"a":1}}"#);
        assert_eq!(stream(args, true), body);
        assert_eq!(stream(args, false), r#"{"model":"m","stream":true,"a":1}"#);
    }
    for asks in [true, false] {
        let body = r#"{"model":"m","stream":true,"stream_options":{"x":1}}"#;
        assert_eq!(stream(r#"{"stream_options":{"x":1}}"#, asks), body);
    }
}

#[test]
fn a_model_that_stands_in_the_path_is_not_in_the_body() {
    for (args, mode, body) in [
        ("{}", Mode::Whole, "{}"),
        (r#"{"model":"x"}"#, Mode::Whole, "{}"),
        (r#"{ "a":1,"model":"x", "b":2}"#, Mode::Whole, r#"{ "a":1, "b":2}"#),
        (r#"{"model":"x","a":1}"#, Mode::Whole, r#"{"a":1}"#),
        (r#"{"a":1}"#, Mode::Stream, r#"{"stream":true,"a":1}"#),
    ] {
        assert_eq!(request_body(args, None, mode, false).unwrap(), body, "{args}");
    }
}

#[test]
fn arguments_that_are_no_object_have_no_body() {
    for args in ["[]", "1", "", "{"] {
        assert!(request_body(args, Some("m"), Mode::Whole, true).is_err(), "{args}");
    }
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map(".{0,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn only_the_model_changes(
        members in proptest::collection::hash_map("model|stream|stream_options|.{0,4}", json(), 0..6),
        pretty in any::<bool>(),
    ) {
        let args = Value::Object(members.into_iter().collect());
        let text = if pretty { format!("{args:#}") } else { args.to_string() };
        for mode in [Mode::Whole, Mode::Stream] {
            let body = request_body(&text, Some("m"), mode, false).unwrap();
            let body: Value = serde_json::from_str(&body).unwrap();
            let mut expected = args.clone();
            let members = expected.as_object_mut().unwrap();
            let options = members.get("stream_options").cloned().unwrap_or_default();
            let stream = members.get("stream").cloned().unwrap_or_default();
            members.insert("model".into(), "m".into());
            if mode == Mode::Stream {
                members.insert("stream".into(), true.into());
                if options.is_null() {
                    members.remove("stream_options");
                }
            } else if !(stream.is_null() || stream == false) {
                members.remove("stream");
                members.remove("stream_options");
            }
            prop_assert_eq!(body, expected);
        }
    }
}

#[track_caller]
fn parsed(route: Route, body: &str) -> Parsed {
    parse(&OPENAI, route, &HeaderMap::new(), body.as_bytes().to_vec(), now()).unwrap()
}

fn refused(content_type: &'static str, body: &[u8]) -> (ErrorClass, String) {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    let error = parse(&OPENAI, Route::ChatCompletions, &headers, body.to_vec(), now()).unwrap_err();
    (error.class(), error.to_string())
}

#[test]
fn a_response_stays_as_it_is_spelt() {
    let body = r#"{"choices":[{"x":1.50}], "big":123456789012345678901234567890,"a":1,"a":1e999,"u":"\ud800"}"#;
    assert_eq!(parsed(Route::ChatCompletions, &format!("\n{body}\n")).response.as_str(), body);
}

#[test]
fn usage_is_read_for_each_route() {
    let chat = r#"{"choices":[],"usage":{"prompt_tokens":20,"completion_tokens":9,"total_tokens":29,
        "prompt_tokens_details":{"cached_tokens":16,"cache_write_tokens":2},
        "completion_tokens_details":{"reasoning_tokens":5}}}"#;
    let all = Usage {
        input_tokens: Some(20),
        cached_input_tokens: Some(16),
        cache_write_tokens: Some(2),
        output_tokens: Some(9),
        reasoning_tokens: Some(5),
    };
    assert_eq!(parsed(Route::ChatCompletions, chat).usage, all);
    let plain = r#"{"choices":[],"usage":{"prompt_tokens":8,"completion_tokens":7}}"#;
    let expected = Usage { input_tokens: Some(8), output_tokens: Some(7), ..Usage::default() };
    assert_eq!(parsed(Route::Completions, plain).usage, expected);
    let embeddings = r#"{"data":[],"usage":{"prompt_tokens":6,"total_tokens":6}}"#;
    let expected = Usage { input_tokens: Some(6), ..Usage::default() };
    assert_eq!(parsed(Route::Embeddings, embeddings).usage, expected);
    let responses = r#"{"output":[],"error":null,"status":"completed","usage":{"input_tokens":38,
        "input_tokens_details":{"cached_tokens":0},"output_tokens":199,
        "output_tokens_details":{"reasoning_tokens":192}}}"#;
    let expected = Usage {
        input_tokens: Some(38),
        cached_input_tokens: Some(0),
        cache_write_tokens: None,
        output_tokens: Some(199),
        reasoning_tokens: Some(192),
    };
    assert_eq!(parsed(Route::Responses, responses).usage, expected);
}

#[test]
fn strange_usage_is_no_reason_to_lose_an_answer() {
    for usage in ["null", "[]", "7", r#"{"prompt_tokens":{}}"#, r#"{"prompt_tokens":1e999}"#] {
        let body = format!(r#"{{"choices":[],"usage":{usage}}}"#);
        assert_eq!(parsed(Route::ChatCompletions, &body).usage, Usage::default(), "{usage}");
    }
    let huge = format!(r#"{{"usage":{{"x":"{}"}}}}"#, "x".repeat(MAX_USAGE_BYTES));
    assert_eq!(parsed(Route::ChatCompletions, &huge).usage, Usage::default());
}

#[test]
fn an_error_inside_a_200_is_an_error() {
    use ErrorClass::{
        ContextLength, InvalidRequest, Overloaded, QuotaExhausted, RateLimited, Transient,
    };
    for (body, class) in [
        (r#"{"error":{"message":"x","type":"server_error","code":null}}"#, Transient),
        (r#"{"error":{"message":"x","type":"invalid_request_error"}}"#, InvalidRequest),
        (r#"{"error":{"message":"x","code":"insufficient_quota"}}"#, QuotaExhausted),
        (r#"{"error":{"message":"x","code":429},"choices":[]}"#, RateLimited),
        (r#"{"error":{"message":"x","code":503},"choices":null}"#, Overloaded),
        (r#"{"error":"model is loading"}"#, Transient),
        (r#"{"object":"error","message":"maximum context length is 5","code":400}"#, ContextLength),
        (
            r#"{"status":"failed","error":{"code":"rate_limit_exceeded","message":"x"},"output":[{}]}"#,
            RateLimited,
        ),
    ] {
        assert_eq!(refused("application/json", body.as_bytes()).0, class, "{body}");
    }
}

#[test]
fn an_error_beside_a_result_is_the_clients_to_read() {
    for body in [
        r#"{"choices":[{}],"error":{"message":"x"}}"#,
        r#"{"output":[],"error":null,"status":"incomplete"}"#,
        r#"{"data":[1],"error":"x"}"#,
        r#"{"anything":"else"}"#,
    ] {
        assert_eq!(parsed(Route::ChatCompletions, body).response.as_str(), body);
    }
}

#[test]
fn what_is_no_json_object_is_a_breach_of_protocol() {
    let page = b"<!DOCTYPE html>\n<html> <title>Sign in</title>";
    let (class, message) = refused("text/html; charset=utf-8", page);
    assert_eq!(class, ErrorClass::Protocol);
    assert_eq!(
        message,
        "cannot use the vendor's answer (content type text/html; charset=utf-8): it is not JSON: \
         <!DOCTYPE html> <html> <title>Sign in</title>"
    );
    for (body, why) in [
        (b"".as_slice(), "the vendor answered with nothing (content type application/json)"),
        (b" \n", "the vendor answered with nothing (content type application/json)"),
        (b"{\"a\":\"\xFF\"}", "it is not UTF-8: {\"a\":\"\u{fffd}\"}"),
        (b"[1]", "it is not a JSON object: [1]"),
        (b"\"hi", "it is not JSON: \"hi"),
        (b"{} {}", "it is not JSON: {} {}"),
        (b"{\"a\":nope}", "it is not JSON"),
    ] {
        let (class, message) = refused("application/json", body);
        assert_eq!(class, ErrorClass::Protocol, "{message}");
        assert!(message.contains(why), "{message}");
    }
    let long = "x".repeat(10_000);
    assert!(refused("text/plain", long.as_bytes()).1.len() < 400);
}

#[test]
fn half_a_document_may_be_whole_the_next_time() {
    for body in [r#"{"choices":[{"message""#, "[{", "{"] {
        assert_eq!(refused("application/json", body.as_bytes()).0, ErrorClass::Transient);
    }
}

#[test]
fn a_document_too_deep_to_read_is_refused() {
    let nested = |n| format!(r#"{{"a":{}{}}}"#, "[".repeat(n), "]".repeat(n));
    parsed(Route::ChatCompletions, &nested(json::MAX_DEPTH - 1));
    let (class, message) = refused("application/json", nested(json::MAX_DEPTH).as_bytes());
    assert_eq!(class, ErrorClass::Protocol);
    assert!(message.contains("nested too deeply"), "{message}");
    assert_eq!(refused("application/json", nested(1_000_000).as_bytes()).0, ErrorClass::Protocol);
}
