//! Jobs: the moves, each in its own file, and what is read of them.

use std::collections::HashMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::{FromRow, SqliteConnection};
use uuid::Uuid;

use super::{
    SqliteStore, commit,
    ending::{AttemptEnd, JobEnd, insert_attempts, insert_results},
    error::in_table,
    run, submit, sweep,
    values::{ids, micros},
};
use crate::{
    id::{AccountId, InstanceId, JobId},
    job::{Attempt, AttemptOutcome, Job, JobStatus, Json, Lane, NewJob, Outcome},
    store::{
        Cancelled, Claim, FoundJob, JobFilter, JobStore, LaneCount, Page, PageRequest, StoreError,
        Submitted, Wakeup,
        rows::{self, AttemptRow, JobRow, Reader, ResultRow, Window},
    },
    usage::Usage,
};

/// The columns of a [`JobRow`]; a macro, because statements are literals.
macro_rules! job_columns {
    () => {
        "job_id, account_id, operation, alias, vendor, model, model_id, retry_of, priority, \
         status, attempt, lost_attempts, timeout_ms, num_retries, total_timeout_ms, route, \
         stream, callback_url, metadata, reply_to, created_at, run_at, expires_at, started_at, \
         attempt_started_at, finished_at, credential"
    };
}
pub(super) use job_columns;

/// The jobs with these ids, as far as they exist.
pub(super) async fn jobs_by_id(
    connection: &mut SqliteConnection,
    jobs: &[Uuid],
) -> Result<HashMap<JobId, Job>, StoreError> {
    if jobs.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<JobRow<i64>> = sqlx::query_as(concat!(
        "SELECT ",
        job_columns!(),
        " FROM jobs WHERE job_id IN (SELECT unhex(value) FROM json_each(?1))"
    ))
    .bind(ids(jobs.iter().copied()))
    .fetch_all(connection)
    .await
    .map_err(in_table("jobs"))?;
    Ok(rows::all::<_, Job>(rows)?.into_iter().map(|job| (job.id, job)).collect())
}

#[derive(FromRow)]
pub(super) struct HeldRow {
    #[sqlx(flatten)]
    pub(super) job: JobRow<i64>,
    pub(super) instance_id: Option<Uuid>,
}

#[derive(FromRow)]
pub(super) struct EndedRow {
    #[sqlx(flatten)]
    pub(super) job: JobRow<i64>,
    #[sqlx(flatten)]
    pub(super) result: ResultRow,
}

#[derive(FromRow)]
struct LaneRow {
    vendor: String,
    priority: String,
    queued: i64,
    running: i64,
}

impl TryFrom<LaneRow> for LaneCount {
    type Error = StoreError;

    fn try_from(row: LaneRow) -> Result<Self, StoreError> {
        Ok(Self {
            lane: rows::lane(&row.vendor, &row.priority)?,
            queued: Reader("jobs").count("status", row.queued)?,
            running: Reader("jobs").count("status", row.running)?,
        })
    }
}

async fn cancel(
    store: &SqliteStore,
    id: JobId,
    account: &AccountId,
    now: DateTime<Utc>,
) -> Result<Option<Cancelled>, StoreError> {
    let mut tx = store.write().await?;
    let row: Option<HeldRow> = sqlx::query_as(concat!(
        "SELECT ",
        job_columns!(),
        ", instance_id FROM jobs WHERE job_id = ?1 AND account_id = ?2"
    ))
    .bind(id.as_uuid())
    .bind(account.as_str())
    .fetch_optional(&mut *tx)
    .await
    .map_err(in_table("jobs"))?;
    let Some(row) = row else { return Ok(None) };
    let held_by = row.instance_id.map(InstanceId::from_uuid);
    let mut job = Job::try_from(row.job)?;
    if job.status.is_final() {
        return Ok(Some(Cancelled::Already(Box::new(job))));
    }
    let ran_at = held_by.filter(|_| job.status == JobStatus::Running);
    // No race to guard against: this transaction holds the only right to write.
    sqlx::query(
        "UPDATE jobs
         SET status = 'cancelled', finished_at = ?2, instance_id = NULL, run_at = NULL
         WHERE job_id = ?1 AND status IN ('queued', 'running')",
    )
    .bind(id.as_uuid())
    .bind(micros(now))
    .execute(&mut *tx)
    .await
    .map_err(in_table("jobs"))?;
    let (error, usage) = (rows::cancelled(), Usage::default());
    if let Some(instance) = ran_at {
        let end = AttemptEnd {
            job: &job,
            instance,
            outcome: AttemptOutcome::Cancelled,
            error: Some(&error),
            usage: &usage,
            vendor_request_id: None,
        };
        insert_attempts(&mut tx, &[end], now).await?;
    }
    let end = JobEnd {
        job: &job,
        status: JobStatus::Cancelled,
        response: None,
        error: Some(&error),
        usage: &usage,
    };
    insert_results(&mut tx, &[end], now).await?;
    commit(tx).await?;
    job.status = JobStatus::Cancelled;
    job.run_at = None;
    job.finished_at = Some(now);
    Ok(Some(Cancelled::Now { job: Box::new(job), ran_at }))
}

#[async_trait]
impl JobStore for SqliteStore {
    async fn submit(
        &self,
        jobs: &[NewJob],
        publisher: InstanceId,
    ) -> Result<Vec<Submitted>, StoreError> {
        submit::submit(self, jobs, publisher).await
    }

    async fn claim(
        &self,
        ids: &[JobId],
        instance: InstanceId,
        now: DateTime<Utc>,
    ) -> Result<Vec<Claim>, StoreError> {
        run::claim(self, ids, instance, now).await
    }

    async fn finish(
        &self,
        outcomes: &[(Claim, Outcome)],
        now: DateTime<Utc>,
    ) -> Result<Vec<bool>, StoreError> {
        run::finish(self, outcomes, now).await
    }

    async fn revoked(
        &self,
        instance: InstanceId,
        held: &[(JobId, u32)],
    ) -> Result<Vec<JobId>, StoreError> {
        run::revoked(self, instance, held).await
    }

    async fn strays(
        &self,
        instance: InstanceId,
        held: &[(JobId, u32)],
        before: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<Claim>, StoreError> {
        run::strays(self, instance, held, before, limit).await
    }

    async fn cancel(
        &self,
        id: JobId,
        account: &AccountId,
        now: DateTime<Utc>,
    ) -> Result<Option<Cancelled>, StoreError> {
        cancel(self, id, account, now).await
    }

    async fn expire(&self, now: DateTime<Utc>, limit: u32) -> Result<Vec<Job>, StoreError> {
        sweep::expire(self, now, limit).await
    }

    async fn take_due(
        &self,
        publisher: InstanceId,
        now: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<Wakeup>, StoreError> {
        sweep::take_due(self, publisher, now, limit).await
    }

    async fn overdue(
        &self,
        lane: Lane,
        ready_before: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<Wakeup>, StoreError> {
        sweep::overdue(self, lane, ready_before, limit).await
    }

    async fn find_jobs(
        &self,
        wanted: &[(JobId, AccountId)],
    ) -> Result<Vec<Option<FoundJob>>, StoreError> {
        let rows: Vec<EndedRow> = sqlx::query_as(concat!(
            "SELECT ",
            job_columns!(),
            ", response, error, usage FROM jobs LEFT JOIN job_results USING (job_id)
             WHERE job_id IN (SELECT unhex(value) FROM json_each(?1))"
        ))
        .bind(ids(wanted.iter().map(|(id, _)| id.as_uuid())))
        .fetch_all(&self.readers)
        .await
        .map_err(in_table("jobs"))?;
        rows::found(wanted, rows.into_iter().map(|row| (row.job, row.result)))
    }

    async fn find_args(&self, id: JobId, account: &AccountId) -> Result<Option<Json>, StoreError> {
        let args: Option<String> = sqlx::query_scalar(
            "SELECT args FROM jobs JOIN job_inputs USING (job_id)
             WHERE job_id = ?1 AND account_id = ?2",
        )
        .bind(id.as_uuid())
        .bind(account.as_str())
        .fetch_optional(&self.readers)
        .await
        .map_err(in_table("job_inputs"))?;
        args.map(|args| Reader("job_inputs").json("args", args)).transpose()
    }

    async fn list_jobs(
        &self,
        account: &AccountId,
        filter: &JobFilter,
        page: &PageRequest<JobId>,
    ) -> Result<Page<Job>, StoreError> {
        let window = Window::of(page, JobId::as_uuid);
        let statement = if window.descending { LIST_DOWN } else { LIST_UP };
        let rows: Vec<JobRow<i64>> = sqlx::query_as(statement)
            .bind(account.as_str())
            .bind(window.low)
            .bind(window.high)
            .bind(filter.status.map(JobStatus::as_str))
            .bind(filter.vendor.map(crate::vendor::Vendor::as_str))
            .bind(filter.model.as_deref())
            .bind(window.fetch)
            .fetch_all(&self.readers)
            .await
            .map_err(in_table("jobs"))?;
        window.page(rows)
    }

    async fn list_attempts(&self, id: JobId) -> Result<Vec<Attempt>, StoreError> {
        let rows: Vec<AttemptRow<i64>> = sqlx::query_as(
            "SELECT job_id, number, outcome, instance_id, started_at, finished_at, error, usage,
                 vendor_request_id
             FROM attempts WHERE job_id = ?1 ORDER BY number",
        )
        .bind(id.as_uuid())
        .fetch_all(&self.readers)
        .await
        .map_err(in_table("attempts"))?;
        rows::all(rows)
    }

    async fn count_lanes(&self) -> Result<Vec<LaneCount>, StoreError> {
        let rows: Vec<LaneRow> =
            sqlx::query_as(COUNT_LANES).fetch_all(&self.readers).await.map_err(in_table("jobs"))?;
        rows::all(rows)
    }

    async fn remove_finished(&self, before: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        sweep::remove_finished(self, before, limit).await
    }
}

macro_rules! list_jobs {
    ($order:literal) => {
        concat!(
            "SELECT ",
            job_columns!(),
            " FROM jobs
             WHERE account_id = ?1 AND job_id > ?2 AND job_id < ?3
                 AND (?4 IS NULL OR status = ?4)
                 AND (?5 IS NULL OR vendor = ?5)
                 AND (?6 IS NULL OR model = ?6)
             ORDER BY job_id ",
            $order,
            " LIMIT ?7"
        )
    };
}

const LIST_UP: &str = list_jobs!("ASC");
pub(super) const LIST_DOWN: &str = list_jobs!("DESC");

pub(super) const COUNT_LANES: &str =
    "SELECT vendor, priority, count(*) FILTER (WHERE status = 'queued') AS queued,
                 count(*) FILTER (WHERE status = 'running') AS running
             FROM jobs WHERE status IN ('queued', 'running') GROUP BY vendor, priority";
