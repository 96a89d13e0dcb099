//! What the attempts of this process share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use chrono::{DateTime, Utc};
use inferq_common::{
    error::{ErrorClass, JobError},
    id::JobId,
    job::{JobStatus, Outcome},
    outage::{Outage, pause_after},
    retry::RetryPolicy,
    store::{Claim, StoreError, group::GroupError},
    stream::ChunkGroup,
    usage::Usage,
    vendor::Vendor,
};
use inferq_vendors::AnswerMemory;
use tokio::{sync::Notify, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::error;

use crate::{Worker, gate::Gate, lent::Begun, places::Places, registered::Registered};

/// A result the store refused this often, while it can be reached, cannot be stored.
const MAX_REFUSALS: u32 = 5;

/// A worker at work: its parts, its attempts and its ways to stop.
pub(crate) struct Runner {
    pub(crate) worker: Worker,
    pub(crate) retry: RetryPolicy,
    /// Holds back what a vendor would refuse.
    pub(crate) gate: Gate,
    pub(crate) registered: Registered,
    /// Of the vendors it serves.
    pub(crate) places: HashMap<Vendor, Places>,
    pub(crate) begun: Begun,
    /// What the vendors' answers may take until they are stored.
    pub(crate) answers: AnswerMemory,
    /// Owns the task of each attempt.
    pub(crate) attempts: TaskTracker,
    /// Rung when a job with a callback has ended here.
    pub(crate) callback_due: Arc<Notify>,
    /// Take no new work.
    pub(crate) soft: CancellationToken,
    /// Stop the calls in flight and give their jobs back.
    pub(crate) hand_back: CancellationToken,
    /// Stop even what is being written: others will find those jobs.
    pub(crate) give_up: CancellationToken,
    /// Of the store, so that an outage is logged once and not by each attempt.
    store_outage: Mutex<Outage>,
}

impl Runner {
    pub(crate) fn new(
        worker: Worker,
        places: HashMap<Vendor, Places>,
        soft: CancellationToken,
    ) -> Self {
        Self {
            retry: RetryPolicy::default(),
            gate: Gate::new(worker.config.concurrency),
            registered: Registered::new(worker.config.concurrency),
            answers: AnswerMemory::new(worker.config.answer_memory_bytes),
            worker,
            places,
            begun: Begun::default(),
            attempts: TaskTracker::new(),
            callback_due: Arc::default(),
            soft,
            hand_back: CancellationToken::new(),
            give_up: CancellationToken::new(),
            store_outage: Mutex::new(Outage::of("claim and finish jobs")),
        }
    }

    /// Claims a job for this process; `None`: there is nothing to do for it, here and now.
    pub(crate) async fn claim(&self, id: JobId) -> Result<Option<Claim>, GroupError> {
        let claim = self.worker.path.claim(id);
        let claimed = self.give_up.run_until_cancelled(claim).await;
        let claimed = claimed.unwrap_or(Err(GroupError::Closed));
        self.note(claimed.as_ref().err());
        claimed
    }

    /// The claim of a job that was lent to this process; `None`: it holds no more.
    pub(crate) async fn lent(&self, id: JobId) -> Result<Option<Claim>, GroupError> {
        let lent = self.give_up.run_until_cancelled(self.worker.path.lent(id)).await;
        let lent = lent.unwrap_or(Err(GroupError::Closed));
        self.note(lent.as_ref().err());
        lent
    }

    /// Ends a claimed attempt; answers when, as the store has it. `None`: the claim no longer held,
    /// or the process stops and the store is still away.
    ///
    /// It tries until the store has it, so that no result is lost because a database restarts. A
    /// result that the store can be reached for and refuses is replaced by an internal error.
    pub(crate) async fn finish(
        &self,
        claim: &Claim,
        outcome: &mut Outcome,
    ) -> Option<DateTime<Utc>> {
        let (mut failures, mut refusals) = (0, 0);
        loop {
            let finish = self.worker.path.finish_at(claim.clone(), outcome.clone());
            let finished = self.give_up.run_until_cancelled(finish).await?;
            self.note(finished.as_ref().err());
            match finished {
                Ok(Some(at)) => return Some(at),
                // An earlier try may have been done though its answer was lost.
                Ok(None) if failures > 0 => return self.recorded(claim, outcome).await,
                Ok(None) | Err(GroupError::Closed) => return None,
                Err(error) => {
                    refusals += u32::from(is_refusal(&error));
                    failures += 1;
                }
            }
            if refusals == MAX_REFUSALS {
                error!("the store refuses this attempt's result; the job fails instead");
                *outcome = unstorable();
            }
            self.give_up.run_until_cancelled(sleep(pause_after(failures))).await?;
        }
    }

    /// Stores part of the stream of a claimed attempt. It tries until the store has it.
    ///
    /// **Cancel safe:** dropped, the part may be stored or not.
    pub(crate) async fn append(&self, claim: &Claim, group: &ChunkGroup) -> Appended {
        let (mut failures, mut refusals) = (0, 0);
        loop {
            let append = self.worker.path.append(claim.instance, group.clone());
            let Some(appended) = self.give_up.run_until_cancelled(append).await else {
                return Appended::GivenUp;
            };
            self.note(appended.as_ref().err());
            match appended {
                // Also of one whose answer was lost before: the store knows a repetition.
                Ok(true) => return Appended::Stored,
                Ok(false) => return Appended::NotHeld,
                Err(GroupError::Closed) => return Appended::GivenUp,
                Err(error) => {
                    refusals += u32::from(is_refusal(&error));
                    failures += 1;
                }
            }
            if refusals == MAX_REFUSALS {
                error!("the store refuses a part of this attempt's stream; the job fails");
                return Appended::Refused;
            }
            let pause = sleep(pause_after(failures));
            if self.give_up.run_until_cancelled(pause).await.is_none() {
                return Appended::GivenUp;
            }
        }
    }

    /// When the job ended, if the store holds `outcome` as its end.
    async fn recorded(&self, claim: &Claim, outcome: &Outcome) -> Option<DateTime<Utc>> {
        let (status, error) = match outcome {
            Outcome::Succeeded { .. } => (JobStatus::Succeeded, None),
            Outcome::Failed { error, .. } => (JobStatus::Failed, Some(error)),
            // Queued again: the sweep publishes it.
            Outcome::Retry { .. } | Outcome::HandedBack | Outcome::Deferred { .. } => return None,
        };
        let find = self.worker.store.find_job(claim.job.id, &claim.job.account);
        let (job, result) = self.give_up.run_until_cancelled(find).await?.ok()??;
        let same = job.status == status
            && job.attempt == claim.attempt()
            && result.is_some_and(|result| result.error.as_ref() == error);
        job.finished_at.filter(|_| same)
    }

    fn note(&self, error: Option<&GroupError>) {
        let mut outage = self.store_outage.lock().expect("no one panics while noting an outage");
        match error {
            None => outage.succeeded(),
            Some(error) => {
                outage.failed(error);
            }
        }
    }
}

/// What became of a part of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Appended {
    Stored,
    /// The claim no longer holds.
    NotHeld,
    /// The store can be reached and does not take it.
    Refused,
    /// The process stops and the store is still away.
    GivenUp,
}

/// Whether the store answered and would answer the same again.
fn is_refusal(error: &GroupError) -> bool {
    match error {
        GroupError::Store(error) => {
            matches!(**error, StoreError::Other(_) | StoreError::Corrupt { .. })
        }
        GroupError::Full | GroupError::Closed => false,
    }
}

/// What a job ends with whose own result could not be stored.
fn unstorable() -> Outcome {
    let message = "the result could not be stored; this is a defect of inferq";
    Outcome::Failed { error: JobError::new(ErrorClass::Internal, message), usage: Usage::default() }
}
