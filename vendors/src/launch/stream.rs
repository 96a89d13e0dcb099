//! Reads the events of a streamed task; pure.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::HeaderMap;
use inferq_common::{error::ErrorClass, usage::Usage};

use super::{Face, convert, wire::Status};
use crate::{error::VendorError, framing::Frame, remote::Follow};

/// Follows one stream. Launch has no terminator: a connection that ends in order is the end of the
/// answer, if there was any.
#[derive(Debug)]
pub(super) struct Reader {
    face: Face,
    began: bool,
    over: bool,
}

impl Reader {
    pub(super) fn new(face: Face) -> Self {
        Self { face, began: false, over: false }
    }
}

impl Follow for Reader {
    fn take(&mut self, frame: Frame, now: DateTime<Utc>) -> Result<Option<Bytes>, VendorError> {
        let data = frame.data.trim_ascii();
        if data.is_empty() {
            return Ok(None);
        }
        if data == b"[DONE]" {
            self.over = true;
            return Ok(None);
        }
        self.began = true;
        let text = String::from_utf8_lossy(data);
        if let Some(error) = convert::in_stream(self.face, &text, now) {
            return Err(error);
        }
        if self.face == Face::Gateway {
            let task = convert::read(&HeaderMap::new(), &text)
                .map_err(|error| VendorError::new(ErrorClass::Protocol, error.error.message))?;
            if task.status == Status::Failure {
                return Err(convert::failed(&task));
            }
        }
        Ok(Some(frame.data))
    }

    fn is_over(&self) -> bool {
        self.over
    }

    fn end(&mut self) -> Result<(), VendorError> {
        self.over = true;
        if self.began {
            return Ok(());
        }
        let message = "the vendor's stream ended before it began";
        Err(VendorError::new(ErrorClass::Transient, message))
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }
}
