//! The store: the truth about every job.
//!
//! Each method is one transaction and one step in a job's life. No transaction leaves the store, so
//! Postgres and SQLite implement the same moves and no caller can be left between two states.
//! Absence is `None` or an empty list, not an error. A method over many items treats each by
//! itself: one that cannot be done never undoes its neighbours.
//!
//! Times come from the caller, except the judgement of heartbeats: that goes by the store's clock.

mod accounts;
mod credentials;
mod deliveries;
mod instances;
mod jobs;
mod models;
pub mod serving;

pub mod group;
mod open;
pub mod path;
pub mod postgres;
mod reason;
pub(crate) mod rows;
pub mod sqlite;

#[cfg(feature = "testing")]
pub mod conformance;

use std::sync::Arc;

use async_trait::async_trait;

pub use self::{
    accounts::{AccountStore, WebhookSecret},
    credentials::{CredentialStore, NewCredential},
    deliveries::{DeliveryClaim, DeliveryOutcome, DeliveryStore},
    instances::{InstanceStore, NewInstance, Rescued},
    jobs::{Cancelled, Claim, FoundJob, JobFilter, JobStore, LaneCount, Submitted, Twin, Wakeup},
    models::{ModelFilter, ModelStore},
    open::open,
    reason::Reason,
    serving::ServingStore,
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

/// What becomes of a model or alias that is added.
#[derive(Debug, Clone, PartialEq)]
pub enum Added<T> {
    New(T),
    /// The name was taken and the entry was updated.
    Updated(T),
    /// The name is taken by this one; nothing was written.
    Conflict(T),
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
