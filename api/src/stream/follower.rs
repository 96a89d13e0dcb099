//! Follows a job from any process: its events as the store has them, from any number on.

use std::convert::Infallible;

use axum::body::Body;
use futures::stream;
use inferq_common::{
    id::{AccountId, JobId},
    job::{Attempt, Job, JobStatus},
    stream::{ChunkGroup, Outline},
    view::JobView,
};
use serde::Serialize;
use tokio::time::{Duration, Instant, sleep, sleep_until};

use super::{
    feed::Feed,
    log::{Span, What, next_after},
    places::Place,
    reader::{READ_BYTES, passing},
    sse,
};
use crate::{
    error::ApiError, routes::jobs::AttemptView, state::AppState, waiting::Pace,
    waiting::job_not_found,
};

/// A comment keeps proxies and clients' read timeouts content this often.
const PING_EVERY: Duration = Duration::from_secs(15);

/// News within this time of a look wait for the next one.
const MIN_BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// A larger response is not in the final event; it can be read with the job.
const MAX_RESPONSE_BYTES: usize = 256 * 1024;

/// One who follows a job. What it was sent it has seen.
pub(crate) struct Follower {
    state: AppState,
    account: AccountId,
    job: JobId,
    /// It only wakes: what is told is not stored yet.
    feed: Feed,
    seen: u64,
    /// The job as it was last read, as long as there is something new in it.
    outline: Option<Outline>,
    pace: Pace,
    /// How long it waits for news before it looks all the same.
    patience: Duration,
    looked_at: Instant,
    _place: Place,
}

impl Follower {
    /// Begins after the event numbered `seen`; `None`: all was seen, and nothing can follow.
    ///
    /// # Errors
    /// `NotFound` for an unknown job and for another account's alike.
    pub(crate) async fn new(
        state: &AppState,
        account: AccountId,
        job: JobId,
        seen: u64,
    ) -> Result<Option<Self>, ApiError> {
        // Registered before the first look, so that nothing falls between.
        let feed = state.waiters.listen(job, 0);
        let outline = state.store.outline(job, &account).await?;
        let outline = lean(outline.ok_or_else(|| job_not_found(job))?);
        if outline.job.status.is_final() && next_after(&outline, seen).is_none() {
            return Ok(None);
        }
        let place = state.streams.take(&account)?;
        let mut pace = Pace::FOLLOW;
        Ok(Some(Self {
            state: state.clone(),
            account,
            job,
            feed,
            seen,
            outline: Some(outline),
            patience: pace.step(),
            pace,
            looked_at: Instant::now(),
            _place: place,
        }))
    }

    /// Its events until the job has ended or is gone, or this process stops.
    pub(crate) fn body(self) -> Body {
        Body::from_stream(stream::unfold(self, async |mut follower| {
            let text = tokio::select! {
                text = follower.next() => text?,
                () = sleep(PING_EVERY) => sse::PING.to_owned(),
            };
            Some((Ok::<_, Infallible>(text), follower))
        }))
    }

    /// The next events as text.
    ///
    /// **Cancel safe:** what was not returned comes again.
    async fn next(&mut self) -> Option<String> {
        loop {
            let Some(outline) = &self.outline else {
                self.pause().await?;
                self.look().await?;
                continue;
            };
            let Some(Span { number, what }) = next_after(outline, self.seen) else {
                if outline.job.status.is_final() {
                    return None;
                }
                self.outline = None;
                continue;
            };
            let text = match what {
                What::Queued => status(number, &queued(&outline.job)),
                What::Running(attempt) => status(number, &running(&outline.job, attempt)),
                What::Over(attempt) => over(number, attempt),
                What::Ended => status(number, &ended(outline)),
                What::Chunks { attempt, first, .. } => {
                    let Some((count, text)) = self.chunks(number, attempt, first).await? else {
                        self.outline = None;
                        continue;
                    };
                    self.advance(number + count - 1);
                    return Some(text);
                }
            };
            self.advance(number);
            return Some(text);
        }
    }

    fn advance(&mut self, seen: u64) {
        self.seen = seen;
        self.pace = Pace::FOLLOW;
        self.patience = self.pace.step();
    }

    /// Chunks of an attempt from the one with index `first` on: how many, and their events.
    /// `Some(None)`: not now. `None`: not ever.
    async fn chunks(&self, number: u64, attempt: u32, first: u64) -> Option<Option<(u64, String)>> {
        let read = self.state.store.read_chunks(self.job, attempt, first, READ_BYTES).await;
        let groups = passed(passing(read))??;
        let (mut count, mut text) = (0, String::new());
        for group in &groups {
            push_group(&mut text, group, first, number, &mut count);
        }
        Some(Some((count, text)).filter(|_| count > 0))
    }

    /// Waits until it is worth looking again; `None`: this process stops.
    async fn pause(&mut self) -> Option<()> {
        // Chunks are told one by one, and stored ten times a second.
        let soonest = self.looked_at + MIN_BETWEEN_LOOKS;
        let told = async {
            self.feed.news().await;
            sleep_until(soonest).await;
        };
        tokio::select! {
            () = told => Some(()),
            () = sleep(self.patience) => {
                self.patience = self.pace.step();
                Some(())
            }
            () = self.state.shutdown.soft.cancelled() => None,
        }
    }

    /// Reads the job; `None`: it is gone.
    async fn look(&mut self) -> Option<()> {
        self.looked_at = Instant::now();
        let read = self.state.store.outline(self.job, &self.account).await;
        if let Some(outline) = passed(passing(read))? {
            self.outline = Some(lean(outline?));
        }
        Some(())
    }
}

/// An error ends what has begun; it is logged where its text is made.
fn passed<T>(read: Result<T, ApiError>) -> Option<T> {
    read.inspect_err(|error| drop(error.summary())).ok()
}

#[derive(Serialize)]
struct ChunkView<'a> {
    attempt: u32,
    index: u64,
    chunk: &'a inferq_common::job::Json,
}

/// Appends those of the group's chunks that follow the `count` already there, counted from `first`.
fn push_group(text: &mut String, group: &ChunkGroup, first: u64, number: u64, count: &mut u64) {
    for (index, chunk) in (group.first..).zip(&group.chunks) {
        if index != first + *count {
            continue;
        }
        let view = ChunkView { attempt: group.attempt, index, chunk };
        let data = serde_json::to_string(&view).expect("a chunk is always JSON");
        sse::push(text, Some(number + *count), Some("chunk"), &data);
        *count += 1;
    }
}

fn status(number: u64, view: &JobView) -> String {
    event(number, "status", view)
}

fn over(number: u64, attempt: &Attempt) -> String {
    event(number, "attempt", &AttemptView::from(attempt.clone()))
}

fn event(number: u64, name: &str, view: &impl Serialize) -> String {
    let data = serde_json::to_string(view).expect("a document is always JSON");
    let mut text = String::with_capacity(data.len() + 64);
    sse::push(&mut text, Some(number), Some(name), &data);
    text
}

/// The job as it was made.
fn queued(job: &Job) -> JobView {
    let job = Job { started_at: None, ..at(job, JobStatus::Queued, 0) };
    JobView::new(job, None)
}

/// The job as it was during an attempt.
fn running(job: &Job, attempt: u32) -> JobView {
    JobView::new(at(job, JobStatus::Running, attempt), None)
}

fn at(job: &Job, status: JobStatus, attempt: u32) -> Job {
    Job { status, attempt, run_at: None, finished_at: None, ..job.clone() }
}

/// Without a response that is too large to be shown: a slow follower would hold it for long.
fn lean(mut outline: Outline) -> Outline {
    if let Some(result) = &mut outline.result {
        result.response.take_if(|response| response.as_str().len() > MAX_RESPONSE_BYTES);
    }
    outline
}

/// The job with its result.
fn ended(outline: &Outline) -> JobView {
    JobView::new(outline.job.clone(), outline.result.clone())
}
