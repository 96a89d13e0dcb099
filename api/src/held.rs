//! Long synchronous answers, kept alive with white space until the document is there.
//!
//! The vendor's SDKs give up when no byte comes for a while, and say how long that is. White space in
//! front of a JSON document means nothing, so it can be sent while the job runs; the status is 200 by
//! then, and a failure has to go into the document.

use std::convert::Infallible;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture, stream};
use http::{HeaderValue, header};
use inferq_common::job::Operation;
use serde_json::json;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Duration, sleep},
};

use crate::{
    answer::{failure, success},
    cancel::OnLeave,
    error::{ApiError, JOB_ID, job_header},
    middleware::Live,
    state::AppState,
    stream::shape::Failure,
    waiters::Waiter,
    waiting::Wait,
};

/// A caller whose answer has begun.
struct Held {
    /// `None`: all has been said.
    document: Option<BoxFuture<'static, String>>,
    begun: bool,
    every: Duration,
    leave: OnLeave,
    _permit: OwnedSemaphorePermit,
}

/// Answers 200 at once, and with the document when `wait` is over.
pub(crate) fn hold(
    state: &AppState,
    operation: Operation,
    (wait, waiter): (Wait, Waiter),
    every: Duration,
    leave: OnLeave,
    permit: OwnedSemaphorePermit,
) -> Response {
    let id = wait.job_id;
    let document = document(state.clone(), operation, wait, waiter).boxed();
    let held = Held { document: Some(document), begun: false, every, leave, _permit: permit };
    let mut response = Response::new(Body::from_stream(stream::unfold(held, async |mut held| {
        let bytes = held.next().await?;
        Some((Ok::<_, Infallible>(bytes), held))
    })));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(JOB_ID, job_header(id));
    response.extensions_mut().insert(Live);
    response
}

impl Held {
    async fn next(&mut self) -> Option<Bytes> {
        const SPACE: Bytes = Bytes::from_static(b" ");
        if !std::mem::replace(&mut self.begun, true) {
            return Some(SPACE);
        }
        let mut document = self.document.take()?;
        tokio::select! {
            text = &mut document => {
                self.leave.disarm();
                Some(text.into())
            }
            () = sleep(self.every) => {
                self.document = Some(document);
                Some(SPACE)
            }
        }
    }
}

/// The document of the answer, whatever becomes of the job.
async fn document(state: AppState, operation: Operation, wait: Wait, mut waiter: Waiter) -> String {
    let job_id = wait.job_id;
    let failed = match wait.for_end(&state, &mut waiter).await {
        Ok(Some((status, result))) => match failure(status, result.error) {
            None => return success(operation, job_id, result.response.as_ref()),
            Some(error) => Failure::of_job(error),
        },
        Ok(None) => Failure::of(&ApiError::still_running(job_id)),
        Err(error) => Failure::of(&error),
    };
    let document = match operation {
        Operation::Inference => json!({
            "object": "generic_inference",
            "response": null,
            "error": failed.error_v5(),
            "job_id": job_id,
        }),
        Operation::Execute => failed.document_v4(job_id),
    };
    document.to_string()
}

#[cfg(test)]
mod tests;
