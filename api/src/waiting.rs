//! Waits for the end of a job: woken by its event, with the store as the net.

use std::time::Duration;

use inferq_common::{
    id::{AccountId, JobId},
    job::{Job, JobResult, JobStatus},
    store::FoundJob,
};
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::{
    error::ApiError,
    state::AppState,
    waiters::{Ended, Waiter},
};

/// How often the store is asked meanwhile: the wait doubles from `first` to `max`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    first: Duration,
    max: Duration,
}

impl Pace {
    /// For jobs whose event comes to this process: only a lost event needs the store, and thousands
    /// of callers may wait for long.
    pub(crate) const NET: Self =
        Self { first: Duration::from_secs(1), max: Duration::from_secs(5) };

    /// For jobs whose event may go to another process. Looks are grouped with their neighbours', so
    /// quick ones are cheap.
    pub(crate) const POLL: Self =
        Self { first: Duration::from_millis(5), max: Duration::from_millis(500) };

    /// For who follows a job's chunks: they are stored some time after their event.
    pub(crate) const FOLLOW: Self =
        Self { first: Duration::from_millis(20), max: Duration::from_millis(500) };

    /// What suits this job, asked about in this process.
    pub(crate) fn of(job: &Job, state: &AppState) -> Self {
        if job.reply_to == Some(state.instance.id()) { Self::NET } else { Self::POLL }
    }

    /// The next wait.
    pub(crate) fn step(&mut self) -> Duration {
        let wait = self.first;
        self.first = (self.first * 2).min(self.max);
        wait
    }
}

/// What a caller waits for, and for how long.
#[derive(Debug, Clone)]
pub(crate) struct Wait {
    pub(crate) account: AccountId,
    pub(crate) job_id: JobId,
    pub(crate) pace: Pace,
    pub(crate) limit: Duration,
}

impl Wait {
    /// How the job ended; `None` once the limit has passed.
    ///
    /// # Errors
    /// `Stopping` when this process gives its callers up, `NotFound` when the job is gone. An outage
    /// of the store is waited out.
    pub(crate) async fn for_end(
        mut self,
        state: &AppState,
        waiter: &mut Waiter,
    ) -> Result<Option<(JobStatus, JobResult)>, ApiError> {
        // A limit that no instant can express is no limit.
        let until = Instant::now().checked_add(self.limit);
        loop {
            let woken = self.next_look(state, waiter, until).await?;
            if let Some(Ended { status, result: Some(result), .. }) = woken {
                return Ok(Some((status, result)));
            }
            if let Some((job, result)) = self.look(state).await? {
                return Ok(Some((job.status, result.unwrap_or_default())));
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(None);
            }
        }
    }

    /// The job once it has ended, given as it was before; `None` once the limit has passed.
    ///
    /// # Errors
    /// As [`Self::for_end`].
    pub(crate) async fn for_job(
        mut self,
        state: &AppState,
        mut waiter: Waiter,
        before: &Job,
    ) -> Result<Option<FoundJob>, ApiError> {
        let until = Instant::now().checked_add(self.limit);
        loop {
            let woken = self.next_look(state, &mut waiter, until).await?;
            if let Some(found) = woken.and_then(|ended| ended.complete(before)) {
                return Ok(Some(found));
            }
            if let Some(found) = self.look(state).await? {
                return Ok(Some(found));
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(None);
            }
        }
    }

    /// Waits for the job's event, or for the time to look into the store.
    async fn next_look(
        &mut self,
        state: &AppState,
        waiter: &mut Waiter,
        until: Option<Instant>,
    ) -> Result<Option<Ended>, ApiError> {
        let mut pause = self.pace.step();
        if let Some(until) = until {
            pause = pause.min(until.saturating_duration_since(Instant::now()));
        }
        tokio::select! {
            ended = waiter.ended() => Ok(Some(ended)),
            () = sleep(pause) => Ok(None),
            () = state.closing.cancelled() => Err(ApiError::Stopping { job_id: self.job_id }),
        }
    }

    /// The job if it has ended, as the store knows it.
    async fn look(&self, state: &AppState) -> Result<Option<FoundJob>, ApiError> {
        match find(state, &self.account, self.job_id).await {
            Ok(found) => Ok(Some(found).filter(|(job, _)| job.status.is_final())),
            Err(ApiError::Unavailable { detail, .. }) => {
                debug!(detail, "the caller waits the outage out");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// A job of the account, with its result once it has ended.
///
/// # Errors
/// `NotFound` for an unknown job and for another account's alike.
pub(crate) async fn find(
    state: &AppState,
    account: &AccountId,
    id: JobId,
) -> Result<(Job, Option<JobResult>), ApiError> {
    state.path.find(id, account).await?.ok_or_else(|| job_not_found(id))
}

pub(crate) fn job_not_found(id: JobId) -> ApiError {
    ApiError::NotFound(format!("job {id} was not found").into())
}
