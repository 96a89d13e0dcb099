//! Streams an answer: reads the socket, decodes the events, hands on what the reader lets through.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::StreamExt as _;
use inferq_common::{clock::Clock, error::ErrorClass};
use tokio::time::timeout;

use super::{Labels, stream::Reader};
use crate::{
    Chunk, Chunks,
    error::VendorError,
    http::Body,
    sse::{Decoder, Event},
};

/// After the terminator the connection is read to its end for this long, so that it can be used
/// again.
const DRAIN: Duration = Duration::from_millis(250);

/// A stream under way.
pub(super) struct Streaming {
    pub source: Source,
    pub decoder: Decoder,
    pub events: VecDeque<Event>,
    pub reader: Reader,
    /// The longest silence.
    pub idle_timeout: Duration,
    pub labels: Labels,
    pub clock: Arc<dyn Clock>,
}

/// Where further events come from.
pub(super) enum Source {
    Body(Body),
    /// The body has ended; what is queued is the rest.
    Ended,
    /// Reading has failed; the error follows what is queued.
    Broken(VendorError),
    /// The last chunk has been handed out.
    Done,
}

impl Streaming {
    pub(super) fn chunks(self) -> Chunks {
        let steps = |mut streaming: Self| async move {
            let item = streaming.next().await?;
            Some((item, streaming))
        };
        futures::stream::unfold(self, steps).boxed()
    }

    async fn next(&mut self) -> Option<Result<Chunk, VendorError>> {
        loop {
            if self.reader.is_over() {
                return self.finish().await;
            }
            if let Some(event) = self.events.pop_front() {
                match self.take(event) {
                    Ok(Some(data)) => return Some(Ok(Chunk::Data(data))),
                    Ok(None) => {}
                    Err(error) => return Some(Err(self.fail(error))),
                }
            } else if let Err(error) = self.read().await {
                return Some(Err(self.fail(error)));
            } else if matches!(self.source, Source::Done) {
                return None;
            }
        }
    }

    fn take(&mut self, event: Event) -> Result<Option<Event>, VendorError> {
        let is_last = self.events.is_empty() && matches!(self.source, Source::Ended);
        let taken = self.reader.take(event, self.clock.now());
        match taken {
            // Half an event, where the connection ended, is no strange event.
            Err(error) if is_last && error.class() == ErrorClass::Protocol => {
                self.reader.end().map(|()| None)
            }
            taken => taken,
        }
    }

    /// Waits for more to happen on the socket.
    async fn read(&mut self) -> Result<(), VendorError> {
        let body = match &mut self.source {
            Source::Body(body) => body,
            Source::Ended => return self.reader.end(),
            Source::Broken(error) => {
                let error = error.clone();
                // A complete answer stays one, however the connection ended.
                return self.reader.end().map_err(|_| error);
            }
            Source::Done => return Ok(()),
        };
        match timeout(self.idle_timeout, body.next()).await {
            Ok(Ok(Some(bytes))) => {
                if let Err(error) = self.decoder.push(&bytes, &mut self.events) {
                    let class = ErrorClass::ResponseTooLarge;
                    self.source = Source::Broken(VendorError::new(class, error.to_string()));
                }
            }
            Ok(Ok(None)) => {
                self.events.extend(self.decoder.finish());
                self.source = Source::Ended;
            }
            Ok(Err(error)) => self.source = Source::Broken(error),
            Err(_) => {
                let silence = self.idle_timeout;
                let message = format!("the vendor's stream was silent for {silence:?}");
                self.source = Source::Broken(VendorError::new(ErrorClass::Transient, message));
            }
        }
        Ok(())
    }

    fn fail(&mut self, error: VendorError) -> VendorError {
        self.source = Source::Done;
        let usage = self.reader.usage();
        self.labels.add_to(VendorError { usage, ..error })
    }

    async fn finish(&mut self) -> Option<Result<Chunk, VendorError>> {
        self.events.clear();
        match std::mem::replace(&mut self.source, Source::Done) {
            Source::Done => None,
            source => {
                if let Source::Body(body) = source {
                    drain(body).await;
                }
                Some(Ok(Chunk::End {
                    usage: self.reader.usage(),
                    vendor_request_id: self.labels.request_id.clone(),
                }))
            }
        }
    }
}

/// Lets the connection come to its end, which is nearly always there already.
async fn drain(mut body: Body) {
    let _ = timeout(DRAIN, async { while let Ok(Some(_)) = body.next().await {} }).await;
}
