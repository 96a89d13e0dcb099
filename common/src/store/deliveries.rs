//! Callbacks that are owed.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use secrecy::SecretString;

use super::StoreError;
use crate::{
    callback::{Delivery, DeliveryAttempt},
    id::{AccountId, DeliveryId, InstanceId, JobId},
    job::{Job, JobResult},
};

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
