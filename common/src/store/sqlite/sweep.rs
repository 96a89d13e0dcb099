//! What time does to jobs: deadlines, schedules, retention.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    SqliteStore, commit,
    ending::{JobEnd, insert_results},
    error::in_table,
    jobs::job_columns,
    values::{ids, micros},
};
use crate::{
    id::InstanceId,
    job::{Job, JobStatus, Lane},
    store::{
        StoreError, Wakeup,
        rows::{self, JobRow, WakeupRow},
    },
    usage::Usage,
};

pub(super) async fn expire(
    store: &SqliteStore,
    now: DateTime<Utc>,
    limit: u32,
) -> Result<Vec<Job>, StoreError> {
    let mut tx = store.write().await?;
    let expired: Vec<JobRow<i64>> = sqlx::query_as(EXPIRE)
        .bind(micros(now))
        .bind(limit)
        .fetch_all(&mut *tx)
        .await
        .map_err(in_table("jobs"))?;
    let expired: Vec<Job> = rows::all(expired)?;
    let error = rows::expired();
    let usage = Usage::default();
    let ends: Vec<JobEnd<'_>> = expired
        .iter()
        .map(|job| JobEnd {
            job,
            status: JobStatus::Expired,
            response: None,
            error: Some(&error),
            usage: &usage,
        })
        .collect();
    insert_results(&mut tx, &ends, now).await?;
    drop(ends);
    commit(tx).await?;
    Ok(expired)
}

pub(super) async fn take_due(
    store: &SqliteStore,
    publisher: InstanceId,
    now: DateTime<Utc>,
    limit: u32,
) -> Result<Vec<Wakeup>, StoreError> {
    let mut tx = store.write().await?;
    let due: Vec<WakeupRow> = sqlx::query_as(TAKE_DUE)
        .bind(publisher.as_uuid())
        .bind(micros(now))
        .bind(limit)
        .fetch_all(&mut *tx)
        .await
        .map_err(in_table("jobs"))?;
    commit(tx).await?;
    Ok(rows::wakeups(due))
}

pub(super) async fn overdue(
    store: &SqliteStore,
    lane: Lane,
    ready_before: DateTime<Utc>,
    limit: u32,
) -> Result<Vec<Wakeup>, StoreError> {
    let overdue: Vec<WakeupRow> = sqlx::query_as(OVERDUE)
        .bind(lane.vendor.as_str())
        .bind(lane.priority.as_str())
        .bind(micros(ready_before))
        .bind(limit)
        .fetch_all(&store.readers)
        .await
        .map_err(in_table("jobs"))?;
    Ok(rows::wakeups(overdue))
}

pub(super) async fn remove_finished(
    store: &SqliteStore,
    before: DateTime<Utc>,
    limit: u32,
) -> Result<u64, StoreError> {
    let mut tx = store.write().await?;
    let ended: Vec<Uuid> = sqlx::query_scalar(ENDED_BEFORE)
        .bind(micros(before))
        .bind(limit)
        .fetch_all(&mut *tx)
        .await
        .map_err(in_table("jobs"))?;
    let removed = ended.len() as u64;
    let ended = ids(ended);
    for (table, statement) in REMOVALS {
        sqlx::query(statement).bind(&ended).execute(&mut *tx).await.map_err(in_table(table))?;
    }
    sqlx::query(
        "DELETE FROM idempotency_keys WHERE (account_id, idempotency_key) IN (
             SELECT account_id, idempotency_key FROM idempotency_keys
             WHERE created_at < ?1 ORDER BY created_at LIMIT ?2
         )",
    )
    .bind(micros(before))
    .bind(limit)
    .execute(&mut *tx)
    .await
    .map_err(in_table("idempotency_keys"))?;
    commit(tx).await?;
    Ok(removed)
}

/// What belongs to a job, in an order that leaves no orphan findable.
const REMOVALS: [(&str, &str); 7] = [
    (
        "delivery_attempts",
        "DELETE FROM delivery_attempts WHERE delivery_id IN (
             SELECT delivery_id FROM deliveries
             WHERE job_id IN (SELECT unhex(value) FROM json_each(?1))
         )",
    ),
    (
        "deliveries",
        "DELETE FROM deliveries WHERE job_id IN (SELECT unhex(value) FROM json_each(?1))",
    ),
    ("attempts", "DELETE FROM attempts WHERE job_id IN (SELECT unhex(value) FROM json_each(?1))"),
    (
        "job_results",
        "DELETE FROM job_results WHERE job_id IN (SELECT unhex(value) FROM json_each(?1))",
    ),
    (
        "job_inputs",
        "DELETE FROM job_inputs WHERE job_id IN (SELECT unhex(value) FROM json_each(?1))",
    ),
    (
        "idempotency_keys",
        "DELETE FROM idempotency_keys WHERE job_id IN (SELECT unhex(value) FROM json_each(?1))",
    ),
    ("jobs", "DELETE FROM jobs WHERE job_id IN (SELECT unhex(value) FROM json_each(?1))"),
];

pub(super) const EXPIRE: &str = concat!(
    "UPDATE jobs SET status = 'expired', finished_at = ?1, instance_id = NULL, run_at = NULL
         WHERE job_id IN (
             SELECT job_id FROM jobs
             WHERE status = 'queued' AND expires_at IS NOT NULL AND started_at IS NULL
                 AND expires_at <= ?1
             ORDER BY expires_at LIMIT ?2
         ) AND status = 'queued'
         RETURNING ",
    job_columns!()
);

pub(super) const TAKE_DUE: &str = "UPDATE jobs SET run_at = NULL, instance_id = ?1
         WHERE job_id IN (
             SELECT job_id FROM jobs
             WHERE status = 'queued' AND run_at IS NOT NULL AND run_at <= ?2
             ORDER BY run_at LIMIT ?3
         ) AND status = 'queued'
         RETURNING job_id, vendor, priority, attempt, reply_to";

pub(super) const OVERDUE: &str = "SELECT job_id, vendor, priority, attempt, reply_to FROM jobs
         WHERE status = 'queued' AND run_at IS NULL
             AND vendor = ?1 AND priority = ?2 AND ready_at < ?3
         ORDER BY ready_at, job_id LIMIT ?4";

pub(super) const ENDED_BEFORE: &str = "SELECT job_id FROM jobs AS j
         WHERE finished_at IS NOT NULL AND finished_at < ?1
             AND NOT EXISTS (
                 SELECT 1 FROM deliveries AS d
                 WHERE d.job_id = j.job_id AND d.status IN ('pending', 'delivering')
             )
         ORDER BY finished_at LIMIT ?2";
