//! Deliveries and their attempts, as they are read.

use sqlx::FromRow;
use uuid::Uuid;

use super::{Reader, StoredInstant};
use crate::{
    callback::{Delivery, DeliveryAttempt},
    id::{DeliveryId, InstanceId, JobId},
    store::StoreError,
};

/// A row of `deliveries`.
#[derive(Debug, FromRow)]
pub(crate) struct DeliveryRow<T> {
    pub(crate) delivery_id: Uuid,
    pub(crate) job_id: Uuid,
    pub(crate) account_id: String,
    pub(crate) url: String,
    pub(crate) host: String,
    pub(crate) job_status: String,
    pub(crate) status: String,
    pub(crate) attempt: i32,
    pub(crate) instance_id: Option<Uuid>,
    pub(crate) created_at: T,
    pub(crate) next_attempt_at: Option<T>,
    pub(crate) finished_at: Option<T>,
}

impl<T: StoredInstant> TryFrom<DeliveryRow<T>> for Delivery {
    type Error = StoreError;

    fn try_from(row: DeliveryRow<T>) -> Result<Self, StoreError> {
        let read = Reader("deliveries");
        Ok(Self {
            id: DeliveryId::from_uuid(row.delivery_id),
            job_id: JobId::from_uuid(row.job_id),
            account: read.word("account_id", &row.account_id)?,
            url: row.url,
            host: row.host,
            job_status: read.word("job_status", &row.job_status)?,
            status: read.word("status", &row.status)?,
            attempt: read.count("attempt", row.attempt)?,
            instance: row.instance_id.map(InstanceId::from_uuid),
            created_at: read.instant("created_at", row.created_at)?,
            next_attempt_at: read.optional_instant("next_attempt_at", row.next_attempt_at)?,
            finished_at: read.optional_instant("finished_at", row.finished_at)?,
        })
    }
}

/// A row of `delivery_attempts`.
#[derive(Debug, FromRow)]
pub(crate) struct DeliveryAttemptRow<T> {
    pub(crate) delivery_id: Uuid,
    pub(crate) number: i32,
    pub(crate) started_at: T,
    pub(crate) finished_at: T,
    pub(crate) status_code: Option<i32>,
    pub(crate) error: Option<String>,
}

impl<T: StoredInstant> TryFrom<DeliveryAttemptRow<T>> for DeliveryAttempt {
    type Error = StoreError;

    fn try_from(row: DeliveryAttemptRow<T>) -> Result<Self, StoreError> {
        let read = Reader("delivery_attempts");
        Ok(Self {
            delivery_id: DeliveryId::from_uuid(row.delivery_id),
            number: read.count("number", row.number)?,
            started_at: read.instant("started_at", row.started_at)?,
            finished_at: read.instant("finished_at", row.finished_at)?,
            status_code: row.status_code.map(|code| read.count("status_code", code)).transpose()?,
            error: row.error,
        })
    }
}
