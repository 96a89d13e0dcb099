//! Reads the events of a streamed chat: what to pass on, when it is over, when it broke; pure.
//!
//! Source: <https://docs.cohere.com/docs/streaming>.

use std::mem;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::HeaderMap;
use inferq_common::{
    error::ErrorClass,
    members::{NotAnObject, each_member},
    usage::Usage,
};
use serde_json::Value;

use super::{
    classify,
    wire::{self, WireError},
};
use crate::{
    error::{VendorError, shorten},
    framing::Frame,
    remote::Follow,
};

/// Follows one stream.
#[derive(Debug)]
pub(super) struct Reader {
    usage: Usage,
    id: Option<String>,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// More must come.
    Open,
    /// The answer is there; only the terminator is missing.
    Answered,
    /// The terminator has come.
    Over,
}

/// What an event is to the stream.
enum Event {
    Part,
    Failed(Box<VendorError>),
}

impl Reader {
    /// A reader of the stream with this head.
    pub(super) fn new(headers: &HeaderMap) -> Self {
        Self { usage: Usage::default(), id: wire::trace_id(headers), state: State::Open }
    }
}

impl Follow for Reader {
    fn take(&mut self, frame: Frame, now: DateTime<Utc>) -> Result<Option<Bytes>, VendorError> {
        let event = frame.data;
        match event.trim_ascii() {
            b"" => return Ok(None),
            b"[DONE]" => return self.end().map(|()| None),
            _ => {}
        }
        let text = std::str::from_utf8(&event).map_err(|_| self.not_an_event(&event))?;
        match self.read(text, now) {
            Ok(Event::Part) => Ok(Some(event)),
            Ok(Event::Failed(error)) => Err(self.labelled(*error)),
            Err(NotAnObject) => Err(self.not_an_event(&event)),
        }
    }

    fn is_over(&self) -> bool {
        self.state == State::Over
    }

    fn end(&mut self) -> Result<(), VendorError> {
        if mem::replace(&mut self.state, State::Over) == State::Open {
            let message = "the vendor's stream ended before the answer was complete";
            return Err(self.labelled(VendorError::new(ErrorClass::Transient, message)));
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

impl Reader {
    fn read(&mut self, event: &str, now: DateTime<Utc>) -> Result<Event, NotAnObject> {
        let (mut kind, mut id, mut delta, mut complains) = ("", None, None, false);
        each_member(event, |member| match member.key.as_ref() {
            "type" => kind = member.value,
            "id" => id = Some(member.value),
            "delta" => delta = Some(member.value),
            "message" | "error" => complains |= !member.is_null(),
            _ => {}
        })?;
        match kind.trim_matches('"') {
            "message-start" => {
                let id = id.and_then(|id| serde_json::from_str::<String>(id).ok());
                self.id = id.filter(|id| !id.is_empty()).or(self.id.take());
            }
            "message-end" => return Ok(self.message_end(delta, now)),
            "" | "error" if complains => {
                let document: Value = serde_json::from_str(event).unwrap_or_default();
                let wire = WireError::of(&document).unwrap_or_default();
                return Ok(Event::Failed(Box::new(classify::in_stream(wire, now))));
            }
            _ => {}
        }
        Ok(Event::Part)
    }

    /// The last event: how it ended and what it took.
    fn message_end(&mut self, delta: Option<&str>, now: DateTime<Utc>) -> Event {
        let (mut reason, mut error) = (None, None);
        // An end that says nothing is one all the same.
        let _ = each_member(delta.unwrap_or("{}"), |member| match member.key.as_ref() {
            "usage" => self.usage = wire::usage(member.value),
            "finish_reason" => reason = serde_json::from_str::<String>(member.value).ok(),
            "error" => error = serde_json::from_str::<String>(member.value).ok(),
            _ => {}
        });
        if let Some(reason) = reason.as_deref().filter(|reason| classify::is_failure(reason)) {
            return Event::Failed(Box::new(classify::gave_up(reason, error.as_deref(), now)));
        }
        self.state = State::Answered;
        Event::Part
    }

    /// The error with what is known of the stream.
    fn labelled(&self, mut error: VendorError) -> VendorError {
        error.usage = self.usage;
        if error.error.vendor_request_id.is_none() {
            error.error.vendor_request_id.clone_from(&self.id);
        }
        error
    }

    fn not_an_event(&self, event: &[u8]) -> VendorError {
        let text = shorten(&String::from_utf8_lossy(event), 200);
        let message = format!("an event of the vendor's stream is not a JSON object: {text}");
        self.labelled(VendorError::new(ErrorClass::Protocol, message))
    }
}

#[cfg(test)]
mod tests;
