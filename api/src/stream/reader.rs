//! Reads a job's chunks for the caller who asked for them: quickly by the broker's events, surely by
//! the store.

use std::time::Duration;

use inferq_common::{
    error::{ErrorClass, JobError},
    id::{AccountId, JobId},
    job::{JobResult, JobStatus, Json},
    store::StoreError,
    stream::{ChunkGroup, Outline},
};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::feed::{Feed, Heard};
use crate::{
    error::ApiError,
    state::AppState,
    waiters::Ended,
    waiting::{Pace, job_not_found},
};

/// What one look into the store brings at most, if a chunk is not larger.
pub(crate) const READ_BYTES: usize = 256 * 1024;

/// What a reader is given next.
#[derive(Debug)]
pub(crate) enum Part {
    /// Never empty.
    Chunks(Vec<Json>),
    /// All that was streamed has been given. Nothing follows.
    Ended { status: JobStatus, result: JobResult },
    /// The rest cannot be given to this reader; the job goes on, or is gone. Nothing follows.
    Broken(Broken),
}

/// Why a reader does not see the end of its job.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The attempt whose chunks were passed on is over and another one has begun or will.
    OtherAttempt,
    Api(ApiError),
}

/// One reader of one job, at its own pace.
#[derive(Debug)]
pub(crate) struct Reader {
    state: AppState,
    account: AccountId,
    job: JobId,
    feed: Feed,
    /// The attempt whose chunks are passed on; 0 before any is known.
    attempt: u32,
    /// The index of the chunk to pass on next.
    next: u64,
    /// How many chunks of the attempt there are as far as is known.
    known: u64,
    /// Whether a chunk was passed on.
    begun: bool,
    /// Whether chunks of another attempt were seen after that.
    mixed: bool,
    ended: Option<Ended>,
    ready: Vec<Json>,
    /// How the store is asked while nothing is heard.
    calm: Pace,
    pace: Pace,
    look_at: Instant,
    until: Option<Instant>,
}

impl Reader {
    /// `calm`: how often the store is asked while nothing is heard, for the first time at once
    /// unless `fresh`: then nothing can be there yet. `limit`: how long the reader is held.
    pub(crate) fn new(
        state: &AppState,
        (account, job): (AccountId, JobId),
        feed: Feed,
        calm: Pace,
        fresh: bool,
        limit: Duration,
    ) -> Self {
        let now = Instant::now();
        let mut pace = calm;
        let look_at = if fresh { now + pace.step() } else { now };
        Self {
            state: state.clone(),
            account,
            job,
            feed,
            attempt: 0,
            next: 0,
            known: 0,
            begun: false,
            mixed: false,
            ended: None,
            ready: Vec::new(),
            calm,
            pace,
            look_at,
            until: now.checked_add(limit),
        }
    }

    pub(crate) fn job(&self) -> JobId {
        self.job
    }

    /// The next part. An outage of the store is waited out.
    pub(crate) async fn next(&mut self) -> Part {
        loop {
            self.hear();
            let behind = self.next < self.known;
            if self.ready.is_empty()
                && behind
                && !self.is_over()
                && let Err(error) = self.catch_up().await
            {
                return Part::Broken(Broken::Api(error));
            }
            if !self.ready.is_empty() {
                self.begun = true;
                self.calm_down();
                return Part::Chunks(std::mem::take(&mut self.ready));
            }
            if let Some(part) = self.end() {
                return part;
            }
            if let Err(broken) = self.wait().await {
                return Part::Broken(Broken::Api(broken));
            }
        }
    }

    /// Takes in what was told since.
    fn hear(&mut self) {
        let Heard { dropped, groups, ended, .. } = self.feed.take();
        if let Some((attempt, end)) = dropped
            && self.is_about(attempt)
        {
            self.known = self.known.max(end);
        }
        for group in groups {
            if self.is_about(group.attempt) {
                self.take(&group);
            }
        }
        if let Some(ended) = ended {
            if self.is_about(ended.attempt) {
                self.known = self.known.max(ended.chunks);
            }
            if lacks_error(&ended) {
                self.look_at = Instant::now();
            }
            self.ended = Some(ended);
        }
    }

    /// Whether this attempt is the one whose chunks are passed on; a later one takes the place of one
    /// of which nothing was passed on.
    fn is_about(&mut self, attempt: u32) -> bool {
        if attempt > self.attempt {
            if self.begun || !self.ready.is_empty() {
                self.mixed = true;
                return false;
            }
            (self.attempt, self.next, self.known) = (attempt, 0, 0);
        }
        attempt == self.attempt
    }

    /// Makes ready what of a group follows what was passed on.
    fn take(&mut self, group: &ChunkGroup) {
        self.known = self.known.max(group.end());
        let seen = self.next.checked_sub(group.first).and_then(|seen| usize::try_from(seen).ok());
        if let Some(rest) = seen.and_then(|seen| group.chunks.get(seen..)) {
            self.ready.extend_from_slice(rest);
            self.next = self.next.max(group.end());
        }
    }

    /// Whether what is missing matters no more.
    fn is_over(&self) -> bool {
        self.mixed
            || self.ended.as_ref().is_some_and(|ended| {
                ended.status == JobStatus::Cancelled || ended.attempt != self.attempt
            })
    }

    /// Reads what was missed, as far as it is stored.
    async fn catch_up(&mut self) -> Result<(), ApiError> {
        let read =
            self.state.store.read_chunks(self.job, self.attempt, self.next, READ_BYTES).await;
        for group in passing(read)?.unwrap_or_default() {
            self.take(&group);
        }
        Ok(())
    }

    /// What the reader is told at the end, once it has come.
    fn end(&mut self) -> Option<Part> {
        let succeeded = |ended: &Ended| ended.status == JobStatus::Succeeded;
        let Some(ended) = &self.ended else {
            return self.mixed.then_some(Part::Broken(Broken::OtherAttempt));
        };
        let other = self.begun && ended.attempt != self.attempt;
        if other && succeeded(ended) {
            return Some(Part::Broken(Broken::OtherAttempt));
        }
        if lacks_error(ended) {
            return None;
        }
        if !other && !self.is_over() && self.next < self.known {
            return None;
        }
        let Ended { status, result, .. } = self.ended.take()?;
        Some(Part::Ended { status, result: result.unwrap_or_default() })
    }

    /// Until something is heard or the store was asked.
    async fn wait(&mut self) -> Result<(), ApiError> {
        let look_at = self.until.map_or(self.look_at, |until| until.min(self.look_at));
        tokio::select! {
            () = self.feed.news() => return Ok(()),
            () = sleep_until(look_at) => {}
            () = self.state.closing.cancelled() => {
                return Err(ApiError::Stopping { job_id: self.job });
            }
        }
        self.look().await?;
        let now = Instant::now();
        self.look_at = now + self.pace.step();
        let lacks = self.ended.is_none() || self.next < self.known;
        if lacks && self.until.is_some_and(|until| now >= until) {
            return Err(ApiError::StillRunning {
                detail: "the stream has not ended within the time a caller is held; its job goes on",
                job_id: self.job,
            });
        }
        Ok(())
    }

    /// What the store knows of the job.
    async fn look(&mut self) -> Result<(), ApiError> {
        let outline = self.state.store.outline(self.job, &self.account).await;
        match passing(outline)? {
            Some(Some(outline)) => self.learn(outline),
            Some(None) => return Err(job_not_found(self.job)),
            None => {}
        }
        Ok(())
    }

    fn learn(&mut self, outline: Outline) {
        let Outline { job, result, attempts, chunks } = outline;
        let count =
            |attempt| chunks.iter().find(|(its, _)| *its == attempt).map_or(0, |(_, count)| *count);
        if job.attempt > 0 && self.is_about(job.attempt) {
            self.known = self.known.max(count(job.attempt));
        }
        if job.status.is_final() {
            // The store has all there will ever be.
            if self.attempt == job.attempt {
                self.known = count(job.attempt);
            }
            self.ended = Some(Ended {
                status: job.status,
                attempt: job.attempt,
                times: None,
                // A response is of no use here, and a slow reader would hold it for long.
                result: Some(JobResult { response: None, ..result.unwrap_or_default() }),
                chunks: count(job.attempt),
            });
        } else if self.begun && attempts.iter().any(|over| over.number == self.attempt) {
            self.mixed = true;
        }
    }

    fn calm_down(&mut self) {
        self.pace = self.calm;
        self.look_at = Instant::now() + self.pace.step();
    }
}

/// Whether the error must be read from the store. Of what succeeded nothing but that is of use here.
fn lacks_error(ended: &Ended) -> bool {
    ended.result.is_none() && ended.status == JobStatus::Failed
}

/// `None` for an outage, which passes.
pub(crate) fn passing<T>(read: Result<T, StoreError>) -> Result<Option<T>, ApiError> {
    match read.map_err(ApiError::from) {
        Ok(value) => Ok(Some(value)),
        Err(ApiError::Unavailable { detail, .. }) => {
            debug!(detail, "the stream waits the outage out");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl Broken {
    /// As an error of the job's, for those who have been told a part of its answer.
    pub(crate) fn into_failure(self) -> super::shape::Failure {
        match self {
            Self::OtherAttempt => super::shape::Failure::of_job(JobError::new(
                ErrorClass::Transient,
                "the attempt whose stream was passed on is over; the job goes on and can be read \
                 by its id",
            )),
            Self::Api(error) => super::shape::Failure::of(&error),
        }
    }
}
