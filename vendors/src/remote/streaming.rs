//! Streams an answer: reads the socket, decodes the frames, hands on what is let through.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt as _;
use inferq_common::{clock::Clock, error::ErrorClass};
use tokio::time::timeout;

use super::{Follow, Labels, http::Body};
use crate::{
    Chunk, Chunks,
    error::VendorError,
    framing::{Decode, Frame},
};

/// After the terminator the connection is read to its end for this long, so that it can be used
/// again.
const DRAIN: Duration = Duration::from_millis(250);

/// A stream under way.
pub(super) struct Streaming {
    source: Source,
    decoder: Box<dyn Decode>,
    frames: VecDeque<Frame>,
    follow: Box<dyn Follow>,
    /// The longest silence.
    idle_timeout: Duration,
    labels: Labels,
    clock: Arc<dyn Clock>,
}

/// Where further frames come from.
enum Source {
    Body(Body),
    /// The body has ended; what is queued is the rest.
    Ended,
    /// Reading has failed; the error follows what is queued.
    Broken(VendorError),
    /// The last chunk has been handed out.
    Done,
}

impl Streaming {
    pub(super) fn new(
        body: Body,
        decoder: Box<dyn Decode>,
        follow: Box<dyn Follow>,
        idle_timeout: Duration,
        labels: Labels,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (source, frames) = (Source::Body(body), VecDeque::new());
        Self { source, decoder, frames, follow, idle_timeout, labels, clock }
    }

    pub(super) fn chunks(self) -> Chunks {
        let steps = |mut streaming: Self| async move {
            let item = streaming.next().await?;
            Some((item, streaming))
        };
        futures::stream::unfold(self, steps).boxed()
    }

    async fn next(&mut self) -> Option<Result<Chunk, VendorError>> {
        loop {
            if self.follow.is_over() {
                return self.finish().await;
            }
            if let Some(frame) = self.frames.pop_front() {
                match self.take(frame) {
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

    fn take(&mut self, frame: Frame) -> Result<Option<Bytes>, VendorError> {
        let is_last = self.frames.is_empty() && matches!(self.source, Source::Ended);
        let taken = self.follow.take(frame, self.clock.now());
        match taken {
            // Half a frame, where the connection ended, is no strange frame.
            Err(error) if is_last && error.class() == ErrorClass::Protocol => {
                self.follow.end().map(|()| None)
            }
            taken => taken,
        }
    }

    /// Waits for more to happen on the socket.
    async fn read(&mut self) -> Result<(), VendorError> {
        let body = match &mut self.source {
            Source::Body(body) => body,
            Source::Ended => return self.follow.end(),
            Source::Broken(error) => {
                let error = error.clone();
                // A complete answer stays one, however the connection ended.
                return self.follow.end().map_err(|_| error);
            }
            Source::Done => return Ok(()),
        };
        match timeout(self.idle_timeout, body.next()).await {
            Ok(Ok(Some(bytes))) => {
                if let Err(error) = self.decoder.push(&bytes, &mut self.frames) {
                    self.source = Source::Broken(error);
                }
            }
            Ok(Ok(None)) => {
                let finished = self.decoder.finish(&mut self.frames);
                self.source = finished.map_or_else(Source::Broken, |()| Source::Ended);
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
        self.frames.clear();
        let usage = self.follow.usage();
        self.labels.add_to(VendorError { usage, ..error })
    }

    async fn finish(&mut self) -> Option<Result<Chunk, VendorError>> {
        self.frames.clear();
        match std::mem::replace(&mut self.source, Source::Done) {
            Source::Done => None,
            source => {
                if let Source::Body(body) = source {
                    drain(body).await;
                }
                Some(Ok(Chunk::End {
                    usage: self.follow.usage(),
                    vendor_request_id: self
                        .labels
                        .request_id
                        .clone()
                        .or_else(|| self.follow.request_id()),
                }))
            }
        }
    }
}

/// Lets the connection come to its end, which is nearly always there already.
async fn drain(mut body: Body) {
    let _ = timeout(DRAIN, async { while let Ok(Some(_)) = body.next().await {} }).await;
}
