//! Reads the events of a streamed message: what to pass on, when it is over, when it broke; pure.
//!
//! Source: <https://platform.claude.com/docs/en/build-with-claude/streaming>.

use std::mem;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use inferq_common::{
    error::ErrorClass,
    members::{NotAnObject, each_member},
    usage::Usage,
};
use serde_json::Value;

use super::{
    classify,
    convert::read_usage,
    wire::{Counts, WireError},
};
use crate::{
    error::{VendorError, shorten},
    framing::Frame,
    remote::Follow,
};

/// Follows one stream. The data of its frames are the events' JSON, however they were framed.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    counts: Counts,
    is_over: bool,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self::default()
    }
}

impl Follow for Reader {
    fn take(&mut self, frame: Frame, now: DateTime<Utc>) -> Result<Option<Bytes>, VendorError> {
        let event = frame.data;
        // Gateways that also speak other formats end every stream with `[DONE]`.
        if matches!(event.trim_ascii(), b"" | b"[DONE]") {
            return Ok(None);
        }
        let text = std::str::from_utf8(&event).map_err(|_| self.not_an_event(&event))?;
        match self.read(text) {
            Ok(None) => Ok(Some(event)),
            Ok(Some(wire)) => {
                Err(VendorError { usage: self.usage(), ..classify::in_stream(wire, now) })
            }
            Err(NotAnObject) => Err(self.not_an_event(&event)),
        }
    }

    fn is_over(&self) -> bool {
        self.is_over
    }

    fn end(&mut self) -> Result<(), VendorError> {
        if mem::replace(&mut self.is_over, true) {
            return Ok(());
        }
        let message = "the vendor's stream ended before the answer was complete";
        Err(VendorError { usage: self.usage(), ..VendorError::new(ErrorClass::Transient, message) })
    }

    fn usage(&self) -> Usage {
        self.counts.usage()
    }
}

impl Reader {
    /// Takes note of what an event says and answers with its error, if it is one.
    fn read(&mut self, event: &str) -> Result<Option<WireError>, NotAnObject> {
        let (mut kind, mut message, mut usage) = ("", None, None);
        each_member(event, |member| match member.key.as_ref() {
            "type" => kind = member.value,
            "message" => message = Some(member.value),
            "usage" => usage = Some(member.value),
            _ => {}
        })?;
        match kind.trim_matches('"') {
            // Its usage tells what was read, before a word is written.
            "message_start" => self.update(message.and_then(usage_of)),
            "message_delta" => self.update(usage),
            "message_stop" => self.is_over = true,
            "error" => {
                let document: Value = serde_json::from_str(event).unwrap_or_default();
                return Ok(Some(WireError::of(&document).unwrap_or_default()));
            }
            _ => {}
        }
        Ok(None)
    }

    fn update(&mut self, usage: Option<&str>) {
        if let Some(usage) = usage.and_then(read_usage) {
            self.counts.update(&usage);
        }
    }

    fn not_an_event(&self, event: &[u8]) -> VendorError {
        let text = shorten(&String::from_utf8_lossy(event), 200);
        let message = format!("an event of the vendor's stream is not a JSON object: {text}");
        VendorError { usage: self.usage(), ..VendorError::new(ErrorClass::Protocol, message) }
    }
}

/// The `usage` of a message, where it has one.
fn usage_of(message: &str) -> Option<&str> {
    let mut usage = None;
    let read = each_member(message, |member| {
        if member.key == "usage" {
            usage = Some(member.value);
        }
    });
    read.ok().and(usage)
}

#[cfg(test)]
mod tests;
