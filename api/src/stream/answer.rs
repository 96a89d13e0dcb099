//! What a caller who asked for a stream is answered.

use std::{sync::Arc, time::Duration};

use axum::response::Response;
use inferq_common::job::{Job, JobResult};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};

use super::{
    body::{self, Open, Turn},
    feed::{BUFFER_BYTES, Feed},
    reader::{Broken, Part, Reader},
    shape::{Failure, Shape},
    sse,
};
use crate::{
    answer::{accepted, failed, failure},
    cancel::OnLeave,
    error::{ApiError, JOB_ID, job_header},
    state::AppState,
    submit::{self, Order, Placed},
    terms::Terms,
    waiting::{Pace, find},
};

/// # Errors
/// `Unavailable` where as many streams are open as may be.
pub(crate) fn permit(state: &AppState) -> Result<OwnedSemaphorePermit, ApiError> {
    Arc::clone(&state.streams)
        .try_acquire_owned()
        .map_err(|_| ApiError::unavailable("too many event streams are open"))
}

/// Makes the job and answers with its chunks. `wait`: how long the caller waits for the first of them
/// before it is answered 202 with the job; `None`: as long as it takes.
///
/// # Errors
/// What can be told before the first byte: the status is that of a synchronous answer.
pub(crate) async fn place(
    state: &AppState,
    order: Order,
    terms: Terms,
    wait: Option<Duration>,
) -> Result<Response, ApiError> {
    let shape = Shape::of(order.operation);
    place_in(state, order, shape, terms, wait).await
}

/// As [`place`], in a form of the route's own.
pub(crate) async fn place_in(
    state: &AppState,
    order: Order,
    shape: Shape,
    terms: Terms,
    wait: Option<Duration>,
) -> Result<Response, ApiError> {
    let permit = permit(state)?;
    let cancel = terms.cancel_on_disconnect;
    let (placed, feed) = submit::submit_and_listen(state, order, cancel).await?;
    let Placed { job, repeated, leave } = placed;
    respond(state, job, Heard { feed, fresh: !repeated, leave, permit, shape }, terms, wait).await
}

/// Answers with the chunks of a job that is there already, from the first one on.
pub(crate) async fn join(
    state: &AppState,
    job: Job,
    terms: Terms,
    wait: Option<Duration>,
) -> Result<Response, ApiError> {
    let permit = permit(state)?;
    let feed = state.waiters.listen(job.id, BUFFER_BYTES);
    let shape = Shape::of(job.operation);
    let leave = OnLeave::new(terms.cancel_on_disconnect, state, job.id, &job.account);
    respond(state, job, Heard { feed, fresh: false, leave, permit, shape }, terms, wait).await
}

/// What a reader needs, taken before the job could run.
struct Heard {
    feed: Feed,
    /// Whether the job was made just now.
    fresh: bool,
    leave: OnLeave,
    permit: OwnedSemaphorePermit,
    shape: Shape,
}

async fn respond(
    state: &AppState,
    job: Job,
    heard: Heard,
    terms: Terms,
    wait: Option<Duration>,
) -> Result<Response, ApiError> {
    let Heard { feed, fresh, mut leave, permit, shape } = heard;
    let calm = if fresh { Pace::NET } else { Pace::FOLLOW };
    let limit = Duration::from_secs(state.config.max_wait_secs);
    let key = (job.account.clone(), job.id);
    let reader = Reader::new(state, key, feed, calm, fresh, limit);
    let rhythm = terms.stream_rhythm();
    let patience = wait.map_or(rhythm.begin, |wait| wait.min(rhythm.begin));
    let mut turn = body::turn(reader);
    let first = timeout_at(Instant::now() + patience, &mut turn).await;
    let (head, turn) = match first {
        Ok((reader, part)) => {
            let begun = begin(&job, shape, reader, part);
            if begun.as_ref().map_or(true, |(_, turn)| turn.is_none()) {
                leave.disarm();
            }
            match begun? {
                (Begun::Stream(head), turn) => (head, turn),
                (Begun::Whole(response), _) => return Ok(response),
            }
        }
        Err(_) if wait.is_some() => {
            leave.disarm();
            let (job, result) = find(state, &job.account, job.id).await?;
            return Ok(accepted(job, result, terms.prefer));
        }
        Err(_) => (sse::OK.to_owned(), Some(turn)),
    };
    let open = Open { head, turn, shape, ping: rhythm.every, leave, _permit: permit };
    let mut response = sse::response(open.body());
    response.headers_mut().insert(JOB_ID, job_header(job.id));
    Ok(response)
}

enum Begun {
    Stream(String),
    /// Nothing was streamed: the answer is an ordinary one.
    Whole(Response),
}

/// The answer's first bytes, and what follows them.
fn begin(
    job: &Job,
    shape: Shape,
    reader: Reader,
    part: Part,
) -> Result<(Begun, Option<Turn>), ApiError> {
    let part = match part {
        Part::Broken(Broken::Api(error)) => return Err(error),
        Part::Broken(broken @ Broken::OtherAttempt) => {
            return Ok((Begun::Whole(failed(job.id, &broken.into_failure())), None));
        }
        Part::Ended { status, result } => match failure(status, result.error) {
            Some(error) => {
                return Ok((Begun::Whole(failed(job.id, &Failure::of_job(error))), None));
            }
            None => Part::Ended { status, result: JobResult::default() },
        },
        chunks @ Part::Chunks(_) => chunks,
    };
    let mut head = String::new();
    let more = body::write(&mut head, shape, job.id, part);
    Ok((Begun::Stream(head), more.then(|| body::turn(reader))))
}
