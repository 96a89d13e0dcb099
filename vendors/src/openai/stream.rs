//! Reads the events of a streamed answer: what to pass on, when it is over, when it broke; pure.

use std::mem;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use inferq_common::{error::ErrorClass, job::Route, members::each_member, usage::Usage};
use serde_json::Value;

use super::{Flavor, classify, convert::read_usage, wire::WireError};
use crate::{
    choices::Choices,
    error::{VendorError, shorten},
    framing::Frame,
    remote::Follow,
};

/// Follows one stream.
#[derive(Debug)]
pub(crate) struct Reader {
    flavor: &'static Flavor,
    route: Route,
    usage: Usage,
    choices: Choices,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// More must come.
    Open,
    /// Every word of the answer is there; only usage and the terminator are missing.
    Answered,
    /// The terminator has come.
    Over,
}

impl Reader {
    pub(crate) fn new(flavor: &'static Flavor, route: Route) -> Self {
        let (usage, choices) = (Usage::default(), Choices::default());
        Self { flavor, route, usage, choices, state: State::Open }
    }
}

impl Follow for Reader {
    fn take(&mut self, frame: Frame, now: DateTime<Utc>) -> Result<Option<Bytes>, VendorError> {
        let event = frame.data;
        if event.trim_ascii() == b"[DONE]" {
            self.state = State::Over;
            return Ok(None);
        }
        if event.trim_ascii().is_empty() {
            return Ok(None);
        }
        let read = match self.route {
            Route::Responses => self.response_event(&event),
            _ => self.chat_chunk(&event),
        };
        match read {
            Ok(None) => Ok(Some(event)),
            Ok(Some(wire)) => Err(VendorError {
                usage: self.usage,
                ..classify::in_stream(self.flavor, &wire, now)
            }),
            Err(NotAChunk) => Err(self.not_a_chunk(&event)),
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
            return Err(self.cut());
        }
        Ok(())
    }
}

impl Reader {
    fn cut(&self) -> VendorError {
        let message = "the vendor's stream ended before the answer was complete";
        VendorError { usage: self.usage, ..VendorError::new(ErrorClass::Transient, message) }
    }

    fn not_a_chunk(&self, event: &[u8]) -> VendorError {
        let text = shorten(&String::from_utf8_lossy(event), 200);
        let message = format!("an event of the vendor's stream is not a JSON object: {text}");
        VendorError { usage: self.usage, ..VendorError::new(ErrorClass::Protocol, message) }
    }

    /// A chunk of a chat completion or a completion.
    fn chat_chunk(&mut self, event: &[u8]) -> Result<Option<WireError>, NotAChunk> {
        let text = std::str::from_utf8(event).map_err(|_| NotAChunk)?;
        let mut error = false;
        each_member(text, |member| match member.key.as_ref() {
            _ if member.is_null() => {}
            "usage" => self.usage = read_usage(self.flavor, self.route, Some(member.value)),
            "error" => error = true,
            "object" => error |= member.value == r#""error""#,
            "choices" => self.choices.take(member.value, "finish_reason", is_reason),
            _ => {}
        })
        .map_err(|_| NotAChunk)?;
        if error {
            return Ok(Some(error_in(text)));
        }
        self.state = if self.choices.have_ended() { State::Answered } else { State::Open };
        Ok(None)
    }

    /// An event of the Responses API; its `type` repeats the event's name.
    fn response_event(&mut self, event: &[u8]) -> Result<Option<WireError>, NotAChunk> {
        let text = std::str::from_utf8(event).map_err(|_| NotAChunk)?;
        let (mut kind, mut response) = ("", None);
        each_member(text, |member| match member.key.as_ref() {
            "type" => kind = member.value,
            "response" => response = Some(member.value),
            _ => {}
        })
        .map_err(|_| NotAChunk)?;
        match kind.trim_matches('"') {
            "response.completed" | "response.incomplete" => {
                self.usage = response_usage(self.flavor, response);
                self.state = State::Over;
                Ok(None)
            }
            "response.failed" => {
                self.usage = response_usage(self.flavor, response);
                Ok(Some(error_in(response.unwrap_or(text))))
            }
            "error" => Ok(Some(error_in(text))),
            _ => Ok(None),
        }
    }
}

/// The event is no JSON object.
struct NotAChunk;

/// The error of an event: under `error`, or the event itself.
fn error_in(text: &str) -> WireError {
    let document: Value = serde_json::from_str(text).unwrap_or_default();
    match document.get("error") {
        Some(Value::Object(_)) | None => {
            WireError::of_object(document.get("error").unwrap_or(&document))
        }
        Some(_) => WireError::of(&document).unwrap_or_default(),
    }
}

fn response_usage(flavor: &Flavor, response: Option<&str>) -> Usage {
    let mut usage = Usage::default();
    let found = each_member(response.unwrap_or_default(), |member| {
        if member.key == "usage" {
            usage = read_usage(flavor, Route::Responses, Some(member.value));
        }
    });
    found.map(|()| usage).unwrap_or_default()
}

/// Whether this is a reason to end; self-hosted servers leave it empty at times.
fn is_reason(value: &str) -> bool {
    !matches!(value, "null" | r#""""#)
}

#[cfg(test)]
mod tests;
