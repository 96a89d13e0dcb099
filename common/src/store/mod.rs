//! The store: the truth about every job.
//!
//! Each method is one transaction and one step in a job's life. No transaction leaves the store, so
//! Postgres and SQLite implement the same moves and no caller can be left between two states.
//! Absence is `None` or an empty list, not an error. A method over many items treats each by
//! itself: one that cannot be done never undoes its neighbours.
//!
//! Times come from the caller, except the judgement of heartbeats: that goes by the store's clock.

#[cfg(feature = "testing")]
pub mod conformance;
pub mod group;
mod open;
pub mod path;
pub mod postgres;
mod reason;
pub(crate) mod rows;
pub mod serving;
pub mod sqlite;

pub use self::{open::open, reason::Reason, serving::ServingStore};

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use secrecy::SecretString;

use crate::{
    account::{ApiKey, KeyHash},
    callback::{Delivery, DeliveryAttempt},
    credential::{CredentialName, Envelope, SealedCredential},
    id::{
        AccountId, ApiKeyId, CredentialId, DeliveryId, InstanceId, JobId, ModelId, ModelServerId,
    },
    job::{Attempt, Job, JobResult, JobStatus, Json, Lane, NewJob, Operation, Outcome},
    model::{Model, ModelServer},
    stream::{ChunkGroup, Outline},
    vendor::Vendor,
};

/// What can go wrong in a store, as far as callers treat it differently.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, is starting, or is out of connections or disk: try again later.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Its tables are not those of this release.
    #[error("the store's tables are not up to date: run `inferq migrate`")]
    NotMigrated(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A stored value cannot be read.
    #[error("cannot read {table}.{column}")]
    Corrupt {
        table: &'static str,
        column: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Anything else: a defect.
    #[error("the store refused a statement")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// One attempt of a job, lent to one instance while that instance lives.
#[derive(Debug, Clone)]
#[non_exhaustive] // Other crates can hold a claim, not build one.
pub struct Claim {
    /// As it is after the claim: running, with this attempt counted.
    pub job: Job,
    pub args: Json,
    pub instance: InstanceId,
    /// When the job last became ready to run: from then on it waited for a worker.
    pub ready_at: DateTime<Utc>,
}

impl Claim {
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

/// What the sweep did for lost instances.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rescued {
    /// Jobs that are queued and now this instance's to publish.
    pub wakeups: Vec<Wakeup>,
    /// How many of them had been running.
    pub requeued: u64,
    /// Jobs failed because they lost too many processes or part of a stream, as they are now.
    pub failed: Vec<Job>,
    /// Deliveries that are due again.
    pub deliveries: u64,
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

/// A page of a list whose order is by id. Newest first unless `ascending`.
#[derive(Debug, Clone)]
pub struct PageRequest<Id> {
    /// Entries that stand after this one in the list's order.
    pub after: Option<Id>,
    /// Entries that stand just before this one in the list's order; used when `after` is `None`.
    pub before: Option<Id>,
    /// 1 to 1000.
    pub limit: u32,
    pub ascending: bool,
}

/// Some entries of a list, in the list's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Whether there is more in the direction that was asked for.
    pub has_more: bool,
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
    /// `publisher` answers for their publication: if it is lost, another instance publishes them.
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

    /// Ends claimed attempts: job, attempt row, result and, for a final status of a job with a
    /// callback URL, a pending delivery, in one transaction. A deferred one is queued as it was
    /// before its claim. One that is handed back or deferred though chunks of its stream are stored
    /// is failed instead, as [`InstanceStore::rescue`] would. Answers for each whether the claim
    /// still held; nothing is written for one that did not.
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

/// What kind of process an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInstance {
    pub id: InstanceId,
    /// `api`, `worker` or `dev`.
    pub role: &'static str,
    /// The machine's name, for people.
    pub host: String,
}

/// Who is alive.
#[async_trait]
pub trait InstanceStore: Send + Sync {
    async fn register(&self, instance: &NewInstance) -> Result<(), StoreError>;

    /// Renews the heartbeat. `false`: the instance is lost or unknown and must register anew under
    /// a new id.
    async fn heartbeat(&self, id: InstanceId) -> Result<bool, StoreError>;

    /// Marks instances lost whose heartbeat is older than `grace` by the store's clock.
    async fn judge(&self, grace: Duration) -> Result<Vec<InstanceId>, StoreError>;

    /// Marks one instance lost: it says so itself as it stops, or is known to be dead.
    async fn retire(&self, id: InstanceId) -> Result<(), StoreError>;

    /// Marks all instances but `id` lost: for a store that one process owns alone.
    async fn retire_others(&self, id: InstanceId) -> Result<(), StoreError>;

    /// Hands up to `limit` jobs of lost instances to `to`: running ones are queued again with a
    /// lost attempt row, queued ones get a new publisher. Also frees their deliveries. A running
    /// job is failed if it lost too many processes, or if chunks of its attempt are stored: a
    /// stream that was passed on in part is not repeated by itself.
    async fn rescue(
        &self,
        to: InstanceId,
        now: DateTime<Utc>,
        limit: u32,
    ) -> Result<Rescued, StoreError>;

    /// Forgets instances that have been lost for longer than `age` and hold nothing.
    async fn forget_instances(&self, age: Duration) -> Result<u64, StoreError>;
}

/// A delivery lent to one instance, with the job it is about.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeliveryClaim {
    /// As it is after the claim: delivering, with this attempt counted.
    pub delivery: Delivery,
    /// The number this attempt will be recorded under.
    pub number: u32,
    pub job: Job,
    pub result: JobResult,
    /// Active signing secrets of the account, newest first.
    pub secrets: Vec<SecretString>,
}

/// What becomes of a delivery after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryOutcome {
    Delivered,
    /// Tried again at this moment.
    Retry(DateTime<Utc>),
    /// Never tried again by itself.
    Failed,
}

/// Callbacks that are owed.
#[async_trait]
pub trait DeliveryStore: Send + Sync {
    /// Claims up to `limit` due deliveries, oldest first, at most `per_host` for one host, and none
    /// for the hosts in `busy`.
    async fn claim_deliveries(
        &self,
        instance: InstanceId,
        now: DateTime<Utc>,
        limit: u32,
        per_host: u32,
        busy: &[String],
    ) -> Result<Vec<DeliveryClaim>, StoreError>;

    /// Ends an attempt and records it. `false`: the claim no longer held, nothing was written.
    async fn finish_delivery(
        &self,
        claim: &DeliveryClaim,
        attempt: &DeliveryAttempt,
        outcome: DeliveryOutcome,
    ) -> Result<bool, StoreError>;

    async fn list_deliveries(&self, job: JobId) -> Result<Vec<Delivery>, StoreError>;

    async fn find_delivery(
        &self,
        id: DeliveryId,
        account: &AccountId,
    ) -> Result<Option<Delivery>, StoreError>;

    async fn list_delivery_attempts(
        &self,
        id: DeliveryId,
    ) -> Result<Vec<DeliveryAttempt>, StoreError>;

    /// Makes a delivery of `account` due now with a fresh count of attempts; one that is being
    /// delivered is left as it is. `None`: there is no such delivery.
    async fn redeliver(
        &self,
        id: DeliveryId,
        account: &AccountId,
        now: DateTime<Utc>,
    ) -> Result<Option<Delivery>, StoreError>;

    /// When the oldest due delivery became due; `None`: none is due.
    async fn oldest_due_delivery(
        &self,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, StoreError>;
}

/// What becomes of a model or alias that is added.
#[derive(Debug, Clone, PartialEq)]
pub enum Added<T> {
    New(T),
    /// The name was taken and the entry was updated.
    Updated(T),
    /// The name is taken by this one; nothing was written.
    Conflict(T),
}

/// Which models to list.
#[derive(Debug, Clone, Default)]
pub struct ModelFilter {
    pub vendor: Option<Vendor>,
    pub name: Option<String>,
}

/// Registered models and model servers.
#[async_trait]
pub trait ModelStore: Send + Sync {
    /// Adds a model; where `vendor/name` is taken in the account, updates configuration, type,
    /// metadata, status and default callback URL of the one there if `update`, else answers
    /// `Conflict`, as for one that is being deployed.
    async fn add_model(&self, model: &Model, update: bool) -> Result<Added<Model>, StoreError>;

    async fn find_model(
        &self,
        id: ModelId,
        account: &AccountId,
    ) -> Result<Option<Model>, StoreError>;

    async fn find_model_by_name(
        &self,
        account: &AccountId,
        vendor: Vendor,
        name: &str,
    ) -> Result<Option<Model>, StoreError>;

    async fn list_models(
        &self,
        account: &AccountId,
        filter: &ModelFilter,
        page: &PageRequest<ModelId>,
    ) -> Result<Page<Model>, StoreError>;

    /// How many models of `account` the filter lets through.
    async fn count_models(
        &self,
        account: &AccountId,
        filter: &ModelFilter,
    ) -> Result<u64, StoreError>;

    /// Adds a model server, made by `by`; `Conflict` where its alias is taken in the account; `None`
    /// where the registered model it is to run is gone.
    async fn add_model_server(
        &self,
        server: &ModelServer,
        by: Option<&str>,
    ) -> Result<Option<Added<ModelServer>>, StoreError>;

    async fn find_model_server(
        &self,
        id: ModelServerId,
        account: &AccountId,
    ) -> Result<Option<ModelServer>, StoreError>;

    async fn find_model_server_by_alias(
        &self,
        alias: &str,
        account: &AccountId,
    ) -> Result<Option<ModelServer>, StoreError>;

    async fn list_model_servers(&self, account: &AccountId)
    -> Result<Vec<ModelServer>, StoreError>;
}

/// A signing secret of an account.
#[derive(Debug, Clone)]
pub struct WebhookSecret {
    pub secret: SecretString,
    pub created_at: DateTime<Utc>,
    /// Signs no more from this moment on; `None` for the newest.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Accounts, API keys and callback secrets.
#[async_trait]
pub trait AccountStore: Send + Sync {
    /// Makes the account unless it exists; a new one gets `secret` as its callback secret.
    async fn ensure_account(
        &self,
        id: &AccountId,
        secret: &SecretString,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError>;

    async fn account_exists(&self, id: &AccountId) -> Result<bool, StoreError>;

    /// Adds a key to existing accounts. `false`: a key with this hash exists; nothing was written.
    async fn add_key(&self, key: &ApiKey) -> Result<bool, StoreError>;

    /// The key with this hash, revoked or not.
    async fn find_key(&self, hash: &KeyHash) -> Result<Option<ApiKey>, StoreError>;

    /// All keys, or those of one account, oldest first.
    async fn list_keys(&self, account: Option<&AccountId>) -> Result<Vec<ApiKey>, StoreError>;

    /// Revokes a key. `false`: there is no such key.
    async fn revoke_key(&self, id: ApiKeyId, now: DateTime<Utc>) -> Result<bool, StoreError>;

    /// Makes `new` the account's newest callback secret; older ones sign until `old_expires_at`.
    /// `false`: there is no such account.
    async fn rotate_webhook_secret(
        &self,
        account: &AccountId,
        new: &SecretString,
        now: DateTime<Utc>,
        old_expires_at: DateTime<Utc>,
    ) -> Result<bool, StoreError>;

    /// The secrets active at `now`, newest first.
    async fn list_webhook_secrets(
        &self,
        account: &AccountId,
        now: DateTime<Utc>,
    ) -> Result<Vec<WebhookSecret>, StoreError>;
}

/// A credential to be put.
#[derive(Debug, Clone)]
pub struct NewCredential {
    /// Its id if the name is free; else the credential that has the name keeps its own.
    pub id: CredentialId,
    pub account: AccountId,
    pub name: CredentialName,
    pub vendor: Vendor,
    pub secret: Envelope,
    /// Whether it is to be its vendor's default; `None`: as it was, and a new one is not.
    pub default: Option<bool>,
    pub now: DateTime<Utc>,
}

/// Credentials of accounts, sealed.
#[async_trait]
pub trait CredentialStore: Send + Sync {
    /// Adds a credential to an existing account, or replaces the secret of the one that has the name
    /// and counts its version up. One that becomes the default takes that from its predecessor.
    /// `Conflict` where the name is taken by one of another vendor.
    async fn put_credential(
        &self,
        new: &NewCredential,
    ) -> Result<Added<SealedCredential>, StoreError>;

    async fn find_credential(
        &self,
        account: &AccountId,
        name: &CredentialName,
    ) -> Result<Option<SealedCredential>, StoreError>;

    /// The default of a vendor within an account, if it has one.
    async fn find_default_credential(
        &self,
        account: &AccountId,
        vendor: Vendor,
    ) -> Result<Option<SealedCredential>, StoreError>;

    /// Those of one vendor, or of all.
    async fn list_credentials(
        &self,
        account: &AccountId,
        vendor: Option<Vendor>,
        page: &PageRequest<CredentialId>,
    ) -> Result<Page<SealedCredential>, StoreError>;

    /// Up to `limit` credentials of all accounts whose ids come after `after`, in the order of ids.
    async fn all_credentials(
        &self,
        after: Option<CredentialId>,
        limit: u32,
    ) -> Result<Vec<SealedCredential>, StoreError>;

    /// Replaces the envelope of a credential that still has this version by another one of the same
    /// content. `false`: it was put again or deleted meanwhile.
    async fn reseal_credential(
        &self,
        id: CredentialId,
        version: i64,
        envelope: &Envelope,
    ) -> Result<bool, StoreError>;

    /// Deletes a credential and answers its id. `None`: there is no such credential.
    async fn delete_credential(
        &self,
        account: &AccountId,
        name: &CredentialName,
    ) -> Result<Option<CredentialId>, StoreError>;
}

/// All moves, and the health of what is behind them.
#[async_trait]
pub trait Store:
    JobStore
    + InstanceStore
    + DeliveryStore
    + ModelStore
    + ServingStore
    + AccountStore
    + CredentialStore
    + std::fmt::Debug
{
    /// `postgres` or `sqlite`.
    fn kind(&self) -> &'static str;

    /// One round trip.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Applies what is missing of the migrations; safe to run from many processes at once.
    async fn migrate(&self) -> Result<(), StoreError>;

    /// `NotMigrated` unless all migrations of this release are applied.
    async fn check_migrated(&self) -> Result<(), StoreError>;

    /// Closes all connections.
    async fn close(&self);
}

/// The store as processes share it.
pub type SharedStore = Arc<dyn Store>;
