use super::*;

fn noon() -> DateTime<Utc> {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

fn frame(headers: &[(&str, &str)], data: &str) -> Frame {
    let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    Frame { headers: headers.collect(), data: data.to_owned().into() }
}

fn event(kind: &str, data: &str) -> Frame {
    frame(&[(":event-type", kind), (":message-type", "event")], data)
}

fn chunk(inner: &str) -> Frame {
    event("chunk", &format!(r#"{{"bytes":"{}","p":"ab"}}"#, STANDARD.encode(inner)))
}

/// What passes, and how it ends.
fn follow(route: Route, frames: Vec<Frame>) -> (Vec<String>, Result<Usage, VendorError>) {
    let mut reader = Reader::new(route);
    let mut passed = Vec::new();
    for frame in frames {
        if reader.is_over() {
            break;
        }
        match reader.take(frame, noon()) {
            Ok(data) => {
                passed.extend(data.map(|data| String::from_utf8(data.to_vec()).unwrap()));
            }
            Err(error) => return (passed, Err(error)),
        }
    }
    let ended = if reader.is_over() { Ok(()) } else { reader.end() };
    (passed, ended.map(|()| reader.usage()))
}

#[test]
fn the_events_of_converse_pass_with_their_names_and_payloads_as_they_are_spelt() {
    let (passed, ended) = follow(
        Route::Converse,
        vec![
            event("messageStart", r#"{"p":"ab","role":"assistant"}"#),
            event(
                "contentBlockDelta",
                r#"{ "delta":{"text":"é \u00e9 1.50"}, "contentBlockIndex":0}"#,
            ),
            event("messageStop", r#"{"stopReason":"end_turn"}"#),
            event("metadata", r#"{"usage":{"inputTokens":5,"outputTokens":2}}"#),
            event("never", "{}"),
        ],
    );
    assert_eq!(
        passed,
        [
            r#"{"messageStart":{"p":"ab","role":"assistant"}}"#,
            r#"{"contentBlockDelta":{ "delta":{"text":"é \u00e9 1.50"}, "contentBlockIndex":0}}"#,
            r#"{"messageStop":{"stopReason":"end_turn"}}"#,
            r#"{"metadata":{"usage":{"inputTokens":5,"outputTokens":2}}}"#,
        ]
    );
    let usage = Usage { input_tokens: Some(5), output_tokens: Some(2), ..Usage::default() };
    assert_eq!(ended, Ok(usage));
}

#[test]
fn converse_without_its_message_stop_is_cut() {
    let start = || event("messageStart", "{}");
    let (passed, ended) = follow(Route::Converse, vec![start()]);
    assert_eq!(passed.len(), 1);
    assert_eq!(ended.unwrap_err().class(), ErrorClass::Transient);
    let metadata = event("metadata", r#"{"usage":{"inputTokens":5}}"#);
    let (_, ended) = follow(Route::Converse, vec![start(), metadata]);
    let error = ended.unwrap_err();
    assert_eq!(error.usage.input_tokens, Some(5));
    let (_, ended) = follow(Route::Converse, vec![start(), event("messageStop", "{}")]);
    assert_eq!(ended, Ok(Usage::default()));
    assert!(follow(Route::Converse, vec![]).1.is_err());
}

#[test]
fn the_chunks_of_invoke_pass_decoded_and_the_last_tells_the_usage() {
    let start =
        r#"{"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}"#;
    let delta = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":4}}"#;
    let stop = r#"{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":9,"outputTokenCount":4,"cacheReadInputTokenCount":3}}"#;
    let frames = || vec![chunk(start), event("newKind", "?"), chunk(delta)];
    let (passed, ended) = follow(Route::Invoke, [frames(), vec![chunk(stop)]].concat());
    assert_eq!(passed, [start, delta, stop]);
    let usage = ended.unwrap();
    assert_eq!((usage.input_tokens, usage.output_tokens), (Some(12), Some(4)));
    // Cut before its end, it has still consumed what it told.
    let (_, ended) = follow(Route::Invoke, frames());
    let error = ended.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
    assert_eq!((error.usage.input_tokens, error.usage.output_tokens), (Some(9), Some(4)));
}

#[test]
fn each_vendors_word_for_the_end_is_known() {
    for inner in [
        r#"{"type":"message_stop"}"#,
        r#"{"generation":"a","stop_reason":"stop"}"#,
        r#"{"outputText":"a","completionReason":"FINISH"}"#,
        r#"{"is_finished":true}"#,
        r#"{"messageStop":{"stopReason":"end_turn"}}"#,
        r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
        r#"{"outputs":[{"text":"a","stop_reason":"length"}]}"#,
    ] {
        assert!(follow(Route::Invoke, vec![chunk(inner)]).1.is_ok(), "{inner}");
    }
    for inner in [
        r#"{"stop_reason":null}"#,
        r#"{"is_finished":false}"#,
        r#"{"choices":[{"delta":{},"finish_reason":null}]}"#,
        "{}",
    ] {
        assert!(follow(Route::Invoke, vec![chunk(inner)]).1.is_err(), "{inner}");
    }
}

#[test]
fn what_breaks_a_stream_is_told() {
    let exception = frame(
        &[(":message-type", "exception"), (":exception-type", "throttlingException")],
        r#"{"message":"slow"}"#,
    );
    let error = frame(
        &[
            (":message-type", "error"),
            (":error-code", "InternalFailure"),
            (":error-message", "sorry"),
        ],
        "",
    );
    let of_model =
        chunk(r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#);
    for (broken, class, words) in [
        (exception, ErrorClass::RateLimited, "slow"),
        (error, ErrorClass::Transient, "sorry"),
        (of_model, ErrorClass::Overloaded, "Overloaded"),
    ] {
        let first = chunk(r#"{"type":"message_start","message":{"usage":{"input_tokens":9}}}"#);
        let (passed, ended) = follow(Route::Invoke, vec![first, broken]);
        assert_eq!(passed.len(), 1);
        let error = ended.unwrap_err();
        assert_eq!(error.class(), class);
        assert_eq!(error.to_string(), format!("the vendor broke the stream off: {words}"));
        assert_eq!(error.usage.input_tokens, Some(9));
    }
}

#[test]
fn what_is_not_of_the_format_is_refused() {
    for (route, frame) in [
        (Route::Converse, event("messageStart", "[]")),
        (Route::Converse, event("messageStart", "")),
        (Route::Converse, frame(&[], "{}")),
        (Route::Converse, frame(&[(":message-type", "other")], "{}")),
        (Route::Invoke, event("chunk", r#"{"bytes":"?"}"#)),
        (Route::Invoke, event("chunk", r#"{"p":"a"}"#)),
        (Route::Invoke, chunk("[]")),
        (Route::Invoke, chunk("")),
    ] {
        let error = follow(route, vec![frame]).1.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Protocol, "{error}");
    }
}
