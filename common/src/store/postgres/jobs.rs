//! A job's life as the trait tells it; what only reads is here, the rest in its own file.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::{PostgresStore, finish::write_ends, submit::count};
use crate::{
    id::{AccountId, InstanceId, JobId},
    job::{Attempt, Job, JobStatus, Json, Lane, NewJob, Outcome},
    store::{
        Cancelled, Claim, FoundJob, JobFilter, JobStore, LaneCount, Page, PageRequest, StoreError,
        Submitted, Twin, Wakeup,
        rows::{self, AttemptRow, FoundRow, HeldRow, JobRow, LaneRow, Reader, Window},
    },
    stream::{ChunkGroup, Outline},
};

/// The columns of a [`JobRow`].
macro_rules! job_columns {
    () => {
        "jobs.job_id, jobs.account_id, jobs.operation, jobs.alias, jobs.vendor, jobs.model, \
         jobs.model_id, jobs.retry_of, jobs.priority, jobs.status, jobs.attempt, \
         jobs.lost_attempts, jobs.timeout_ms, jobs.num_retries, jobs.total_timeout_ms, \
         jobs.route, jobs.stream, jobs.callback_url, jobs.metadata::text AS metadata, \
         jobs.reply_to, jobs.created_at, jobs.run_at, jobs.expires_at, jobs.started_at, \
         jobs.attempt_started_at, jobs.finished_at, jobs.credential, jobs.deferred, jobs.ticket"
    };
}
pub(super) use job_columns;

/// The columns of a [`rows::ResultRow`].
macro_rules! result_columns {
    () => {
        "job_results.response::text AS response, job_results.error::text AS error, \
         job_results.usage::text AS usage"
    };
}
pub(super) use result_columns;

/// The columns of a [`rows::WakeupRow`].
macro_rules! wakeup_columns {
    () => {
        "jobs.job_id, jobs.vendor, jobs.priority, jobs.attempt, jobs.reply_to"
    };
}
pub(super) use wakeup_columns;

pub(super) const FIND: &str = concat!(
    "SELECT ",
    job_columns!(),
    ", ",
    result_columns!(),
    " FROM jobs LEFT JOIN job_results ON job_results.job_id = ANY (ARRAY[jobs.job_id])
    WHERE jobs.job_id = ANY ($1)"
);

pub(super) const REVOKED: &str = "
SELECT held.job_id
FROM unnest($2::uuid[], $3::int4[]) AS held (job_id, attempt)
WHERE NOT EXISTS (
    SELECT FROM jobs
    WHERE jobs.job_id = ANY (ARRAY[held.job_id]) AND jobs.status || '' = 'running'
        AND jobs.instance_id = $1 AND jobs.attempt = held.attempt
        AND (SELECT lost_at IS NULL FROM instances WHERE instance_id = $1)
)";

macro_rules! list {
    ($direction:literal) => {
        concat!(
            "SELECT ",
            job_columns!(),
            " FROM jobs
            WHERE account_id = $1 AND job_id > $2 AND job_id < $3
                AND ($4::text IS NULL OR status = $4) AND ($5::text IS NULL OR vendor = $5)
                AND ($6::text IS NULL OR model = $6)
            ORDER BY job_id ",
            $direction,
            " LIMIT $7"
        )
    };
}

pub(super) const LOCK_ONE: &str = concat!(
    "SELECT ",
    job_columns!(),
    ", jobs.instance_id FROM jobs WHERE job_id = $1 AND account_id = $2 FOR UPDATE"
);

/// A step of a transaction that also reads the domain.
pub(super) type Step<T> = Result<Result<T, StoreError>, sqlx::Error>;

#[async_trait]
impl JobStore for PostgresStore {
    async fn submit(
        &self,
        jobs: &[NewJob],
        publisher: InstanceId,
    ) -> Result<Vec<Submitted>, StoreError> {
        self.submit_jobs(jobs, publisher).await
    }

    async fn claim(
        &self,
        ids: &[JobId],
        instance: InstanceId,
        now: DateTime<Utc>,
    ) -> Result<Vec<Claim>, StoreError> {
        self.claim_jobs(ids, instance, now).await
    }

    async fn finish(
        &self,
        outcomes: &[(Claim, Outcome)],
        now: DateTime<Utc>,
    ) -> Result<Vec<bool>, StoreError> {
        self.finish_jobs(outcomes, now).await
    }

    async fn revoked(
        &self,
        instance: InstanceId,
        held: &[(JobId, u32)],
    ) -> Result<Vec<JobId>, StoreError> {
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Uuid> = held.iter().map(|(id, _)| id.as_uuid()).collect();
        let attempts: Vec<i32> = held.iter().map(|(_, attempt)| count(*attempt)).collect();
        let revoked: Vec<Uuid> = self
            .run(|lent| {
                let query =
                    sqlx::query_scalar(REVOKED).bind(instance.as_uuid()).bind(&ids).bind(&attempts);
                Box::pin(query.fetch_all(lent.connection()))
            })
            .await?;
        Ok(revoked.into_iter().map(JobId::from_uuid).collect())
    }

    async fn lent(&self, ids: &[JobId], instance: InstanceId) -> Result<Vec<Claim>, StoreError> {
        self.find_lent(ids, instance).await
    }

    async fn strays(
        &self,
        instance: InstanceId,
        held: &[(JobId, u32)],
        before: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<Claim>, StoreError> {
        self.find_strays(instance, held, before, limit).await
    }

    async fn cancel(
        &self,
        id: JobId,
        account: &AccountId,
        now: DateTime<Utc>,
    ) -> Result<Option<Cancelled>, StoreError> {
        self.run(|lent| {
            Box::pin(async move {
                let mut transaction = lent.connection().begin().await?;
                let cancelled = cancel(&mut transaction, id, account, now).await?;
                transaction.commit().await?;
                Ok(cancelled)
            })
        })
        .await?
    }

    async fn expire(&self, now: DateTime<Utc>, limit: u32) -> Result<Vec<Job>, StoreError> {
        self.expire_jobs(now, limit).await
    }

    async fn take_due(
        &self,
        publisher: InstanceId,
        now: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<Wakeup>, StoreError> {
        self.take_due_jobs(publisher, now, limit).await
    }

    async fn overdue(
        &self,
        lane: Lane,
        ready_before: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<Wakeup>, StoreError> {
        self.overdue_jobs(lane, ready_before, limit).await
    }

    async fn find_jobs(
        &self,
        wanted: &[(JobId, AccountId)],
    ) -> Result<Vec<Option<FoundJob>>, StoreError> {
        let ids: Vec<Uuid> = wanted.iter().map(|(id, _)| id.as_uuid()).collect();
        let rows: Vec<FoundRow<DateTime<Utc>>> = self
            .run(|lent| {
                let query = sqlx::query_as(FIND).bind(&ids);
                Box::pin(query.fetch_all(lent.connection()))
            })
            .await?;
        rows::found(wanted, rows)
    }

    async fn find_args(&self, id: JobId, account: &AccountId) -> Result<Option<Json>, StoreError> {
        let query = "
            SELECT job_inputs.args::text
            FROM jobs JOIN job_inputs ON job_inputs.job_id = ANY (ARRAY[jobs.job_id])
            WHERE jobs.job_id = $1 AND jobs.account_id = $2";
        let args: Option<String> = self
            .run(|lent| {
                let query = sqlx::query_scalar(query).bind(id.as_uuid()).bind(account.as_str());
                Box::pin(query.fetch_optional(lent.connection()))
            })
            .await?;
        args.map(|args| Reader("job_inputs").json("args", args)).transpose()
    }

    async fn list_jobs(
        &self,
        account: &AccountId,
        filter: &JobFilter,
        page: &PageRequest<JobId>,
    ) -> Result<Page<Job>, StoreError> {
        let window = Window::of(page, JobId::as_uuid);
        let query = if window.descending { list!("DESC") } else { list!("ASC") };
        let found: Vec<JobRow<DateTime<Utc>>> = self
            .run(|lent| {
                let query = sqlx::query_as(query)
                    .bind(account.as_str())
                    .bind(window.low)
                    .bind(window.high)
                    .bind(filter.status.map(JobStatus::as_str))
                    .bind(filter.vendor.map(crate::vendor::Vendor::as_str))
                    .bind(filter.model.as_deref())
                    .bind(window.fetch);
                Box::pin(query.fetch_all(lent.connection()))
            })
            .await?;
        window.page(found)
    }

    async fn list_attempts(&self, id: JobId) -> Result<Vec<Attempt>, StoreError> {
        let query = "
            SELECT job_id, number, outcome, instance_id, started_at, finished_at,
                error::text AS error, usage::text AS usage, vendor_request_id
            FROM attempts WHERE job_id = $1 ORDER BY number";
        let found: Vec<AttemptRow<DateTime<Utc>>> = self
            .run(|lent| {
                Box::pin(sqlx::query_as(query).bind(id.as_uuid()).fetch_all(lent.connection()))
            })
            .await?;
        rows::all(found)
    }

    async fn append_chunks(
        &self,
        groups: &[(InstanceId, ChunkGroup)],
    ) -> Result<Vec<bool>, StoreError> {
        self.append_groups(groups).await
    }

    async fn read_chunks(
        &self,
        id: JobId,
        attempt: u32,
        from: u64,
        max_bytes: usize,
    ) -> Result<Vec<ChunkGroup>, StoreError> {
        self.read_groups(id, attempt, from, max_bytes).await
    }

    async fn outline(&self, id: JobId, account: &AccountId) -> Result<Option<Outline>, StoreError> {
        self.find_outline(id, account).await
    }

    async fn find_twin(
        &self,
        twin: &Twin,
        since: DateTime<Utc>,
    ) -> Result<Option<Job>, StoreError> {
        self.find_twin_job(twin, since).await
    }

    async fn count_lanes(&self) -> Result<Vec<LaneCount>, StoreError> {
        let query = "
            SELECT vendor, priority, count(*) FILTER (WHERE status = 'queued') AS queued,
                count(*) FILTER (WHERE status = 'running') AS running
            FROM jobs WHERE status IN ('queued', 'running') GROUP BY vendor, priority";
        let found: Vec<LaneRow> =
            self.run(|lent| Box::pin(sqlx::query_as(query).fetch_all(lent.connection()))).await?;
        rows::all(found)
    }

    async fn remove_finished(&self, before: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        self.remove_finished_jobs(before, limit).await
    }
}

async fn cancel(
    connection: &mut PgConnection,
    id: JobId,
    account: &AccountId,
    now: DateTime<Utc>,
) -> Step<Option<Cancelled>> {
    let held: Option<HeldRow<DateTime<Utc>>> = sqlx::query_as(LOCK_ONE)
        .bind(id.as_uuid())
        .bind(account.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(held) = held else { return Ok(Ok(None)) };
    let mut job: Job = match held.job.try_into() {
        Ok(job) => job,
        Err(error) => return Ok(Err(error)),
    };
    if job.status.is_final() {
        return Ok(Ok(Some(Cancelled::Already(Box::new(job)))));
    }
    let error = rows::cancelled();
    let ran_at = held.instance_id.filter(|_| job.status == JobStatus::Running);
    if job.status == JobStatus::Running {
        sqlx::query(
            "INSERT INTO attempts (
                job_id, number, outcome, instance_id, started_at, finished_at, error
            )
            VALUES ($1, $2, 'cancelled', $3, $4, $5, $6::text::json)",
        )
        .bind(id.as_uuid())
        .bind(count(job.attempt))
        .bind(ran_at)
        .bind(job.attempt_began_at().unwrap_or(now))
        .bind(now)
        .bind(rows::text_of(&error))
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query(
        "UPDATE jobs
        SET status = 'cancelled', finished_at = $2, run_at = NULL, instance_id = NULL,
            ticket = NULL
        WHERE job_id = $1",
    )
    .bind(id.as_uuid())
    .bind(now)
    .execute(&mut *connection)
    .await?;
    (job.status, job.finished_at) = (JobStatus::Cancelled, Some(now));
    (job.run_at, job.ticket) = (None, None);
    let delivery = rows::delivery_owed(&job, job.status, now);
    write_ends(connection, &[(id, error)], delivery.as_slice()).await?;
    let ran_at = ran_at.map(InstanceId::from_uuid);
    Ok(Ok(Some(Cancelled::Now { job: Box::new(job), ran_at })))
}
