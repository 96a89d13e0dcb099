//! Who is alive, and what is done for those who are not.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{StoreError, Wakeup};
use crate::{id::InstanceId, job::Job};

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
