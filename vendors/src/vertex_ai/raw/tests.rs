use super::*;

fn noon() -> DateTime<Utc> {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

#[test]
fn the_model_stands_in_the_body_once() {
    for (args, model, mode, expected) in [
        (
            r#"{"messages":[]}"#,
            Some("mistral-small@2503"),
            Mode::Whole,
            r#"{"model":"mistral-small","messages":[]}"#,
        ),
        (
            r#"{"messages":[],"model":"mistral-small-2503"}"#,
            Some("m"),
            Mode::Whole,
            r#"{"model":"mistral-small-2503","messages":[]}"#,
        ),
        (
            r#"{"messages":[],"stream":false}"#,
            Some("m"),
            Mode::Stream,
            r#"{"model":"m","stream":true,"messages":[]}"#,
        ),
        (r#"{"stream":true,"messages":[]}"#, None, Mode::Whole, r#"{"messages":[]}"#),
        (r#"{"stream":false,"a":1}"#, None, Mode::Whole, r#"{"stream":false,"a":1}"#),
        (r#"{"a":1}"#, None, Mode::Stream, r#"{"stream":true,"a":1}"#),
        ("{}", None, Mode::Whole, "{}"),
    ] {
        assert_eq!(request_body(args, model, mode).unwrap(), expected, "{args}");
    }
    assert!(request_body("[]", None, Mode::Whole).is_err());
}

#[test]
fn answers_are_read_in_the_format_they_are_in() {
    let usage =
        |body: &str| parse(&HeaderMap::new(), body.into(), "check it", noon()).unwrap().usage;
    let claudes = r#"{"type":"message","usage":{"input_tokens":5,"cache_read_input_tokens":2,"output_tokens":3}}"#;
    assert_eq!((usage(claudes).input_tokens, usage(claudes).output_tokens), (Some(7), Some(3)));
    let mistrals = r#"{"object":"chat.completion","choices":[{}],"usage":{"prompt_tokens":4,"completion_tokens":2}}"#;
    assert_eq!((usage(mistrals).input_tokens, usage(mistrals).output_tokens), (Some(4), Some(2)));
    assert_eq!(usage(r#"{"predictions":[1]}"#), Usage::default());
}

#[test]
fn streams_are_read_in_the_format_of_their_first_event() {
    let claudes = [
        r#"{"type":"message_start","message":{"usage":{"input_tokens":5,"output_tokens":1}}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":3}}"#,
        r#"{"type":"message_stop"}"#,
    ];
    let mistrals = [
        r#"{"object":"chat.completion.chunk","choices":[{"delta":{"content":"hi"}}]}"#,
        r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":3}}"#,
        "[DONE]",
    ];
    for events in [claudes, mistrals] {
        let (_, mut reader) = follow(&HeaderMap::new(), "check it").unwrap();
        for event in events {
            assert!(!reader.is_over());
            reader.take(Frame::from(Bytes::from(event)), noon()).unwrap();
        }
        assert!(reader.is_over());
        let usage = reader.usage();
        assert_eq!((usage.input_tokens, usage.output_tokens), (Some(5), Some(3)));
    }
}
