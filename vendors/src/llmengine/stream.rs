//! Reads the events of a streamed answer; pure.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use inferq_common::{error::ErrorClass, job::Route, usage::Usage};

use super::{classify, wire};
use crate::{
    error::{VendorError, shorten},
    framing::Frame,
    openai,
    remote::Follow,
};

/// Follows one stream, of either surface.
#[derive(Debug)]
pub(super) struct Reader {
    /// Of the OpenAI-shaped surface.
    openai: Option<openai::Reader>,
    finished: bool,
    usage: Usage,
    request_id: Option<String>,
}

impl Reader {
    pub(super) fn new(route: Route) -> Self {
        let openai =
            (route != Route::CompletionsSync).then(|| openai::Reader::new(&openai::OPENAI, route));
        Self { openai, finished: false, usage: Usage::default(), request_id: None }
    }

    /// An event of its own completions.
    fn own(&mut self, event: wire::Event) -> Result<(), VendorError> {
        if let Some(error) = event.error {
            return Err(VendorError { usage: self.usage, ..classify::in_stream(&error) });
        }
        self.request_id = event.request_id.or(self.request_id.take());
        if let Some(output) = event.output {
            let (input, completion) = (output.num_prompt_tokens, output.num_completion_tokens);
            self.usage.input_tokens = input.or(self.usage.input_tokens);
            self.usage.output_tokens = completion.or(self.usage.output_tokens);
            self.finished |= output.finished;
        }
        Ok(())
    }
}

impl Follow for Reader {
    fn take(&mut self, frame: Frame, now: DateTime<Utc>) -> Result<Option<Bytes>, VendorError> {
        let text = frame.data.trim_ascii();
        if text.is_empty() {
            return Ok(None);
        }
        let event = serde_json::from_slice::<wire::Event>(text);
        if let Some(openai) = &mut self.openai {
            // Its own shape of error, which OpenAI's chunks never have.
            if let Ok(wire::Event { error: Some(error), .. }) = event {
                return Err(VendorError { usage: openai.usage(), ..classify::in_stream(&error) });
            }
            return openai.take(frame, now);
        }
        if text == b"[DONE]" {
            return Ok(None);
        }
        let Ok(event) = event else {
            let text = shorten(&String::from_utf8_lossy(text), 200);
            let message = format!("an event of the vendor's stream cannot be read: {text}");
            let error = VendorError::new(ErrorClass::Protocol, message);
            return Err(VendorError { usage: self.usage, ..error });
        };
        self.own(event)?;
        Ok(Some(frame.data))
    }

    fn is_over(&self) -> bool {
        self.openai.as_ref().map_or(self.finished, Follow::is_over)
    }

    fn end(&mut self) -> Result<(), VendorError> {
        match &mut self.openai {
            Some(openai) => openai.end(),
            None if self.finished => Ok(()),
            None => {
                self.finished = true;
                let message = "the vendor's stream ended before the answer was complete";
                let cut = VendorError::new(ErrorClass::Transient, message);
                Err(VendorError { usage: self.usage, ..cut })
            }
        }
    }

    fn usage(&self) -> Usage {
        self.openai.as_ref().map_or(self.usage, Follow::usage)
    }

    fn request_id(&self) -> Option<String> {
        self.request_id.clone()
    }
}
