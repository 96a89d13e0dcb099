//! What the end of an attempt or of a job writes besides its row: attempt, result, delivery.

use chrono::{DateTime, Utc};
use rusqlite::params;

use super::{values::micros, writer::Tx};
use crate::{
    callback::Delivery,
    error::JobError,
    id::InstanceId,
    job::{AttemptOutcome, Job, JobStatus, Json},
    store::{StoreError, rows},
    usage::Usage,
};

/// One attempt that ends now.
pub(super) struct AttemptEnd<'a> {
    /// Running, with this attempt counted.
    pub(super) job: &'a Job,
    pub(super) instance: InstanceId,
    pub(super) outcome: AttemptOutcome,
    pub(super) error: Option<&'a JobError>,
    pub(super) usage: &'a Usage,
    pub(super) vendor_request_id: Option<&'a str>,
}

pub(super) fn insert_attempt(
    tx: &Tx<'_>,
    end: &AttemptEnd<'_>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    tx.execute(
        "attempts",
        "INSERT INTO attempts (
                 job_id, number, outcome, instance_id, started_at, finished_at, error, usage,
                 vendor_request_id
             )
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            end.job.id.as_uuid(),
            end.job.attempt,
            end.outcome.as_str(),
            end.instance.as_uuid(),
            micros(end.job.attempt_began_at().unwrap_or(now)),
            micros(now),
            end.error.map(rows::text_of),
            rows::usage_text(end.usage),
            end.vendor_request_id,
        ],
    )?;
    Ok(())
}

/// One job that ends now.
pub(super) struct JobEnd<'a> {
    pub(super) job: &'a Job,
    /// What it ends with.
    pub(super) status: JobStatus,
    pub(super) response: Option<&'a Json>,
    pub(super) error: Option<&'a JobError>,
    pub(super) usage: &'a Usage,
}

/// Writes the result of a job that ended, and the delivery it owes.
pub(super) fn insert_result(
    tx: &Tx<'_>,
    end: &JobEnd<'_>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    tx.execute(
        "job_results",
        "INSERT INTO job_results (job_id, response, error, usage) VALUES (?1, ?2, ?3, ?4)",
        params![
            end.job.id.as_uuid(),
            end.response.map(Json::as_str),
            end.error.map(rows::text_of),
            rows::usage_text(end.usage),
        ],
    )?;
    match rows::delivery_owed(end.job, end.status, now) {
        Some(delivery) => insert_delivery(tx, &delivery),
        None => Ok(()),
    }
}

fn insert_delivery(tx: &Tx<'_>, delivery: &Delivery) -> Result<(), StoreError> {
    tx.execute(
        "deliveries",
        "INSERT INTO deliveries (
                 delivery_id, job_id, account_id, url, host, job_status, status, attempt,
                 created_at, next_attempt_at
             )
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, ?9)",
        params![
            delivery.id.as_uuid(),
            delivery.job_id.as_uuid(),
            delivery.account.as_str(),
            delivery.url,
            delivery.host,
            delivery.job_status.as_str(),
            delivery.status.as_str(),
            micros(delivery.created_at),
            delivery.next_attempt_at.map(micros),
        ],
    )?;
    Ok(())
}
