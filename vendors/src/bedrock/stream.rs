//! Reads the messages of a streamed answer: what to pass on, when it is over, when it broke; pure.
//!
//! Sources: <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html>,
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html>.

use std::mem;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use inferq_common::{
    error::ErrorClass,
    job::Route,
    members::{Member, NotAnObject, each_member},
    usage::Usage,
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{classify, wire};
use crate::{
    error::{VendorError, shorten},
    framing::Frame,
    remote::Follow,
};

/// Follows one stream of Converse or InvokeModel.
///
/// Of Converse it passes on `{"TYPE": PAYLOAD}` for each event, the payload as it is spelt; of
/// InvokeModel the JSON that the model's vendor wrote.
#[derive(Debug)]
pub(super) struct Reader {
    is_converse: bool,
    usage: Usage,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// More must come.
    Open,
    /// Every word of the answer is there; only usage is missing.
    Answered,
    Over,
}

impl Reader {
    pub(super) fn new(route: Route) -> Self {
        let is_converse = route == Route::Converse;
        Self { is_converse, usage: Usage::default(), state: State::Open }
    }
}

impl Follow for Reader {
    fn take(&mut self, frame: Frame, now: DateTime<Utc>) -> Result<Option<Bytes>, VendorError> {
        match frame.header(":message-type") {
            Some("event") => {}
            Some("exception") => {
                let kind = frame.header(":exception-type").unwrap_or_default();
                let payload = String::from_utf8_lossy(&frame.data);
                return Err(self.failed(classify::exception(kind, &payload, now)));
            }
            Some("error") => {
                let code = frame.header(":error-code").unwrap_or_default();
                let words = frame.header(":error-message").unwrap_or_default();
                return Err(self.failed(classify::in_stream(code, words, now)));
            }
            _ => return Err(self.strange("has no type that is known", &frame.data)),
        }
        let kind = frame.header(":event-type").unwrap_or_default();
        if self.is_converse {
            self.event(kind, &frame.data).map(Some)
        } else if kind == "chunk" {
            self.chunk(&frame.data, now).map(Some)
        } else {
            // Kinds of events may be added; a model's words come in no other.
            Ok(None)
        }
    }

    fn is_over(&self) -> bool {
        self.state == State::Over
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn end(&mut self) -> Result<(), VendorError> {
        if mem::replace(&mut self.state, State::Over) == State::Open {
            let message = "the vendor's stream ended before the answer was complete";
            return Err(self.failed(VendorError::new(ErrorClass::Transient, message)));
        }
        Ok(())
    }
}

impl Reader {
    fn failed(&self, error: VendorError) -> VendorError {
        VendorError { usage: self.usage, ..error }
    }

    fn strange(&self, how: &str, payload: &[u8]) -> VendorError {
        let text = shorten(&String::from_utf8_lossy(payload), 200);
        let message = format!("a message of the vendor's stream {how}: {text}");
        self.failed(VendorError::new(ErrorClass::Protocol, message))
    }

    /// An event of Converse; the last is `metadata`, after `messageStop`.
    fn event(&mut self, kind: &str, payload: &[u8]) -> Result<Bytes, VendorError> {
        let mut usage = None;
        let Some(text) = object(payload, |member| {
            if member.key == "usage" {
                usage = serde_json::from_str::<Value>(member.value).ok();
            }
        }) else {
            return Err(self.strange("is not a JSON object", payload));
        };
        match (kind, self.state) {
            ("messageStop", _) => self.state = State::Answered,
            ("metadata", state) => {
                self.usage = usage.as_ref().map(wire::usage).unwrap_or_default();
                if state == State::Answered {
                    self.state = State::Over;
                }
            }
            _ => {}
        }
        let kind = serde_json::to_string(kind).expect("a text is always valid JSON");
        Ok(Bytes::from(format!("{{{kind}:{text}}}")))
    }

    /// A chunk of InvokeModel: JSON of the model's vendor, in base64.
    fn chunk(&mut self, payload: &[u8], now: DateTime<Utc>) -> Result<Bytes, VendorError> {
        let wrapped: Option<Wrapped> = serde_json::from_slice(payload).ok();
        let Some(inner) = wrapped.and_then(|wrapped| STANDARD.decode(wrapped.bytes.as_ref()).ok())
        else {
            return Err(self.strange("is not the base64 of anything", payload));
        };
        let mut seen = Seen::default();
        let Some(text) = object(&inner, |member| seen.look(&member)) else {
            return Err(self.strange("is not a JSON object", &inner));
        };
        if seen.is_error {
            return Err(self.failed(classify::of_model(text, now)));
        }
        if let Some(usage) = seen.usage {
            self.usage = usage.over(self.usage);
        }
        if seen.has_ended {
            self.state = State::Answered;
        }
        if seen.has_metrics {
            self.state = State::Over;
        }
        Ok(Bytes::from(inner))
    }
}

/// The text of an object, whose members are shown; `None` for anything else.
fn object<'a>(bytes: &'a [u8], look: impl FnMut(Member<'a>)) -> Option<&'a str> {
    let text = std::str::from_utf8(bytes).ok()?;
    match each_member(text, look) {
        Ok(()) => Some(text),
        Err(NotAnObject) => None,
    }
}

#[derive(Deserialize)]
struct Wrapped<'a> {
    #[serde(borrow)]
    bytes: std::borrow::Cow<'a, str>,
}

/// What matters of one chunk of a model's vendor.
#[derive(Default)]
struct Seen {
    is_error: bool,
    /// Each vendor has its own word for the end.
    has_ended: bool,
    /// Bedrock's own last word, in the last chunk.
    has_metrics: bool,
    usage: Option<Told>,
}

/// What a chunk tells of the usage.
#[derive(Clone, Copy)]
enum Told {
    /// Anthropic's, which may leave out what was told before.
    Part(Usage),
    /// Bedrock's, of the whole answer.
    Whole(Usage),
}

impl Told {
    fn over(self, before: Usage) -> Usage {
        match self {
            Self::Whole(usage) => usage,
            Self::Part(usage) => Usage {
                input_tokens: usage.input_tokens.or(before.input_tokens),
                cached_input_tokens: usage.cached_input_tokens.or(before.cached_input_tokens),
                cache_write_tokens: usage.cache_write_tokens.or(before.cache_write_tokens),
                output_tokens: usage.output_tokens.or(before.output_tokens),
                reasoning_tokens: usage.reasoning_tokens.or(before.reasoning_tokens),
            },
        }
    }
}

impl Seen {
    fn look(&mut self, member: &Member<'_>) {
        let value = || serde_json::from_str::<Value>(member.value).unwrap_or_default();
        match member.key.as_ref() {
            _ if member.is_null() => {}
            "amazon-bedrock-invocationMetrics" => {
                self.has_metrics = true;
                self.usage = Some(Told::Whole(wire::metrics(&value())));
            }
            "type" => {
                self.is_error |= member.value == r#""error""#;
                self.has_ended |= member.value == r#""message_stop""#;
            }
            "error" => self.is_error |= member.value.starts_with('{'),
            // Anthropic: `message_start`, and `message_delta`.
            "message" if !self.has_metrics => self.anthropic(&value()["usage"]),
            "usage" if !self.has_metrics => self.anthropic(&value()),
            // Nova.
            "messageStop" => self.has_ended = true,
            // Meta, Cohere, Titan.
            "stop_reason" | "finish_reason" | "completionReason" => {
                self.has_ended |= is_reason(member.value);
            }
            "is_finished" => self.has_ended |= member.value == "true",
            // OpenAI, AI21; Mistral.
            "choices" | "outputs" => self.has_ended |= any_ended(member.value),
            _ => {}
        }
    }

    fn anthropic(&mut self, usage: &Value) {
        let usage = wire::anthropic_usage(usage);
        if !usage.is_empty() {
            self.usage = Some(Told::Part(usage));
        }
    }
}

fn is_reason(value: &str) -> bool {
    value.starts_with('"') && value.len() > r#""""#.len()
}

fn any_ended(parts: &str) -> bool {
    let parts: Vec<&RawValue> = serde_json::from_str(parts).unwrap_or_default();
    parts.iter().any(|part| {
        let mut ended = false;
        let read = each_member(part.get(), |member| {
            ended |= matches!(member.key.as_ref(), "stop_reason" | "finish_reason")
                && is_reason(member.value);
        });
        read.is_ok() && ended
    })
}

#[cfg(test)]
mod tests;
