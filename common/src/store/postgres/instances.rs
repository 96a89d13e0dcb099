//! Who is alive, by the clock of the server; and what becomes of what the dead held.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::{
    PostgresStore,
    finish::write_ends,
    jobs::{Step, job_columns},
    streams::streams_begun,
    sweep::deliveries_owed,
};
use crate::{
    error::JobError,
    id::{InstanceId, JobId},
    job::{AttemptOutcome, Job, JobStatus, Limits},
    store::{
        InstanceStore, NewInstance, Rescued, StoreError, Wakeup,
        rows::{self, HeldRow},
    },
};

/// A server that started only just now has had no heartbeats before: nobody is judged until
/// everyone has had `grace` to renew.
pub(super) const JUDGE: &str = "
UPDATE instances SET lost_at = clock_timestamp()
WHERE lost_at IS NULL
    AND heartbeat_at < clock_timestamp() - make_interval(secs => $1)
    AND pg_postmaster_start_time() < clock_timestamp() - make_interval(secs => $1)
RETURNING instance_id";

/// Nothing is handed to an instance that is lost itself. What is locked is being claimed, finished
/// or cancelled, or another one rescues it; the next sweep sees what became of it.
pub(super) const ORPHANS: &str = concat!(
    "SELECT ",
    job_columns!(),
    ", jobs.instance_id
    FROM jobs
    WHERE jobs.status IN ('queued', 'running')
        AND jobs.instance_id = ANY (ARRAY(
            SELECT instance_id FROM instances WHERE lost_at IS NOT NULL
        ))
        AND EXISTS (SELECT FROM instances WHERE instance_id = $1 AND lost_at IS NULL)
    LIMIT $2
    FOR UPDATE SKIP LOCKED"
);

pub(super) const ADOPT: &str = "
WITH moved AS (
    UPDATE jobs
    SET status = input.status,
        lost_attempts = jobs.lost_attempts + input.ran::int4,
        run_at = CASE WHEN input.ran THEN NULL ELSE jobs.run_at END,
        ticket = CASE WHEN input.status = 'queued' THEN jobs.ticket END,
        ready_at = CASE
            WHEN input.ran AND input.status = 'queued' THEN $5 ELSE jobs.ready_at
        END,
        finished_at = CASE WHEN input.status <> 'queued' THEN $5 END,
        instance_id = CASE WHEN input.status = 'queued' THEN $4::uuid END
    FROM unnest($1::uuid[], $2::text[], $3::bool[]) AS input (job_id, status, ran)
    WHERE jobs.job_id = ANY (ARRAY[input.job_id])
    RETURNING jobs.job_id
)
INSERT INTO attempts (job_id, number, outcome, instance_id, started_at, finished_at, error)
SELECT job_id, number, $11, instance_id, started_at, $5, $10::json
FROM unnest($6::uuid[], $7::int4[], $8::uuid[], $9::timestamptz[])
    AS tried (job_id, number, instance_id, started_at)";

pub(super) const FREE_DELIVERIES: &str = "
WITH held AS (
    SELECT delivery_id
    FROM deliveries
    WHERE status = 'delivering'
        AND instance_id = ANY (ARRAY(
            SELECT instance_id FROM instances WHERE lost_at IS NOT NULL
        ))
        AND EXISTS (SELECT FROM instances WHERE instance_id = $1 AND lost_at IS NULL)
    LIMIT $3
    FOR UPDATE SKIP LOCKED
)
UPDATE deliveries SET status = 'pending', instance_id = NULL, next_attempt_at = $2
FROM held
WHERE deliveries.delivery_id = ANY (ARRAY[held.delivery_id])";

pub(super) const FORGET: &str = "
DELETE FROM instances
WHERE lost_at < clock_timestamp() - make_interval(secs => $1)
    AND NOT EXISTS (
        SELECT FROM jobs
        WHERE jobs.instance_id = ANY (ARRAY[instances.instance_id])
            AND jobs.status IN ('queued', 'running')
    )
    AND NOT EXISTS (
        SELECT FROM deliveries
        WHERE deliveries.instance_id = ANY (ARRAY[instances.instance_id])
            AND deliveries.status = 'delivering'
    )";

#[async_trait]
impl InstanceStore for PostgresStore {
    async fn register(&self, instance: &NewInstance) -> Result<(), StoreError> {
        // Repeating it must do no harm: the answer to the first may have been lost.
        let query = "
            INSERT INTO instances (instance_id, role, host, registered_at, heartbeat_at)
            VALUES ($1, $2, $3, clock_timestamp(), clock_timestamp())
            ON CONFLICT (instance_id) DO NOTHING";
        self.run(|lent| {
            let query = sqlx::query(query)
                .bind(instance.id.as_uuid())
                .bind(instance.role)
                .bind(&instance.host);
            Box::pin(query.execute(lent.connection()))
        })
        .await?;
        Ok(())
    }

    async fn heartbeat(&self, id: InstanceId) -> Result<bool, StoreError> {
        let query = "
            UPDATE instances SET heartbeat_at = clock_timestamp()
            WHERE instance_id = $1 AND lost_at IS NULL";
        let renewed = self
            .run(|lent| Box::pin(sqlx::query(query).bind(id.as_uuid()).execute(lent.connection())))
            .await?;
        Ok(renewed.rows_affected() > 0)
    }

    async fn judge(&self, grace: Duration) -> Result<Vec<InstanceId>, StoreError> {
        let lost: Vec<Uuid> = self
            .run(|lent| {
                let query = sqlx::query_scalar(JUDGE).bind(grace.as_secs_f64());
                Box::pin(query.fetch_all(lent.connection()))
            })
            .await?;
        Ok(lost.into_iter().map(InstanceId::from_uuid).collect())
    }

    async fn retire(&self, id: InstanceId) -> Result<(), StoreError> {
        let query = "
            UPDATE instances SET lost_at = clock_timestamp()
            WHERE instance_id = $1 AND lost_at IS NULL";
        self.run(|lent| Box::pin(sqlx::query(query).bind(id.as_uuid()).execute(lent.connection())))
            .await?;
        Ok(())
    }

    async fn retire_others(&self, id: InstanceId) -> Result<(), StoreError> {
        let query = "
            UPDATE instances SET lost_at = clock_timestamp()
            WHERE instance_id <> $1 AND lost_at IS NULL";
        self.run(|lent| Box::pin(sqlx::query(query).bind(id.as_uuid()).execute(lent.connection())))
            .await?;
        Ok(())
    }

    async fn rescue(
        &self,
        to: InstanceId,
        now: DateTime<Utc>,
        limit: u32,
    ) -> Result<Rescued, StoreError> {
        self.run(|lent| {
            Box::pin(async move {
                let mut transaction = lent.connection().begin().await?;
                let mut rescued = match rescue_jobs(&mut transaction, to, now, limit).await? {
                    Ok(rescued) => rescued,
                    Err(error) => return Ok(Err(error)),
                };
                let freed = sqlx::query(FREE_DELIVERIES)
                    .bind(to.as_uuid())
                    .bind(now)
                    .bind(i64::from(limit))
                    .execute(&mut *transaction)
                    .await?;
                rescued.deliveries = freed.rows_affected();
                transaction.commit().await?;
                Step::Ok(Ok(rescued))
            })
        })
        .await?
    }

    async fn forget_instances(&self, age: Duration) -> Result<u64, StoreError> {
        let forgotten = self
            .run(|lent| {
                let query = sqlx::query(FORGET).bind(age.as_secs_f64());
                Box::pin(query.execute(lent.connection()))
            })
            .await?;
        Ok(forgotten.rows_affected())
    }
}

/// A job of a lost instance, and what it becomes.
struct Orphan {
    job: Job,
    ran_at: Option<InstanceId>,
    /// Why it is not run again.
    error: Option<JobError>,
}

impl Orphan {
    fn new(job: Job, holder: Option<Uuid>) -> Self {
        let ran_at = holder.map(InstanceId::from_uuid).filter(|_| job.status == JobStatus::Running);
        let too_often = job.lost_attempts + 1 >= Limits::MAX_LOST_ATTEMPTS;
        let error = (ran_at.is_some() && too_often).then(rows::lost_too_often);
        Self { job, ran_at, error }
    }

    fn becomes(&self) -> JobStatus {
        if self.error.is_some() { JobStatus::Failed } else { JobStatus::Queued }
    }
}

async fn rescue_jobs(
    connection: &mut PgConnection,
    to: InstanceId,
    now: DateTime<Utc>,
    limit: u32,
) -> Step<Rescued> {
    let found: Vec<HeldRow<DateTime<Utc>>> = sqlx::query_as(ORPHANS)
        .bind(to.as_uuid())
        .bind(i64::from(limit))
        .fetch_all(&mut *connection)
        .await?;
    let mut orphans = Vec::with_capacity(found.len());
    for row in found {
        let id = row.job.job_id;
        if let Some(job) = rows::readable(id, row.job.try_into()) {
            orphans.push(Orphan::new(job, row.instance_id));
        }
    }
    if orphans.is_empty() {
        return Ok(Ok(Rescued::default()));
    }
    // After the rows were locked: what is stored of a stream by now is all there will be.
    let streams = orphans.iter().map(|orphan| &orphan.job).filter(|job| rows::loses_stream(job));
    let begun = streams_begun(connection, streams).await?;
    for orphan in
        orphans.iter_mut().filter(|orphan| begun.contains(&(orphan.job.id, orphan.job.attempt)))
    {
        orphan.error = Some(rows::stream_lost(orphan.job.id));
    }
    adopt(connection, &orphans, to, now).await?;
    let mut rescued = Rescued::default();
    let mut ends = Vec::new();
    for orphan in orphans {
        let becomes = orphan.becomes();
        let Orphan { mut job, ran_at, error } = orphan;
        if let Some(error) = error {
            (job.status, job.finished_at, job.ticket) = (becomes, Some(now), None);
            job.lost_attempts += 1;
            ends.push((job.id, error));
            rescued.failed.push(job);
            continue;
        }
        rescued.requeued += u64::from(ran_at.is_some());
        // One that waits is published when it is due.
        if ran_at.is_some() || job.run_at.is_none() {
            rescued.wakeups.push(Wakeup {
                job_id: job.id,
                lane: job.lane(),
                attempt: job.attempt,
                reply_to: job.reply_to,
            });
        }
    }
    if !rescued.failed.is_empty() {
        let owed = deliveries_owed(&rescued.failed, now);
        write_ends(connection, &ends, &owed).await?;
    }
    Ok(Ok(rescued))
}

/// Writes what orphans become, and the attempts that were lost.
async fn adopt(
    connection: &mut PgConnection,
    orphans: &[Orphan],
    to: InstanceId,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = orphans.iter().map(|orphan| orphan.job.id.as_uuid()).collect();
    let becomes: Vec<&str> = orphans.iter().map(|orphan| orphan.becomes().as_str()).collect();
    let ran: Vec<bool> = orphans.iter().map(|orphan| orphan.ran_at.is_some()).collect();
    let tried: Vec<(JobId, u32, InstanceId, DateTime<Utc>)> = orphans
        .iter()
        .filter_map(|orphan| {
            let started_at = orphan.job.attempt_began_at().unwrap_or(now);
            Some((orphan.job.id, orphan.job.attempt, orphan.ran_at?, started_at))
        })
        .collect();
    sqlx::query(ADOPT)
        .bind(ids)
        .bind(becomes)
        .bind(ran)
        .bind(to.as_uuid())
        .bind(now)
        .bind(tried.iter().map(|(id, ..)| id.as_uuid()).collect::<Vec<_>>())
        .bind(tried.iter().map(|(_, number, ..)| super::submit::count(*number)).collect::<Vec<_>>())
        .bind(tried.iter().map(|(_, _, instance, _)| instance.as_uuid()).collect::<Vec<_>>())
        .bind(tried.iter().map(|(.., started_at)| *started_at).collect::<Vec<_>>())
        .bind(rows::text_of(&rows::lost()))
        .bind(AttemptOutcome::Lost.as_str())
        .execute(connection)
        .await?;
    Ok(())
}
