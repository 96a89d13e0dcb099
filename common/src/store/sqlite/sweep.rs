//! What time does to jobs: deadlines, schedules, retention.

use chrono::{DateTime, Utc};
use rusqlite::{Row, params};
use uuid::Uuid;

use super::{
    SqliteStore,
    ending::{JobEnd, insert_result},
    error::in_table,
    jobs::{Columns, job_columns, job_row},
    values::{ids, micros},
    writer::{Durability, Tx},
};
use crate::{
    id::InstanceId,
    job::{Job, JobStatus, Lane},
    store::{
        StoreError, Wakeup,
        rows::{self, WakeupRow},
    },
    usage::Usage,
};

pub(super) async fn expire(
    store: &SqliteStore,
    now: DateTime<Utc>,
    limit: u32,
) -> Result<Vec<Job>, StoreError> {
    let expire = move |tx: &Tx<'_>| {
        let read = |row: &Row<'_>| job_row(&mut Columns::of(row));
        let expired = tx.all("jobs", EXPIRE, params![micros(now), limit], read)?;
        let expired: Vec<Job> = rows::all(expired)?;
        let (error, usage) = (rows::expired(), Usage::default());
        for job in &expired {
            let end = JobEnd {
                job,
                status: JobStatus::Expired,
                response: None,
                error: Some(&error),
                usage: &usage,
            };
            insert_result(tx, &end, now)?;
        }
        Ok(expired)
    };
    store.writer.write(Durability::Disk, expire).await
}

pub(super) async fn take_due(
    store: &SqliteStore,
    publisher: InstanceId,
    now: DateTime<Utc>,
    limit: u32,
) -> Result<Vec<Wakeup>, StoreError> {
    let values = (publisher.as_uuid(), micros(now), limit);
    let take_due = move |tx: &Tx<'_>| tx.all("jobs", TAKE_DUE, values, wakeup_row);
    Ok(rows::wakeups(store.writer.write(Durability::Disk, take_due).await?))
}

/// Reads the columns of a [`WakeupRow`], in its order.
pub(super) fn wakeup_row(row: &Row<'_>) -> rusqlite::Result<WakeupRow> {
    Ok(WakeupRow {
        job_id: row.get(0)?,
        vendor: row.get(1)?,
        priority: row.get(2)?,
        attempt: row.get(3)?,
        reply_to: row.get(4)?,
    })
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
    let remove = move |tx: &Tx<'_>| {
        let values = params![micros(before), limit];
        let ended: Vec<Uuid> = tx.all("jobs", ENDED_BEFORE, values, |row| row.get(0))?;
        let removed = ended.len() as u64;
        let ended = ids(ended);
        for (table, statement) in REMOVALS {
            tx.execute(table, statement, [&ended])?;
        }
        tx.execute(
            "idempotency_keys",
            "DELETE FROM idempotency_keys WHERE (account_id, idempotency_key) IN (
                 SELECT account_id, idempotency_key FROM idempotency_keys
                 WHERE created_at < ?1 ORDER BY created_at LIMIT ?2
             )",
            params![micros(before), limit],
        )?;
        Ok(removed)
    };
    store.writer.write(Durability::Disk, remove).await
}

/// What belongs to a job, in an order that leaves no orphan findable.
const REMOVALS: [(&str, &str); 8] = [
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
        "job_chunks",
        "DELETE FROM job_chunks WHERE job_id IN (SELECT unhex(value) FROM json_each(?1))",
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
                 AND expires_at <= ?1 AND ticket IS NULL
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
