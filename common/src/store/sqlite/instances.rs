//! Who is alive, and what happens to the work of those who are not.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{FromRow, SqliteConnection};
use uuid::Uuid;

use super::{
    SqliteStore, commit,
    ending::{AttemptEnd, JobEnd, insert_attempts, insert_results},
    error::in_table,
    jobs::{HeldRow, job_columns},
    values::{ids, micros},
};
use crate::{
    id::InstanceId,
    job::{AttemptOutcome, Job, JobStatus, Limits},
    store::{
        InstanceStore, NewInstance, Rescued, StoreError, Wakeup,
        rows::{self, WakeupRow},
    },
    usage::Usage,
};

impl SqliteStore {
    /// The moment `ago` before now by the store's clock.
    fn before(&self, ago: Duration) -> DateTime<Utc> {
        let ago = TimeDelta::from_std(ago).unwrap_or(TimeDelta::MAX);
        self.clock.now().checked_sub_signed(ago).unwrap_or(DateTime::UNIX_EPOCH)
    }
}

#[async_trait]
impl InstanceStore for SqliteStore {
    async fn register(&self, instance: &NewInstance) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query(
            "INSERT INTO instances (instance_id, role, host, registered_at, heartbeat_at)
             VALUES (?1, ?2, ?3, ?4, ?4)",
        )
        .bind(instance.id.as_uuid())
        .bind(instance.role)
        .bind(&instance.host)
        .bind(micros(self.clock.now()))
        .execute(&mut *tx)
        .await
        .map_err(in_table("instances"))?;
        commit(tx).await
    }

    async fn heartbeat(&self, id: InstanceId) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let renewed = sqlx::query(
            "UPDATE instances SET heartbeat_at = ?2 WHERE instance_id = ?1 AND lost_at IS NULL",
        )
        .bind(id.as_uuid())
        // Asked once it may write: the wait for that must not make the heartbeat older.
        .bind(micros(self.clock.now()))
        .execute(&mut *tx)
        .await
        .map_err(in_table("instances"))?;
        commit(tx).await?;
        Ok(renewed.rows_affected() == 1)
    }

    async fn judge(&self, grace: Duration) -> Result<Vec<InstanceId>, StoreError> {
        let mut tx = self.write().await?;
        let lost: Vec<Uuid> = sqlx::query_scalar(
            "UPDATE instances SET lost_at = ?1 WHERE lost_at IS NULL AND heartbeat_at < ?2
             RETURNING instance_id",
        )
        .bind(micros(self.clock.now()))
        .bind(micros(self.before(grace)))
        .fetch_all(&mut *tx)
        .await
        .map_err(in_table("instances"))?;
        commit(tx).await?;
        Ok(lost.into_iter().map(InstanceId::from_uuid).collect())
    }

    async fn retire(&self, id: InstanceId) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("UPDATE instances SET lost_at = ?2 WHERE instance_id = ?1 AND lost_at IS NULL")
            .bind(id.as_uuid())
            .bind(micros(self.clock.now()))
            .execute(&mut *tx)
            .await
            .map_err(in_table("instances"))?;
        commit(tx).await
    }

    async fn retire_others(&self, id: InstanceId) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query(
            "UPDATE instances SET lost_at = ?2 WHERE instance_id <> ?1 AND lost_at IS NULL",
        )
        .bind(id.as_uuid())
        .bind(micros(self.clock.now()))
        .execute(&mut *tx)
        .await
        .map_err(in_table("instances"))?;
        commit(tx).await
    }

    async fn rescue(
        &self,
        to: InstanceId,
        now: DateTime<Utc>,
        limit: u32,
    ) -> Result<Rescued, StoreError> {
        let mut tx = self.write().await?;
        if !is_alive(&mut tx, to).await? {
            // Its own work is about to be rescued.
            return Ok(Rescued::default());
        }
        let mut rescued = rescue_running(&mut tx, to, now, limit).await?;
        let n_running = rescued.requeued + rescued.failed.len() as u64;
        let left = u64::from(limit).saturating_sub(n_running);
        rescued.wakeups.extend(rescue_queued(&mut tx, to, left).await?);
        rescued.deliveries = free_deliveries(&mut tx, now, limit).await?;
        commit(tx).await?;
        Ok(rescued)
    }

    async fn forget_instances(&self, age: Duration) -> Result<u64, StoreError> {
        let mut tx = self.write().await?;
        let forgotten = sqlx::query(FORGET)
            .bind(micros(self.before(age)))
            .execute(&mut *tx)
            .await
            .map_err(in_table("instances"))?;
        commit(tx).await?;
        Ok(forgotten.rows_affected())
    }
}

async fn is_alive(tx: &mut SqliteConnection, id: InstanceId) -> Result<bool, StoreError> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM instances WHERE instance_id = ?1 AND lost_at IS NULL)",
    )
    .bind(id.as_uuid())
    .fetch_one(tx)
    .await
    .map_err(in_table("instances"))
}

/// Queues the running jobs of lost instances again, or fails those that lost too many.
async fn rescue_running(
    tx: &mut SqliteConnection,
    to: InstanceId,
    now: DateTime<Utc>,
    limit: u32,
) -> Result<Rescued, StoreError> {
    let held: Vec<HeldRow> = sqlx::query_as(RUNNING_OF_LOST)
        .bind(limit)
        .fetch_all(&mut *tx)
        .await
        .map_err(in_table("jobs"))?;
    let mut lost = Vec::with_capacity(held.len());
    for row in held {
        let instance = row.instance_id.map(InstanceId::from_uuid);
        let id = row.job.job_id;
        if let Some(job) = rows::readable(id, Job::try_from(row.job)) {
            lost.push((job, instance.expect("the query compares it")));
        }
    }
    let is_hopeless = |job: &Job| job.lost_attempts + 1 >= Limits::MAX_LOST_ATTEMPTS;
    let (hopeless, others): (Vec<&Job>, Vec<&Job>) =
        lost.iter().map(|(job, _)| job).partition(|job| is_hopeless(job));
    sqlx::query(
        "UPDATE jobs
         SET status = 'queued', instance_id = ?2, lost_attempts = lost_attempts + 1,
             ready_at = ?3, run_at = NULL
         WHERE job_id IN (SELECT unhex(value) FROM json_each(?1)) AND status = 'running'",
    )
    .bind(ids(others.iter().map(|job| job.id.as_uuid())))
    .bind(to.as_uuid())
    .bind(micros(now))
    .execute(&mut *tx)
    .await
    .map_err(in_table("jobs"))?;
    end_lost_attempts(tx, &lost, now).await?;
    fail_hopeless(tx, &hopeless, now).await?;
    let failed = |job: &Job| Job {
        status: JobStatus::Failed,
        lost_attempts: job.lost_attempts + 1,
        finished_at: Some(now),
        ..job.clone()
    };
    let wakeup = |job: &&Job| Wakeup {
        job_id: job.id,
        lane: job.lane(),
        attempt: job.attempt,
        reply_to: job.reply_to,
    };
    Ok(Rescued {
        wakeups: others.iter().map(wakeup).collect(),
        requeued: others.len() as u64,
        failed: hopeless.iter().map(|job| failed(job)).collect(),
        deliveries: 0,
    })
}

async fn end_lost_attempts(
    tx: &mut SqliteConnection,
    lost: &[(Job, InstanceId)],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let (error, usage) = (rows::lost(), Usage::default());
    let ends: Vec<AttemptEnd<'_>> = lost
        .iter()
        .map(|(job, instance)| AttemptEnd {
            job,
            instance: *instance,
            outcome: AttemptOutcome::Lost,
            error: Some(&error),
            usage: &usage,
            vendor_request_id: None,
        })
        .collect();
    insert_attempts(tx, &ends, now).await
}

async fn fail_hopeless(
    tx: &mut SqliteConnection,
    hopeless: &[&Job],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    if hopeless.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE jobs
         SET status = 'failed', instance_id = NULL, lost_attempts = lost_attempts + 1,
             finished_at = ?2
         WHERE job_id IN (SELECT unhex(value) FROM json_each(?1)) AND status = 'running'",
    )
    .bind(ids(hopeless.iter().map(|job| job.id.as_uuid())))
    .bind(micros(now))
    .execute(&mut *tx)
    .await
    .map_err(in_table("jobs"))?;
    let (error, usage) = (rows::lost_too_often(), Usage::default());
    let ends: Vec<JobEnd<'_>> = hopeless
        .iter()
        .map(|job| JobEnd {
            job,
            status: JobStatus::Failed,
            response: None,
            error: Some(&error),
            usage: &usage,
        })
        .collect();
    insert_results(tx, &ends, now).await
}

#[derive(FromRow)]
struct QueuedRow {
    #[sqlx(flatten)]
    wakeup: WakeupRow,
    waits: bool,
}

/// Gives the queued jobs of lost instances a new publisher; those that wait need no message yet.
async fn rescue_queued(
    tx: &mut SqliteConnection,
    to: InstanceId,
    limit: u64,
) -> Result<Vec<Wakeup>, StoreError> {
    let queued: Vec<QueuedRow> = sqlx::query_as(RESCUE_QUEUED)
        .bind(to.as_uuid())
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(tx)
        .await
        .map_err(in_table("jobs"))?;
    let ready = queued.into_iter().filter(|row| !row.waits).map(|row| row.wakeup).collect();
    Ok(rows::wakeups(ready))
}

async fn free_deliveries(
    tx: &mut SqliteConnection,
    now: DateTime<Utc>,
    limit: u32,
) -> Result<u64, StoreError> {
    let freed = sqlx::query(FREE_DELIVERIES)
        .bind(micros(now))
        .bind(limit)
        .execute(tx)
        .await
        .map_err(in_table("deliveries"))?;
    Ok(freed.rows_affected())
}

pub(super) const RUNNING_OF_LOST: &str = concat!(
    "SELECT ",
    job_columns!(),
    ", instance_id FROM jobs
         WHERE status IN ('queued', 'running') AND status = 'running'
             AND instance_id IN (SELECT instance_id FROM instances WHERE lost_at IS NOT NULL)
         LIMIT ?1"
);

pub(super) const RESCUE_QUEUED: &str = "UPDATE jobs SET instance_id = ?1
         WHERE job_id IN (
             SELECT job_id FROM jobs
             WHERE status IN ('queued', 'running') AND status = 'queued'
                 AND instance_id IN (SELECT instance_id FROM instances WHERE lost_at IS NOT NULL)
             LIMIT ?2
         ) AND status = 'queued'
         RETURNING job_id, vendor, priority, attempt, reply_to, run_at IS NOT NULL AS waits";

pub(super) const FREE_DELIVERIES: &str =
    "UPDATE deliveries SET status = 'pending', instance_id = NULL, next_attempt_at = ?1
         WHERE delivery_id IN (
             SELECT delivery_id FROM deliveries
             WHERE status = 'delivering'
                 AND instance_id IN (SELECT instance_id FROM instances WHERE lost_at IS NOT NULL)
             LIMIT ?2
         ) AND status = 'delivering'";

pub(super) const FORGET: &str = "DELETE FROM instances
             WHERE lost_at < ?1
                 AND NOT EXISTS (
                     SELECT 1 FROM jobs AS j
                     WHERE j.instance_id = instances.instance_id
                         AND j.status IN ('queued', 'running')
                 )
                 AND NOT EXISTS (
                     SELECT 1 FROM deliveries AS d
                     WHERE d.instance_id = instances.instance_id AND d.status = 'delivering'
                 )";
