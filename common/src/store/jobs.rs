//! A job's life in the store, and what its steps answer.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Page, PageRequest, StoreError};
use crate::{
    id::{AccountId, InstanceId, JobId},
    job::{Attempt, Job, JobResult, JobStatus, Json, Lane, NewJob, Operation, Outcome},
    stream::{ChunkGroup, Outline},
    vendor::Vendor,
};

/// One attempt of a job, lent to one instance while that instance lives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive] // Other crates hold what the store lends; they do not make it up.
pub struct Claim {
    /// As it is after the claim: running, with this attempt counted.
    pub job: Job,
    pub args: Json,
    pub instance: InstanceId,
    /// When the job last became ready to run: from then on it waited for a worker.
    pub ready_at: DateTime<Utc>,
}

impl Claim {
    /// What `to` holds if the store answers the submit of this job with [`Submitted::Lent`].
    pub fn lent(new: &NewJob, to: InstanceId) -> Self {
        let began_at = Some(new.job.created_at);
        let job = Job {
            status: JobStatus::Running,
            attempt: 1,
            started_at: began_at,
            attempt_started_at: began_at,
            ..new.job.clone()
        };
        Self { job, args: new.args.clone(), instance: to, ready_at: new.job.created_at }
    }

    /// The number of the attempt that is lent, from 1.
    pub fn attempt(&self) -> u32 {
        self.job.attempt
    }
}

/// What became of one job of a submit.
#[derive(Debug, Clone, PartialEq)]
pub enum Submitted {
    /// Stored.
    Added,
    /// Stored, and lent to who had room for it.
    Lent,
    /// Its idempotency key was used before for the same request: this is the job it made.
    Repeated(Box<Job>),
    /// Its idempotency key was used before for another request. Nothing was stored.
    KeyReused,
}

/// What becomes of a request to cancel.
#[derive(Debug, Clone, PartialEq)]
pub enum Cancelled {
    /// It was queued or running and is cancelled now; `ran_at` is who must stop running it.
    Now { job: Box<Job>, ran_at: Option<InstanceId> },
    /// It had ended before.
    Already(Box<Job>),
}

/// What a message about a job has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wakeup {
    pub job_id: JobId,
    pub lane: Lane,
    /// Attempts counted so far.
    pub attempt: u32,
    pub reply_to: Option<InstanceId>,
}

/// A job, and its result once it has ended.
pub type FoundJob = (Job, Option<JobResult>);

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    pub status: Option<JobStatus>,
    pub vendor: Option<Vendor>,
    /// The vendor's own name of the model.
    pub model: Option<String>,
}

/// What makes two requests equal.
#[derive(Debug, Clone)]
pub struct Twin {
    pub account: AccountId,
    pub operation: Operation,
    pub alias: Option<String>,
    pub vendor: Vendor,
    pub model: String,
    pub stream: bool,
    pub args: Json,
}

/// How many jobs a lane holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneCount {
    pub lane: Lane,
    /// Queued, waiting ones (`run_at`) included.
    pub queued: u64,
    pub running: u64,
}

/// A job's life.
#[async_trait]
pub trait JobStore: Send + Sync {
    /// Stores jobs with their inputs and idempotency records, in one transaction.
    ///
    /// `publisher` answers for their publication, if they are not lent: if it is lost, another
    /// instance publishes them.
    async fn submit(
        &self,
        jobs: &[NewJob],
        publisher: InstanceId,
    ) -> Result<Vec<Submitted>, StoreError>;

    /// Claims those of `ids` that are queued, due and not past their start-by deadline.
    ///
    /// Counts an attempt of each. What is gone, final, not due yet or held by someone else is not in
    /// the answer; for an instance that is lost or unknown the answer is empty.
    async fn claim(
        &self,
        ids: &[JobId],
        instance: InstanceId,
        now: DateTime<Utc>,
    ) -> Result<Vec<Claim>, StoreError>;

    /// Those of `ids` that were lent to `instance` as they were stored, as long as it holds that first
    /// attempt. Reads only; for an instance that is lost or unknown the answer is empty.
    async fn lent(&self, ids: &[JobId], instance: InstanceId) -> Result<Vec<Claim>, StoreError>;

    /// Ends claimed attempts: job, attempt row, result and, for a final status of a job with a
    /// callback URL, a pending delivery, in one transaction. A deferred one is queued as it was
    /// before its claim. One that is handed back or deferred though chunks of its stream are stored
    /// is failed instead, as [`rescue`](super::InstanceStore::rescue) would. Answers for each whether
    /// the claim still held; nothing is written for one that did not.
    async fn finish(
        &self,
        outcomes: &[(Claim, Outcome)],
        now: DateTime<Utc>,
    ) -> Result<Vec<bool>, StoreError>;

    /// Those of `held` (job and attempt) that this instance no longer holds.
    async fn revoked(
        &self,
        instance: InstanceId,
        held: &[(JobId, u32)],
    ) -> Result<Vec<JobId>, StoreError>;

    /// Attempts that `instance` has claimed before `before` and that are not among `held` (job and
    /// attempt): its claim was answered with an error though it was done, or who ran it died. Reads
    /// only; up to `limit`. What cannot be read is left out.
    async fn strays(
        &self,
        instance: InstanceId,
        held: &[(JobId, u32)],
        before: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<Claim>, StoreError>;

    /// Cancels a job of `account` that has not ended, with its attempt row (if it was running),
    /// error and delivery. `None`: there is no such job.
    async fn cancel(
        &self,
        id: JobId,
        account: &AccountId,
        now: DateTime<Utc>,
    ) -> Result<Option<Cancelled>, StoreError>;

    /// Expires queued jobs whose start-by deadline has passed, with error and delivery. One with a
    /// ticket has started at its vendor and does not expire.
    async fn expire(&self, now: DateTime<Utc>, limit: u32) -> Result<Vec<Job>, StoreError>;

    /// Takes over the publishing of queued jobs whose `run_at` has passed, and clears it.
    async fn take_due(
        &self,
        publisher: InstanceId,
        now: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<Wakeup>, StoreError>;

    /// Queued jobs of a lane that have been ready to run since before `ready_before`, oldest first.
    async fn overdue(
        &self,
        lane: Lane,
        ready_before: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<Wakeup>, StoreError>;

    /// Jobs by id and account, each with its result once it has ended, in the order of `wanted`;
    /// `None` where there is no such job in that account.
    async fn find_jobs(
        &self,
        wanted: &[(JobId, AccountId)],
    ) -> Result<Vec<Option<FoundJob>>, StoreError>;

    /// A job of `account`, with its result once it has ended.
    async fn find_job(
        &self,
        id: JobId,
        account: &AccountId,
    ) -> Result<Option<FoundJob>, StoreError> {
        Ok(self.find_jobs(&[(id, account.clone())]).await?.pop().flatten())
    }

    /// The arguments of a job of `account`.
    async fn find_args(&self, id: JobId, account: &AccountId) -> Result<Option<Json>, StoreError>;

    async fn list_jobs(
        &self,
        account: &AccountId,
        filter: &JobFilter,
        page: &PageRequest<JobId>,
    ) -> Result<Page<Job>, StoreError>;

    /// The finished attempts of a job, in their order.
    async fn list_attempts(&self, id: JobId) -> Result<Vec<Attempt>, StoreError>;

    /// Stores parts of streams in one transaction. Answers for each whether its claim still held and
    /// the group followed what is stored of its attempt; nothing is written for one where not, nor
    /// for one without chunks. A repetition of the group that was stored last (the same first chunk
    /// and number of chunks) holds and is not stored twice. Once an attempt is over, its chunks
    /// never change.
    async fn append_chunks(
        &self,
        groups: &[(InstanceId, ChunkGroup)],
    ) -> Result<Vec<bool>, StoreError>;

    /// The stored chunks of one attempt of a job, from the one with index `from` on, in their order:
    /// about `max_bytes` of them, at least one group if there is any. An answer may be shorter than
    /// that although there is more; an empty one says that there is none.
    async fn read_chunks(
        &self,
        id: JobId,
        attempt: u32,
        from: u64,
        max_bytes: usize,
    ) -> Result<Vec<ChunkGroup>, StoreError>;

    /// What the events of a job of `account` are made of, as of one moment.
    async fn outline(&self, id: JobId, account: &AccountId) -> Result<Option<Outline>, StoreError>;

    /// The latest unfinished job that an equal request of the account has made since `since`. Looks
    /// at the account's latest 1000 jobs at most.
    async fn find_twin(&self, twin: &Twin, since: DateTime<Utc>)
    -> Result<Option<Job>, StoreError>;

    /// How many unfinished jobs each lane holds; lanes without any are left out.
    async fn count_lanes(&self) -> Result<Vec<LaneCount>, StoreError>;

    /// Deletes jobs that ended before `before`, with all that belongs to them, except those with an
    /// unfinished delivery. Also idempotency records made before `before`. Answers how many jobs.
    async fn remove_finished(&self, before: DateTime<Utc>, limit: u32) -> Result<u64, StoreError>;
}
