//! What time does to jobs: deadlines, schedules, lost messages, retention.

use chrono::{DateTime, Utc};
use sqlx::Connection as _;

use super::{
    PostgresStore,
    finish::write_ends,
    jobs::{Step, job_columns, wakeup_columns},
};
use crate::{
    callback::Delivery,
    id::InstanceId,
    job::{Job, Lane},
    store::{
        StoreError, Wakeup,
        rows::{self, JobRow, WakeupRow},
    },
};

pub(super) const EXPIRE: &str = concat!(
    "
WITH due AS (
    SELECT job_id
    FROM jobs
    WHERE status = 'queued' AND expires_at IS NOT NULL AND started_at IS NULL AND expires_at <= $1
        AND ticket IS NULL
    ORDER BY expires_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
)
UPDATE jobs
SET status = 'expired', finished_at = $1, run_at = NULL, instance_id = NULL
FROM due
WHERE jobs.job_id = ANY (ARRAY[due.job_id])
RETURNING ",
    job_columns!()
);

pub(super) const TAKE_DUE: &str = concat!(
    "
WITH due AS (
    SELECT job_id
    FROM jobs
    WHERE status = 'queued' AND run_at IS NOT NULL AND run_at <= $2
    ORDER BY run_at
    LIMIT $3
    FOR UPDATE SKIP LOCKED
)
UPDATE jobs
SET run_at = NULL, instance_id = $1
FROM due
WHERE jobs.job_id = ANY (ARRAY[due.job_id])
RETURNING ",
    wakeup_columns!()
);

pub(super) const OVERDUE: &str = concat!(
    "SELECT ",
    wakeup_columns!(),
    " FROM jobs
    WHERE status = 'queued' AND run_at IS NULL
        AND vendor = $1 AND priority = $2 AND ready_at < $3
    ORDER BY ready_at, job_id
    LIMIT $4"
);

/// All parts read what was there before any of them deleted.
pub(super) const REMOVE: &str = "
WITH ended AS (
    SELECT job_id
    FROM jobs
    WHERE finished_at IS NOT NULL AND finished_at < $1
        AND NOT EXISTS (
            SELECT FROM deliveries
            WHERE deliveries.job_id = ANY (ARRAY[jobs.job_id])
                AND deliveries.status IN ('pending', 'delivering')
        )
    ORDER BY finished_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
), removed_delivery_attempts AS (
    DELETE FROM delivery_attempts USING deliveries, ended
    WHERE deliveries.job_id = ANY (ARRAY[ended.job_id])
        AND delivery_attempts.delivery_id = ANY (ARRAY[deliveries.delivery_id])
), removed_deliveries AS (
    DELETE FROM deliveries USING ended WHERE deliveries.job_id = ANY (ARRAY[ended.job_id])
), removed_attempts AS (
    DELETE FROM attempts USING ended WHERE attempts.job_id = ANY (ARRAY[ended.job_id])
), removed_results AS (
    DELETE FROM job_results USING ended WHERE job_results.job_id = ANY (ARRAY[ended.job_id])
), removed_chunks AS (
    DELETE FROM job_chunks USING ended WHERE job_chunks.job_id = ANY (ARRAY[ended.job_id])
), removed_inputs AS (
    DELETE FROM job_inputs USING ended WHERE job_inputs.job_id = ANY (ARRAY[ended.job_id])
), removed_keys AS (
    DELETE FROM idempotency_keys USING ended WHERE idempotency_keys.job_id = ANY (ARRAY[ended.job_id])
)
DELETE FROM jobs USING ended WHERE jobs.job_id = ANY (ARRAY[ended.job_id])";

pub(super) const REMOVE_KEYS: &str = "
WITH old AS (
    SELECT account_id, idempotency_key
    FROM idempotency_keys
    WHERE created_at < $1
    ORDER BY created_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
)
DELETE FROM idempotency_keys USING old
WHERE idempotency_keys.account_id = ANY (ARRAY[old.account_id])
    AND idempotency_keys.idempotency_key = ANY (ARRAY[old.idempotency_key])";

impl PostgresStore {
    pub(super) async fn expire_jobs(
        &self,
        now: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<Job>, StoreError> {
        self.run(|lent| {
            Box::pin(async move {
                let mut transaction = lent.connection().begin().await?;
                let expired: Vec<JobRow<DateTime<Utc>>> = sqlx::query_as(EXPIRE)
                    .bind(now)
                    .bind(i64::from(limit))
                    .fetch_all(&mut *transaction)
                    .await?;
                let jobs: Vec<Job> = match rows::all(expired) {
                    Ok(jobs) => jobs,
                    Err(error) => return Ok(Err(error)),
                };
                if !jobs.is_empty() {
                    let ends: Vec<_> = jobs.iter().map(|job| (job.id, rows::expired())).collect();
                    let owed = deliveries_owed(&jobs, now);
                    write_ends(&mut transaction, &ends, &owed).await?;
                }
                transaction.commit().await?;
                Step::Ok(Ok(jobs))
            })
        })
        .await?
    }

    pub(super) async fn take_due_jobs(
        &self,
        publisher: InstanceId,
        now: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<Wakeup>, StoreError> {
        let due: Vec<WakeupRow> = self
            .run(|lent| {
                let query = sqlx::query_as(TAKE_DUE)
                    .bind(publisher.as_uuid())
                    .bind(now)
                    .bind(i64::from(limit));
                Box::pin(query.fetch_all(lent.connection()))
            })
            .await?;
        Ok(rows::wakeups(due))
    }

    pub(super) async fn overdue_jobs(
        &self,
        lane: Lane,
        ready_before: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<Wakeup>, StoreError> {
        let overdue: Vec<WakeupRow> = self
            .run(|lent| {
                let query = sqlx::query_as(OVERDUE)
                    .bind(lane.vendor.as_str())
                    .bind(lane.priority.as_str())
                    .bind(ready_before)
                    .bind(i64::from(limit));
                Box::pin(query.fetch_all(lent.connection()))
            })
            .await?;
        Ok(rows::wakeups(overdue))
    }

    pub(super) async fn remove_finished_jobs(
        &self,
        before: DateTime<Utc>,
        limit: u32,
    ) -> Result<u64, StoreError> {
        self.run(|lent| {
            Box::pin(async move {
                let mut transaction = lent.connection().begin().await?;
                let removed = sqlx::query(REMOVE)
                    .bind(before)
                    .bind(i64::from(limit))
                    .execute(&mut *transaction)
                    .await?;
                sqlx::query(REMOVE_KEYS)
                    .bind(before)
                    .bind(i64::from(limit))
                    .execute(&mut *transaction)
                    .await?;
                transaction.commit().await?;
                Ok(removed.rows_affected())
            })
        })
        .await
    }
}

/// What jobs that ended owe to their callback URLs.
pub(super) fn deliveries_owed(jobs: &[Job], now: DateTime<Utc>) -> Vec<Delivery> {
    jobs.iter().filter_map(|job| rows::delivery_owed(job, job.status, now)).collect()
}
