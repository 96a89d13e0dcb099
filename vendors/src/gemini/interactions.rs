//! Google's interactions API: the newer, stateful one; pure.
//!
//! Source: <https://ai.google.dev/api/interactions-api> and recorded answers.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::HeaderMap;
use inferq_common::{
    error::ErrorClass,
    members::{NotAnObject, each_member},
    usage::Usage,
};
use serde_json::Value;

use super::classify;
use crate::{
    error::{VendorError, shorten},
    framing::{Frame, Framing},
    json,
    remote::{Failure, Follow, Parsed},
};

/// What matters of an interaction.
#[derive(Default)]
struct Found {
    usage: Usage,
    id: Option<String>,
    /// It has failed, or is an error and no interaction.
    failed: bool,
}

impl Found {
    fn of(text: &str) -> Result<Self, NotAnObject> {
        let mut found = Self::default();
        each_member(text, |member| match member.key.as_ref() {
            _ if member.is_null() => {}
            "usage" => found.usage = usage(member.value),
            "id" => found.id = serde_json::from_str(member.value).ok(),
            "status" => found.failed |= member.value == r#""failed""#,
            "error" => found.failed = true,
            _ => {}
        })?;
        Ok(found)
    }
}

/// What a `usage` member says, with tokens of tools' results as prompt and of thoughts as answer.
fn usage(text: &str) -> Usage {
    let usage: Value = serde_json::from_str(text).unwrap_or_default();
    let count = |name| usage.get(name).and_then(Value::as_u64);
    let and =
        |own: Option<u64>, other| own.map(|own| own.saturating_add(count(other).unwrap_or(0)));
    Usage {
        input_tokens: and(count("total_input_tokens"), "total_tool_use_tokens"),
        cached_input_tokens: count("total_cached_tokens"),
        cache_write_tokens: None,
        output_tokens: and(count("total_output_tokens"), "total_thought_tokens"),
        reasoning_tokens: count("total_thought_tokens"),
    }
}

/// Reads the body of a 2xx answer.
///
/// # Errors
/// What the failure of the interaction means; `Protocol` for what is no JSON object.
pub(super) fn parse(
    headers: &HeaderMap,
    body: Vec<u8>,
    advice: &str,
    now: DateTime<Utc>,
) -> Result<Parsed, VendorError> {
    let text = json::text(headers, body)?;
    let Found { usage, id, failed } =
        Found::of(&text).map_err(|_| json::no_object(headers, &text))?;
    if failed {
        let failure = Failure { status: None, headers, body: &text };
        return Err(VendorError { usage, ..classify::error(failure, advice, now) });
    }
    Ok(Parsed { response: json::keep(text)?, usage, request_id: id })
}

/// Who reads a streamed answer; `None` if it is no stream.
pub(super) fn follow(
    headers: &HeaderMap,
    advice: &'static str,
) -> Option<(Framing, Box<dyn Follow>)> {
    let reader = || Reader { advice, usage: Usage::default(), id: None, state: State::Open };
    json::may_be_events(headers).then(|| (Framing::Events, Box::new(reader()) as Box<dyn Follow>))
}

/// Follows one stream; it ends with `interaction.completed`, then `[DONE]`.
#[derive(Debug)]
struct Reader {
    advice: &'static str,
    usage: Usage,
    id: Option<String>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// All of the answer is there; only the terminator is missing.
    Completed,
    Over,
}

impl Reader {
    /// Takes note of an event; the document that tells the error, if it is one.
    fn read(&mut self, text: &str) -> Result<Option<Value>, NotAnObject> {
        let (mut kind, mut interaction, mut has_error) = ("", None, false);
        each_member(text, |member| match member.key.as_ref() {
            "event_type" => kind = member.value.trim_matches('"'),
            "interaction" => interaction = Some(member.value),
            "error" => has_error |= !member.is_null(),
            _ => {}
        })?;
        let mut failed = has_error.then_some(text);
        if let Some(interaction) = interaction {
            let found = Found::of(interaction).unwrap_or_default();
            self.id = found.id.or(self.id.take());
            if !found.usage.is_empty() {
                self.usage = found.usage;
            }
            failed = failed.or_else(|| found.failed.then_some(interaction));
        }
        if kind == "interaction.completed" {
            self.state = State::Completed;
        }
        Ok(failed.map(|text| serde_json::from_str(text).unwrap_or_default()))
    }
}

impl Follow for Reader {
    fn take(&mut self, frame: Frame, now: DateTime<Utc>) -> Result<Option<Bytes>, VendorError> {
        let event = frame.data;
        match event.trim_ascii() {
            b"" => return Ok(None),
            b"[DONE]" => {
                self.end()?;
                return Ok(None);
            }
            _ => {}
        }
        let read = std::str::from_utf8(&event).map_err(|_| NotAnObject);
        match read.and_then(|text| self.read(text)) {
            Ok(None) => Ok(Some(event)),
            Ok(Some(document)) => {
                let error = classify::in_stream(&document, self.advice, now);
                Err(VendorError { usage: self.usage, ..error })
            }
            Err(NotAnObject) => {
                let text = shorten(&String::from_utf8_lossy(&event), 200);
                let message =
                    format!("an event of the vendor's stream is not a JSON object: {text}");
                Err(VendorError {
                    usage: self.usage,
                    ..VendorError::new(ErrorClass::Protocol, message)
                })
            }
        }
    }

    fn is_over(&self) -> bool {
        self.state == State::Over
    }

    fn end(&mut self) -> Result<(), VendorError> {
        if std::mem::replace(&mut self.state, State::Over) == State::Open {
            let message = "the vendor's stream ended before the answer was complete";
            let error = VendorError::new(ErrorClass::Transient, message);
            return Err(VendorError { usage: self.usage, ..error });
        }
        Ok(())
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn request_id(&self) -> Option<String> {
        self.id.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noon() -> DateTime<Utc> {
        "2026-11-20T12:00:00Z".parse().unwrap()
    }

    const DONE: &str = r#"{"id":"v1_a","status":"completed","usage":{"total_input_tokens":9,
        "total_output_tokens":13,"total_thought_tokens":189,"total_cached_tokens":0,
        "total_tool_use_tokens":1}}"#;

    #[test]
    fn an_interaction_comes_back_with_its_usage() {
        let parsed = parse(&HeaderMap::new(), DONE.into(), "check it", noon()).unwrap();
        assert_eq!(parsed.response.as_str(), DONE);
        assert_eq!(parsed.request_id.as_deref(), Some("v1_a"));
        assert_eq!((parsed.usage.input_tokens, parsed.usage.output_tokens), (Some(10), Some(202)));
    }

    #[test]
    fn a_failed_interaction_is_an_error() {
        for (body, expected) in [
            (r#"{"status":"failed"}"#, ErrorClass::Transient),
            (r#"{"error":{"message":"no","code":"too_many_requests"}}"#, ErrorClass::RateLimited),
            ("[]", ErrorClass::Protocol),
        ] {
            let error = parse(&HeaderMap::new(), body.into(), "check it", noon()).unwrap_err();
            assert_eq!(error.class(), expected, "{body}");
        }
    }

    fn take(reader: &mut dyn Follow, event: &str) -> Result<bool, VendorError> {
        let frame = Frame::from(Bytes::copy_from_slice(event.as_bytes()));
        reader.take(frame, noon()).map(|passed_on| passed_on.is_some())
    }

    #[test]
    fn a_stream_is_over_after_its_terminator() {
        let (_, mut reader) = follow(&HeaderMap::new(), "check it").unwrap();
        let completed = format!(r#"{{"event_type":"interaction.completed","interaction":{DONE}}}"#);
        assert_eq!(take(reader.as_mut(), r#"{"event_type":"step.start"}"#), Ok(true));
        assert_eq!(take(reader.as_mut(), &completed), Ok(true));
        assert!(!reader.is_over());
        assert_eq!(take(reader.as_mut(), "[DONE]"), Ok(false));
        assert!(reader.is_over());
        assert_eq!(reader.usage().input_tokens, Some(10));
        assert_eq!(reader.request_id().as_deref(), Some("v1_a"));
    }

    #[test]
    fn a_stream_that_breaks_off_or_fails_is_no_answer() {
        for (events, expected) in [
            (vec![r#"{"event_type":"step.start"}"#, "[DONE]"], ErrorClass::Transient),
            (
                vec![r#"{"event_type":"error","error":{"code":"too_many_requests"}}"#],
                ErrorClass::RateLimited,
            ),
            (vec![r#"{"interaction":{"status":"failed"}}"#], ErrorClass::Transient),
            (vec!["no JSON"], ErrorClass::Protocol),
        ] {
            let (_, mut reader) = follow(&HeaderMap::new(), "check it").unwrap();
            let taken = events.iter().map(|event| take(reader.as_mut(), event)).last().unwrap();
            assert_eq!(taken.unwrap_err().class(), expected, "{events:?}");
        }
        let (_, mut reader) = follow(&HeaderMap::new(), "check it").unwrap();
        assert_eq!(reader.end().unwrap_err().class(), ErrorClass::Transient);
    }
}
