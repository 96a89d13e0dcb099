//! Waits for the end of a job: woken by its event, with the store as the net.

use std::time::Duration;

use inferq_common::{
    id::{AccountId, JobId},
    job::{Job, JobResult},
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

    /// For jobs whose event may go to another process.
    pub(crate) const POLL: Self =
        Self { first: Duration::from_millis(50), max: Duration::from_millis(500) };

    /// The next wait.
    pub(crate) fn step(&mut self) -> Duration {
        let wait = self.first;
        self.first = (self.first * 2).min(self.max);
        wait
    }
}

/// What a caller waits for, and for how long.
#[derive(Debug)]
pub(crate) struct Wait<'a> {
    pub(crate) account: &'a AccountId,
    pub(crate) job_id: JobId,
    pub(crate) pace: Pace,
    pub(crate) limit: Duration,
}

impl Wait<'_> {
    /// How the job ended; `None` once the limit has passed.
    ///
    /// # Errors
    /// `Stopping` when this process gives its callers up, `NotFound` when the job is gone. An outage
    /// of the store is waited out.
    pub(crate) async fn for_end(
        mut self,
        state: &AppState,
        mut waiter: Waiter,
    ) -> Result<Option<(Ended, JobResult)>, ApiError> {
        // A limit that no instant can express is no limit.
        let until = Instant::now().checked_add(self.limit);
        loop {
            let mut pause = self.pace.step();
            if let Some(until) = until {
                pause = pause.min(until.saturating_duration_since(Instant::now()));
            }
            let woken = tokio::select! {
                ended = waiter.ended() => Some(ended),
                () = sleep(pause) => None,
                () = state.closing.cancelled() => {
                    return Err(ApiError::Stopping { job_id: self.job_id });
                }
            };
            if let Some(Ended { status, result: Some(result) }) = woken {
                return Ok(Some((Ended { status, result: None }, result)));
            }
            if let Some(ended) = self.look(state).await? {
                return Ok(Some(ended));
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(None);
            }
        }
    }

    /// How the job ended, as the store knows it.
    async fn look(&self, state: &AppState) -> Result<Option<(Ended, JobResult)>, ApiError> {
        let (job, result) = match find(state, self.account, self.job_id).await {
            Ok(found) => found,
            Err(ApiError::Unavailable(detail)) => {
                debug!(detail, "the caller waits the outage out");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if !job.status.is_final() {
            return Ok(None);
        }
        Ok(Some((Ended { status: job.status, result: None }, result.unwrap_or_default())))
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
    state.store.find_job(id, account).await?.ok_or_else(|| job_not_found(id))
}

pub(crate) fn job_not_found(id: JobId) -> ApiError {
    ApiError::NotFound(format!("job {id} was not found").into())
}
