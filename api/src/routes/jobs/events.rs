//! `GET /v5/jobs/{job_id}/events`
//!
//! Source: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::{
        IntoResponse as _, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::stream;
use http::{HeaderMap, StatusCode};
use inferq_common::{
    id::JobId,
    job::{Job, JobResult, JobStatus},
    view::JobView,
};
use tokio::{sync::OwnedSemaphorePermit, time::sleep};
use tracing::debug;

use crate::{
    auth::Caller,
    error::ApiError,
    extract::Segment,
    state::AppState,
    waiters::Waiter,
    waiting::{Pace, find},
};

/// A comment keeps proxies and clients' read timeouts content this often.
const PING_EVERY: Duration = Duration::from_secs(15);

/// Follows a job: an event `status` for its present status and for each change, until it has ended.
///
/// A change that is over before it is seen is skipped. `Last-Event-ID` leaves out what was seen; where
/// nothing can follow, the answer is 204, which tells an `EventSource` not to come back.
pub(super) async fn events(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<JobId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    // Registered before the first look, so that no end falls between.
    let waiter = state.waiters.register(id);
    let first = find(&state, &caller.account, id).await?;
    let permit = Arc::clone(&state.streams)
        .try_acquire_owned()
        .map_err(|_| ApiError::Unavailable("too many event streams are open"))?;
    let seen = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let (job, _) = &first;
    if job.status.is_final() && seen.is_some_and(|seen| seen >= number(job.attempt, job.status)) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let follow = Follow {
        state,
        caller,
        id,
        waiter,
        seen,
        known: Some(first),
        ended: false,
        pace: Pace::POLL,
        _permit: permit,
    };
    let stream = stream::unfold(follow, async |mut follow| {
        let event = follow.next().await?;
        Some((Ok::<_, Infallible>(event), follow))
    });
    let keep_alive = KeepAlive::new().interval(PING_EVERY).text("ping");
    Ok(Sse::new(stream).keep_alive(keep_alive).into_response())
}

/// One open stream.
struct Follow {
    state: AppState,
    caller: Caller,
    id: JobId,
    waiter: Waiter,
    /// The number of the last event that was sent.
    seen: Option<u64>,
    /// The job as it was just read.
    known: Option<(Job, Option<JobResult>)>,
    ended: bool,
    pace: Pace,
    _permit: OwnedSemaphorePermit,
}

impl Follow {
    /// The next event; `None` once the job has ended, is gone, or this process stops.
    async fn next(&mut self) -> Option<Event> {
        while !self.ended {
            let Some((job, result)) = self.known.take() else {
                self.pause().await?;
                self.look().await?;
                continue;
            };
            self.ended = job.status.is_final();
            let number = number(job.attempt, job.status);
            if self.seen.is_none_or(|seen| number > seen) {
                self.seen = Some(number);
                self.pace = Pace::POLL;
                return Some(event(number, job, result));
            }
        }
        None
    }

    /// Waits until it is worth looking again; `None`: this process stops.
    async fn pause(&mut self) -> Option<()> {
        tokio::select! {
            _ = self.waiter.ended() => Some(()),
            () = sleep(self.pace.step()) => Some(()),
            () = self.state.shutdown.soft.cancelled() => None,
        }
    }

    /// Reads the job; `None`: it is gone.
    async fn look(&mut self) -> Option<()> {
        match find(&self.state, &self.caller.account, self.id).await {
            Ok(found) => self.known = Some(found),
            Err(ApiError::NotFound(_)) => return None,
            Err(error) => debug!(?error, "the stream waits the outage out"),
        }
        Some(())
    }
}

/// Numbers the states of a job's life in their order: attempt by attempt, running, queued again,
/// ended.
fn number(attempt: u32, status: JobStatus) -> u64 {
    let rank = match status {
        JobStatus::Running => 0,
        JobStatus::Queued => 1,
        JobStatus::Succeeded | JobStatus::Failed | JobStatus::Cancelled | JobStatus::Expired => 2,
    };
    u64::from(attempt) * 3 + rank
}

fn event(number: u64, job: Job, result: Option<JobResult>) -> Event {
    let mut view = JobView::new(job, result);
    view.response = None;
    let event = Event::default().event("status").id(number.to_string());
    event.json_data(view).expect("a job is always JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_events_grow_with_the_life_of_a_job() {
        use JobStatus::{Cancelled, Queued, Running, Succeeded};
        let life = [(0, Queued), (1, Running), (1, Queued), (2, Running), (2, Succeeded)];
        let numbers: Vec<u64> = life.iter().map(|(attempt, s)| number(*attempt, *s)).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert!(number(0, Cancelled) > number(0, Queued));
    }
}
