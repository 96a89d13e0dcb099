use super::*;

fn noon() -> DateTime<Utc> {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

fn take(reader: &mut Reader, part: &str) -> Result<Option<Bytes>, VendorError> {
    reader.take(Frame::from(Bytes::copy_from_slice(part.as_bytes())), noon())
}

#[test]
fn parts_are_passed_on_and_the_last_usage_counts() {
    let mut reader = Reader::new("check it");
    let first = r#"{"candidates":[{"content":{}}],"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":1},"responseId":"r1"}"#;
    let last = r#"{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":4,"thoughtsTokenCount":2}}"#;
    for part in [first, last] {
        assert_eq!(take(&mut reader, part), Ok(Some(Bytes::copy_from_slice(part.as_bytes()))));
    }
    // Parts without usage may follow.
    take(&mut reader, r#"{"candidates":[]}"#).unwrap();
    assert!(!reader.is_over());
    assert_eq!(reader.end(), Ok(()));
    assert!(reader.is_over());
    assert_eq!(reader.request_id().as_deref(), Some("r1"));
    assert_eq!((reader.usage().input_tokens, reader.usage().output_tokens), (Some(9), Some(6)));
}

#[test]
fn an_answer_is_complete_when_it_says_why_it_ended() {
    for (part, expected) in [
        (r#"{"candidates":[{"finishReason":"MAX_TOKENS"}]}"#, true),
        (r#"{"candidates":[{},{"finishReason":"STOP"}]}"#, true),
        (r#"{"candidates":[{"finishReason":1}]}"#, true),
        (r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#, true),
        (r#"{"candidates":[{"finishReason":null}]}"#, false),
        (r#"{"candidates":[{"finishReason":0}]}"#, false),
        (r#"{"candidates":[{"finishReason":"FINISH_REASON_UNSPECIFIED"}]}"#, false),
        (r#"{"candidates":[{"content":{"finishReason":"STOP"}}]}"#, false),
        (r#"{"promptFeedback":{"safetyRatings":[]}}"#, false),
        ("{}", false),
    ] {
        let mut reader = Reader::new("check it");
        take(&mut reader, part).unwrap();
        assert_eq!(reader.end().is_ok(), expected, "{part}");
    }
    let error = Reader::new("check it").end().unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
}

#[test]
fn an_error_ends_the_stream_and_keeps_the_usage() {
    let error =
        r#"{"error":{"code":429,"message":"Please retry in 7s","status":"RESOURCE_EXHAUSTED"}}"#;
    for part in [error.to_owned(), format!("[{error}]")] {
        let mut reader = Reader::new("check it");
        take(&mut reader, r#"{"usageMetadata":{"promptTokenCount":9}}"#).unwrap();
        let error = take(&mut reader, &part).unwrap_err();
        assert_eq!(error.class(), ErrorClass::RateLimited);
        assert_eq!(error.retry_after.map(|wait| wait.as_secs()), Some(7));
        assert_eq!(error.usage.input_tokens, Some(9));
    }
}

#[test]
fn what_is_no_object_is_no_part() {
    for part in ["no JSON", "7", "[1]", "\u{fffd}"] {
        let error = take(&mut Reader::new("check it"), part).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Protocol, "{part}");
    }
    for part in ["", " ", "[DONE]"] {
        assert_eq!(take(&mut Reader::new("check it"), part), Ok(None));
    }
}
