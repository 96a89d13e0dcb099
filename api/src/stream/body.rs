//! The body of a stream: chunks, pings while there are none, and the end.

use std::{convert::Infallible, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture, stream};
use tokio::time::sleep;

use super::{
    places::Place,
    reader::{Part, Reader},
    shape::{Failure, Shape},
    sse,
};
use crate::{answer::failure, cancel::OnLeave};

/// A reader on its way to its next part. It is never dropped on that way: what it has read would be
/// lost.
pub(crate) type Turn = BoxFuture<'static, (Reader, Part)>;

pub(crate) fn turn(mut reader: Reader) -> Turn {
    async move {
        let part = reader.next().await;
        (reader, part)
    }
    .boxed()
}

/// A stream whose status has been sent.
pub(crate) struct Open {
    /// The first bytes.
    pub(crate) head: String,
    /// `None`: all has been said.
    pub(crate) turn: Option<Turn>,
    pub(crate) shape: Shape,
    pub(crate) ping: Duration,
    pub(crate) leave: OnLeave,
    pub(crate) _place: Place,
}

impl Open {
    pub(crate) fn body(self) -> Body {
        Body::from_stream(stream::unfold(self, async |mut open| {
            let bytes = open.next().await?;
            Some((Ok::<_, Infallible>(bytes), open))
        }))
    }

    async fn next(&mut self) -> Option<Bytes> {
        if !self.head.is_empty() {
            return Some(std::mem::take(&mut self.head).into());
        }
        let mut turn = self.turn.take()?;
        tokio::select! {
            (reader, part) = &mut turn => {
                let mut text = String::new();
                let job = reader.job();
                if write(&mut text, self.shape, job, part) {
                    self.turn = Some(self::turn(reader));
                } else {
                    self.leave.disarm();
                }
                Some(text.into())
            }
            () = sleep(self.ping) => {
                self.turn = Some(turn);
                Some(Bytes::from_static(sse::PING.as_bytes()))
            }
        }
    }
}

/// Appends a part; answers whether another follows.
pub(crate) fn write(
    text: &mut String,
    shape: Shape,
    job: inferq_common::id::JobId,
    part: Part,
) -> bool {
    match part {
        Part::Chunks(chunks) => {
            text.reserve(chunks.iter().map(|chunk| chunk.as_str().len() + 64).sum());
            for chunk in &chunks {
                (shape.chunk)(text, chunk);
            }
            return true;
        }
        Part::Ended { status, result } => match failure(status, result.error) {
            None => text.push_str(shape.done),
            Some(error) => (shape.failure)(text, job, &Failure::of_job(error)),
        },
        Part::Broken(broken) => (shape.failure)(text, job, &broken.into_failure()),
    }
    false
}
