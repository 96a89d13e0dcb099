//! A delivery as outsiders see it.

use chrono::{DateTime, Utc};
use inferq_common::{
    callback::{Delivery, DeliveryAttempt, DeliveryStatus, event_type},
    id::{AccountId, DeliveryId, JobId},
    view::{instant, optional_instant},
};
use serde::Serialize;

/// The JSON of a delivery.
#[derive(Debug, Serialize)]
pub(crate) struct DeliveryView {
    /// The `webhook-id` of all its attempts.
    id: DeliveryId,
    /// Always `delivery`.
    object: &'static str,
    job_id: JobId,
    account_id: AccountId,
    /// `job.succeeded` and its like.
    #[serde(rename = "type")]
    event: String,
    url: String,
    status: DeliveryStatus,
    /// Attempts begun since it was made or last asked to be repeated.
    attempt: u32,
    #[serde(serialize_with = "instant")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "optional_instant")]
    next_attempt_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "optional_instant")]
    finished_at: Option<DateTime<Utc>>,
    /// Only where one delivery is read by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Vec<DeliveryAttemptView>>,
}

/// The JSON of one POST of a callback.
#[derive(Debug, Serialize)]
struct DeliveryAttemptView {
    /// From 1, over the delivery's whole life.
    number: u32,
    #[serde(serialize_with = "instant")]
    started_at: DateTime<Utc>,
    #[serde(serialize_with = "instant")]
    finished_at: DateTime<Utc>,
    status_code: Option<u16>,
    error: Option<String>,
}

impl DeliveryView {
    pub(crate) fn with_attempts(self, attempts: Vec<DeliveryAttempt>) -> Self {
        let attempts = attempts
            .into_iter()
            .map(|attempt| DeliveryAttemptView {
                number: attempt.number,
                started_at: attempt.started_at,
                finished_at: attempt.finished_at,
                status_code: attempt.status_code,
                error: attempt.error,
            })
            .collect();
        Self { attempts: Some(attempts), ..self }
    }
}

impl From<Delivery> for DeliveryView {
    fn from(delivery: Delivery) -> Self {
        Self {
            id: delivery.id,
            object: "delivery",
            job_id: delivery.job_id,
            account_id: delivery.account,
            event: event_type(delivery.job_status),
            url: delivery.url,
            status: delivery.status,
            attempt: delivery.attempt,
            created_at: delivery.created_at,
            next_attempt_at: delivery.next_attempt_at,
            finished_at: delivery.finished_at,
            attempts: None,
        }
    }
}
