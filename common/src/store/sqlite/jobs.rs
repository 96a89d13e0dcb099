//! Jobs: the moves, each in its own file, and what is read of them.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rusqlite::{Row, params, types::FromSql};

use super::{
    SqliteStore,
    ending::{AttemptEnd, JobEnd, insert_attempt, insert_result},
    error::in_table,
    run, streams, submit, sweep,
    values::{ids, micros},
    writer::{Durability, Tx},
};
use crate::{
    id::{AccountId, InstanceId, JobId},
    job::{Attempt, AttemptOutcome, Job, JobStatus, Json, Lane, NewJob, Outcome},
    store::{
        Cancelled, Claim, FoundJob, JobFilter, JobStore, LaneCount, Page, PageRequest, StoreError,
        Submitted, Twin, Wakeup,
        rows::{self, AttemptRow, FoundRow, HeldRow, JobRow, LaneRow, Reader, Window},
    },
    stream::{ChunkGroup, Outline},
    usage::Usage,
};

/// The columns of a [`JobRow`]; a macro, because statements are literals.
macro_rules! job_columns {
    () => {
        "job_id, account_id, operation, alias, vendor, model, model_id, retry_of, priority, \
         status, attempt, lost_attempts, timeout_ms, num_retries, total_timeout_ms, route, \
         stream, callback_url, metadata, reply_to, created_at, run_at, expires_at, started_at, \
         attempt_started_at, finished_at, credential, deferred, ticket"
    };
}
pub(super) use job_columns;

/// Jobs by their ids, each with its result if there is one.
pub(super) const FIND: &str = concat!(
    "SELECT ",
    job_columns!(),
    ", response, error, usage FROM jobs LEFT JOIN job_results USING (job_id)
     WHERE job_id IN (SELECT unhex(value) FROM json_each(?1))"
);

/// The columns of a row that the writer reads, one after the other.
pub(super) struct Columns<'a> {
    row: &'a Row<'a>,
    next: usize,
}

impl<'a> Columns<'a> {
    pub(super) fn of(row: &'a Row<'a>) -> Self {
        Self { row, next: 0 }
    }

    pub(super) fn next<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        let value = self.row.get(self.next);
        self.next += 1;
        value
    }
}

/// Reads the columns of `job_columns!`, in its order.
pub(super) fn job_row(columns: &mut Columns<'_>) -> rusqlite::Result<JobRow<i64>> {
    Ok(JobRow {
        job_id: columns.next()?,
        account_id: columns.next()?,
        operation: columns.next()?,
        alias: columns.next()?,
        vendor: columns.next()?,
        model: columns.next()?,
        model_id: columns.next()?,
        retry_of: columns.next()?,
        priority: columns.next()?,
        status: columns.next()?,
        attempt: columns.next()?,
        lost_attempts: columns.next()?,
        timeout_ms: columns.next()?,
        num_retries: columns.next()?,
        total_timeout_ms: columns.next()?,
        route: columns.next()?,
        stream: columns.next()?,
        callback_url: columns.next()?,
        metadata: columns.next()?,
        reply_to: columns.next()?,
        created_at: columns.next()?,
        run_at: columns.next()?,
        expires_at: columns.next()?,
        started_at: columns.next()?,
        attempt_started_at: columns.next()?,
        finished_at: columns.next()?,
        credential: columns.next()?,
        deferred: columns.next()?,
        ticket: columns.next()?,
    })
}

/// The columns of `job_columns!`, then `instance_id`.
pub(super) fn held_row(row: &Row<'_>) -> rusqlite::Result<HeldRow<i64>> {
    let mut columns = Columns::of(row);
    Ok(HeldRow { job: job_row(&mut columns)?, instance_id: columns.next()? })
}

fn cancel(
    tx: &Tx<'_>,
    id: JobId,
    account: &AccountId,
    now: DateTime<Utc>,
) -> Result<Option<Cancelled>, StoreError> {
    let found = concat!(
        "SELECT ",
        job_columns!(),
        ", instance_id FROM jobs WHERE job_id = ?1 AND account_id = ?2"
    );
    let row = tx.optional("jobs", found, params![id.as_uuid(), account.as_str()], held_row)?;
    let Some(row) = row else { return Ok(None) };
    let held_by = row.instance_id.map(InstanceId::from_uuid);
    let mut job = Job::try_from(row.job)?;
    if job.status.is_final() {
        return Ok(Some(Cancelled::Already(Box::new(job))));
    }
    let ran_at = held_by.filter(|_| job.status == JobStatus::Running);
    // No race to guard against: this transaction holds the only right to write.
    tx.execute(
        "jobs",
        "UPDATE jobs
         SET status = 'cancelled', finished_at = ?2, instance_id = NULL, run_at = NULL,
             ticket = NULL
         WHERE job_id = ?1 AND status IN ('queued', 'running')",
        params![id.as_uuid(), micros(now)],
    )?;
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
        insert_attempt(tx, &end, now)?;
    }
    let end = JobEnd {
        job: &job,
        status: JobStatus::Cancelled,
        response: None,
        error: Some(&error),
        usage: &usage,
    };
    insert_result(tx, &end, now)?;
    job.status = JobStatus::Cancelled;
    (job.run_at, job.ticket) = (None, None);
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

    async fn lent(&self, ids: &[JobId], instance: InstanceId) -> Result<Vec<Claim>, StoreError> {
        run::lent(self, ids, instance).await
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
        let account = account.clone();
        let cancel = move |tx: &Tx<'_>| cancel(tx, id, &account, now);
        self.writer.write(Durability::Disk, cancel).await
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
        let rows: Vec<FoundRow<i64>> = sqlx::query_as(FIND)
            .bind(ids(wanted.iter().map(|(id, _)| id.as_uuid())))
            .fetch_all(&self.readers)
            .await
            .map_err(in_table("jobs"))?;
        rows::found(wanted, rows)
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
        let rows: Vec<AttemptRow<i64>> = sqlx::query_as(LIST_ATTEMPTS)
            .bind(id.as_uuid())
            .fetch_all(&self.readers)
            .await
            .map_err(in_table("attempts"))?;
        rows::all(rows)
    }

    async fn append_chunks(
        &self,
        groups: &[(InstanceId, ChunkGroup)],
    ) -> Result<Vec<bool>, StoreError> {
        streams::append(self, groups).await
    }

    async fn read_chunks(
        &self,
        id: JobId,
        attempt: u32,
        from: u64,
        max_bytes: usize,
    ) -> Result<Vec<ChunkGroup>, StoreError> {
        streams::read(self, id, attempt, from, max_bytes).await
    }

    async fn outline(&self, id: JobId, account: &AccountId) -> Result<Option<Outline>, StoreError> {
        streams::outline(self, id, account).await
    }

    async fn find_twin(
        &self,
        twin: &Twin,
        since: DateTime<Utc>,
    ) -> Result<Option<Job>, StoreError> {
        streams::find_twin(self, twin, since).await
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

pub(super) const LIST_ATTEMPTS: &str = "
    SELECT job_id, number, outcome, instance_id, started_at, finished_at, error, usage,
        vendor_request_id
    FROM attempts WHERE job_id = ?1 ORDER BY number";

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

/// The inner count goes along the index and keeps nothing; to group it all by lane at once, every
/// unfinished job would be sorted.
pub(super) const COUNT_LANES: &str = "
    SELECT vendor, priority, coalesce(sum(n) FILTER (WHERE status = 'queued'), 0) AS queued,
        coalesce(sum(n) FILTER (WHERE status = 'running'), 0) AS running
    FROM (
        SELECT status, vendor, priority, count(*) AS n FROM jobs
        WHERE status IN ('queued', 'running') GROUP BY instance_id, status, vendor, priority
    )
    GROUP BY vendor, priority";
