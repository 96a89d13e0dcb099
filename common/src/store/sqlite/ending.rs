//! What the end of an attempt or of a job writes besides its row: attempt, result, delivery.

use chrono::{DateTime, Utc};
use sqlx::SqliteConnection;

use super::{
    error::in_table,
    values::{Hex, array, micros, texts},
};
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

pub(super) async fn insert_attempts(
    tx: &mut SqliteConnection,
    ends: &[AttemptEnd<'_>],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    if ends.is_empty() {
        return Ok(());
    }
    let values = ends.iter().map(|end| {
        (
            Hex(end.job.id.as_uuid()),
            end.job.attempt,
            end.outcome.as_str(),
            Hex(end.instance.as_uuid()),
            micros(end.job.attempt_started_at.unwrap_or(now)),
            end.error.map(rows::text_of),
            rows::usage_text(end.usage),
            end.vendor_request_id,
        )
    });
    sqlx::query(
        "INSERT INTO attempts (
             job_id, number, outcome, instance_id, started_at, finished_at, error, usage,
             vendor_request_id
         )
         SELECT
             unhex(value ->> 0), value ->> 1, value ->> 2, unhex(value ->> 3), value ->> 4, ?2,
             value ->> 5, value ->> 6, value ->> 7
         FROM json_each(?1)",
    )
    .bind(array(values))
    .bind(micros(now))
    .execute(tx)
    .await
    .map_err(in_table("attempts"))?;
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

/// Writes the results of jobs that ended, and the deliveries they owe.
pub(super) async fn insert_results(
    tx: &mut SqliteConnection,
    ends: &[JobEnd<'_>],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    if ends.is_empty() {
        return Ok(());
    }
    // The small values stand in the key, itself a JSON array, so that the response is the value.
    let values = ends.iter().map(|end| {
        let small =
            (Hex(end.job.id.as_uuid()), end.error.map(rows::text_of), rows::usage_text(end.usage));
        (rows::text_of(&small), end.response.map(Json::as_str))
    });
    sqlx::query(
        "INSERT INTO job_results (job_id, response, error, usage)
         SELECT unhex(key ->> 0), value, key ->> 1, key ->> 2 FROM json_each(?1)",
    )
    .bind(texts(values))
    .execute(&mut *tx)
    .await
    .map_err(in_table("job_results"))?;
    let owed: Vec<Delivery> =
        ends.iter().filter_map(|end| rows::delivery_owed(end.job, end.status, now)).collect();
    insert_deliveries(tx, &owed).await
}

async fn insert_deliveries(
    tx: &mut SqliteConnection,
    deliveries: &[Delivery],
) -> Result<(), StoreError> {
    if deliveries.is_empty() {
        return Ok(());
    }
    let values = deliveries.iter().map(|delivery| {
        (
            Hex(delivery.id.as_uuid()),
            Hex(delivery.job_id.as_uuid()),
            &delivery.account,
            &delivery.url,
            &delivery.host,
            delivery.job_status.as_str(),
            delivery.status.as_str(),
            micros(delivery.created_at),
            delivery.next_attempt_at.map(micros),
        )
    });
    sqlx::query(
        "INSERT INTO deliveries (
             delivery_id, job_id, account_id, url, host, job_status, status, attempt, created_at,
             next_attempt_at
         )
         SELECT
             unhex(value ->> 0), unhex(value ->> 1), value ->> 2, value ->> 3, value ->> 4,
             value ->> 5, value ->> 6, 0, value ->> 7, value ->> 8
         FROM json_each(?1)",
    )
    .bind(array(values))
    .execute(tx)
    .await
    .map_err(in_table("deliveries"))?;
    Ok(())
}
