//! Reads the parts of a streamed answer: what to pass on, when it is complete, when it broke; pure.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use inferq_common::{error::ErrorClass, usage::Usage};

use super::{classify, convert::Found, wire::WireError};
use crate::{
    choices::Choices,
    error::{VendorError, shorten},
    framing::Frame,
    remote::Follow,
};

/// Follows one stream of `streamGenerateContent`, as events or as the elements of a list.
///
/// There is no terminator: the answer is complete when its candidates have said why they ended, and over
/// when the connection is. Usage is cumulative: the last one counts.
#[derive(Debug)]
pub(crate) struct Reader {
    /// What a person can do about a refused credential.
    advice: &'static str,
    usage: Usage,
    request_id: Option<String>,
    candidates: Choices,
    is_blocked: bool,
    is_over: bool,
}

impl Reader {
    pub(crate) fn new(advice: &'static str) -> Self {
        Self {
            advice,
            usage: Usage::default(),
            request_id: None,
            candidates: Choices::default(),
            is_blocked: false,
            is_over: false,
        }
    }

    fn with_usage(&self, error: VendorError) -> VendorError {
        VendorError { usage: self.usage, ..error }
    }

    /// The error of a part that is no object, which may be an error in a list.
    fn no_object(&self, part: &[u8], now: DateTime<Utc>) -> VendorError {
        let document = serde_json::from_slice(part).unwrap_or_default();
        if WireError::of(&document).is_some() {
            return self.with_usage(classify::in_stream(&document, self.advice, now));
        }
        let text = shorten(&String::from_utf8_lossy(part), 200);
        let message = format!("a part of the vendor's stream is not a JSON object: {text}");
        self.with_usage(VendorError::new(ErrorClass::Protocol, message))
    }
}

impl Follow for Reader {
    fn take(&mut self, frame: Frame, now: DateTime<Utc>) -> Result<Option<Bytes>, VendorError> {
        let part = frame.data;
        // Gateways end with OpenAI's terminator at times.
        if part.trim_ascii().is_empty() || part.trim_ascii() == b"[DONE]" {
            return Ok(None);
        }
        let text = std::str::from_utf8(&part).ok();
        let found = text.and_then(|text| Found::of(text, &mut self.candidates).ok());
        let Some(found) = found else {
            return Err(self.no_object(&part, now));
        };
        if !found.usage.is_empty() {
            self.usage = found.usage;
        }
        if found.is_error {
            let document = serde_json::from_slice(&part).unwrap_or_default();
            return Err(self.with_usage(classify::in_stream(&document, self.advice, now)));
        }
        self.request_id = found.request_id.or(self.request_id.take());
        self.is_blocked |= found.is_blocked;
        Ok(Some(part))
    }

    fn is_over(&self) -> bool {
        self.is_over
    }

    fn end(&mut self) -> Result<(), VendorError> {
        self.is_over = true;
        if self.is_blocked || self.candidates.have_ended() {
            return Ok(());
        }
        let message = "the vendor's stream ended before the answer was complete";
        Err(self.with_usage(VendorError::new(ErrorClass::Transient, message)))
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn request_id(&self) -> Option<String> {
        self.request_id.clone()
    }
}

#[cfg(test)]
mod tests;
