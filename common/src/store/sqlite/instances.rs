//! Who is alive, and what happens to the work of those who are not.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Row, params};
use uuid::Uuid;

use super::{
    SqliteStore,
    ending::{AttemptEnd, JobEnd, insert_attempt, insert_result},
    jobs::{held_row, job_columns},
    streams::has_chunks,
    sweep::wakeup_row,
    values::micros,
    writer::{Durability, Tx},
};
use crate::{
    error::JobError,
    id::InstanceId,
    job::{AttemptOutcome, Job, JobStatus, Limits},
    store::{InstanceStore, NewInstance, Rescued, StoreError, Wakeup, rows},
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
        let (instance, now) = (instance.clone(), micros(self.clock.now()));
        let register = move |tx: &Tx<'_>| {
            tx.execute(
                "instances",
                "INSERT INTO instances (instance_id, role, host, registered_at, heartbeat_at)
                 VALUES (?1, ?2, ?3, ?4, ?4)",
                params![instance.id.as_uuid(), instance.role, instance.host, now],
            )
        };
        self.writer.write(Durability::Disk, register).await.map(drop)
    }

    async fn heartbeat(&self, id: InstanceId) -> Result<bool, StoreError> {
        let clock = Arc::clone(&self.clock);
        let renew = move |tx: &Tx<'_>| {
            tx.execute(
                "instances",
                "UPDATE instances SET heartbeat_at = ?2 WHERE instance_id = ?1 AND lost_at IS NULL",
                // Asked once it may write: the wait for that must not make the heartbeat older.
                params![id.as_uuid(), micros(clock.now())],
            )
        };
        // One that a loss of power forgets is forgotten with its process.
        Ok(self.writer.write(Durability::System, renew).await? == 1)
    }

    async fn judge(&self, grace: Duration) -> Result<Vec<InstanceId>, StoreError> {
        let values = (micros(self.clock.now()), micros(self.before(grace)));
        let judge = move |tx: &Tx<'_>| {
            tx.all(
                "instances",
                "UPDATE instances SET lost_at = ?1 WHERE lost_at IS NULL AND heartbeat_at < ?2
                 RETURNING instance_id",
                values,
                |row| row.get(0),
            )
        };
        let lost: Vec<Uuid> = self.writer.write(Durability::Disk, judge).await?;
        Ok(lost.into_iter().map(InstanceId::from_uuid).collect())
    }

    async fn retire(&self, id: InstanceId) -> Result<(), StoreError> {
        let values = (id.as_uuid(), micros(self.clock.now()));
        let retire = move |tx: &Tx<'_>| {
            tx.execute(
                "instances",
                "UPDATE instances SET lost_at = ?2 WHERE instance_id = ?1 AND lost_at IS NULL",
                values,
            )
        };
        self.writer.write(Durability::Disk, retire).await.map(drop)
    }

    async fn retire_others(&self, id: InstanceId) -> Result<(), StoreError> {
        let values = (id.as_uuid(), micros(self.clock.now()));
        let retire = move |tx: &Tx<'_>| {
            tx.execute(
                "instances",
                "UPDATE instances SET lost_at = ?2 WHERE instance_id <> ?1 AND lost_at IS NULL",
                values,
            )
        };
        self.writer.write(Durability::Disk, retire).await.map(drop)
    }

    async fn rescue(
        &self,
        to: InstanceId,
        now: DateTime<Utc>,
        limit: u32,
    ) -> Result<Rescued, StoreError> {
        let rescue = move |tx: &Tx<'_>| rescue(tx, to, now, limit);
        self.writer.write(Durability::Disk, rescue).await
    }

    async fn forget_instances(&self, age: Duration) -> Result<u64, StoreError> {
        let before = micros(self.before(age));
        let forget = move |tx: &Tx<'_>| tx.execute("instances", FORGET, [before]);
        Ok(self.writer.write(Durability::Disk, forget).await? as u64)
    }
}

fn rescue(
    tx: &Tx<'_>,
    to: InstanceId,
    now: DateTime<Utc>,
    limit: u32,
) -> Result<Rescued, StoreError> {
    if !is_alive(tx, to)? {
        // Its own work is about to be rescued.
        return Ok(Rescued::default());
    }
    let mut rescued = rescue_running(tx, to, now, limit)?;
    let n_running = rescued.requeued + rescued.failed.len() as u64;
    let left = u64::from(limit).saturating_sub(n_running);
    rescued.wakeups.extend(rescue_queued(tx, to, left)?);
    rescued.deliveries = free_deliveries(tx, now, limit)?;
    Ok(rescued)
}

fn is_alive(tx: &Tx<'_>, id: InstanceId) -> Result<bool, StoreError> {
    let alive = tx.optional(
        "instances",
        "SELECT 1 FROM instances WHERE instance_id = ?1 AND lost_at IS NULL",
        [id.as_uuid()],
        |_| Ok(()),
    );
    Ok(alive?.is_some())
}

/// Queues the running jobs of lost instances again, or fails those that lost too many or had passed
/// on part of a stream.
fn rescue_running(
    tx: &Tx<'_>,
    to: InstanceId,
    now: DateTime<Utc>,
    limit: u32,
) -> Result<Rescued, StoreError> {
    let mut rescued = Rescued::default();
    for row in tx.all("jobs", RUNNING_OF_LOST, [limit], held_row)? {
        let instance = row.instance_id.map(InstanceId::from_uuid);
        let id = row.job.job_id;
        let Some(job) = rows::readable(id, Job::try_from(row.job)) else { continue };
        end_lost_attempt(tx, &job, instance.expect("the query compares it"), now)?;
        if rows::loses_stream(&job) && has_chunks(tx, &job)? {
            let error = rows::stream_lost(job.id);
            rescued.failed.push(fail_hopeless(tx, job, &error, now)?);
        } else if job.lost_attempts + 1 >= Limits::MAX_LOST_ATTEMPTS {
            rescued.failed.push(fail_hopeless(tx, job, &rows::lost_too_often(), now)?);
        } else {
            rescued.wakeups.push(requeue(tx, &job, to, now)?);
            rescued.requeued += 1;
        }
    }
    Ok(rescued)
}

fn end_lost_attempt(
    tx: &Tx<'_>,
    job: &Job,
    instance: InstanceId,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let end = AttemptEnd {
        job,
        instance,
        outcome: AttemptOutcome::Lost,
        error: Some(&rows::lost()),
        usage: &Usage::default(),
        vendor_request_id: None,
    };
    insert_attempt(tx, &end, now)
}

fn requeue(
    tx: &Tx<'_>,
    job: &Job,
    to: InstanceId,
    now: DateTime<Utc>,
) -> Result<Wakeup, StoreError> {
    tx.execute(
        "jobs",
        "UPDATE jobs
         SET status = 'queued', instance_id = ?2, lost_attempts = lost_attempts + 1,
             ready_at = ?3, run_at = NULL
         WHERE job_id = ?1 AND status = 'running'",
        params![job.id.as_uuid(), to.as_uuid(), micros(now)],
    )?;
    Ok(Wakeup { job_id: job.id, lane: job.lane(), attempt: job.attempt, reply_to: job.reply_to })
}

fn fail_hopeless(
    tx: &Tx<'_>,
    job: Job,
    error: &JobError,
    now: DateTime<Utc>,
) -> Result<Job, StoreError> {
    tx.execute(
        "jobs",
        "UPDATE jobs
         SET status = 'failed', instance_id = NULL, lost_attempts = lost_attempts + 1,
             finished_at = ?2, ticket = NULL
         WHERE job_id = ?1 AND status = 'running'",
        params![job.id.as_uuid(), micros(now)],
    )?;
    let end = JobEnd {
        job: &job,
        status: JobStatus::Failed,
        response: None,
        error: Some(error),
        usage: &Usage::default(),
    };
    insert_result(tx, &end, now)?;
    let lost_attempts = job.lost_attempts + 1;
    let (status, finished_at) = (JobStatus::Failed, Some(now));
    Ok(Job { status, lost_attempts, finished_at, ticket: None, ..job })
}

/// Gives the queued jobs of lost instances a new publisher; those that wait need no message yet.
fn rescue_queued(tx: &Tx<'_>, to: InstanceId, limit: u64) -> Result<Vec<Wakeup>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let read = |row: &Row<'_>| Ok((wakeup_row(row)?, row.get::<_, bool>(5)?));
    let queued = tx.all("jobs", RESCUE_QUEUED, params![to.as_uuid(), limit], read)?;
    let ready = queued.into_iter().filter(|(_, waits)| !waits).map(|(wakeup, _)| wakeup).collect();
    Ok(rows::wakeups(ready))
}

fn free_deliveries(tx: &Tx<'_>, now: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
    Ok(tx.execute("deliveries", FREE_DELIVERIES, params![micros(now), limit])? as u64)
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
