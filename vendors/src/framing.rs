//! How the parts of a streamed answer are told apart.

#[cfg(test)]
pub(crate) mod splits;

use std::collections::VecDeque;

use bytes::Bytes;
use inferq_common::error::ErrorClass;

use crate::{elements, error::VendorError, eventstream, sse};

/// One part of a stream as the vendor framed it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frame {
    /// The text headers of a frame that has headers.
    pub headers: Vec<(String, String)>,
    pub data: Bytes,
}

impl Frame {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

impl From<Bytes> for Frame {
    fn from(data: Bytes) -> Self {
        Self { headers: Vec::new(), data }
    }
}

/// The ways streams are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Events,
    /// The elements of one JSON list.
    Elements,
    /// AWS's binary messages, `application/vnd.amazon.eventstream`.
    EventStream,
}

impl Framing {
    /// A decoder that holds at most `max_frame_bytes` of an unfinished frame.
    pub fn decoder(self, max_frame_bytes: usize) -> Box<dyn Decode> {
        match self {
            Self::Events => Box::new(sse::Decoder::new(max_frame_bytes)),
            Self::Elements => Box::new(elements::Decoder::new(max_frame_bytes)),
            Self::EventStream => Box::new(eventstream::Decoder::new(max_frame_bytes)),
        }
    }
}

/// Takes bytes in whatever pieces they come and finds the frames in them.
pub trait Decode: std::fmt::Debug + Send {
    /// Takes the next bytes and adds the frames that end in them to `frames`.
    ///
    /// # Errors
    /// `ResponseTooLarge` for a frame larger than allowed, `Transient` for one that arrived broken;
    /// the frames before it are in `frames`. The decoder must not be used any further then.
    fn push(&mut self, bytes: &[u8], frames: &mut VecDeque<Frame>) -> Result<(), VendorError>;

    /// The bytes have ended: adds what they ended in. Nothing may be pushed after it.
    ///
    /// # Errors
    /// `Transient` where they end in the middle of a frame and such an end is noticed.
    fn finish(&mut self, frames: &mut VecDeque<Frame>) -> Result<(), VendorError>;
}

impl Decode for sse::Decoder {
    fn push(&mut self, bytes: &[u8], frames: &mut VecDeque<Frame>) -> Result<(), VendorError> {
        let mut into = Frames(frames);
        Self::push(self, bytes, &mut into)
            .map_err(|error| VendorError::new(ErrorClass::ResponseTooLarge, error.to_string()))
    }

    fn finish(&mut self, frames: &mut VecDeque<Frame>) -> Result<(), VendorError> {
        frames.extend(Self::finish(self).map(Frame::from));
        Ok(())
    }
}

struct Frames<'a>(&'a mut VecDeque<Frame>);

impl Extend<sse::Event> for Frames<'_> {
    fn extend<I: IntoIterator<Item = sse::Event>>(&mut self, events: I) {
        self.0.extend(events.into_iter().map(Frame::from));
    }
}
