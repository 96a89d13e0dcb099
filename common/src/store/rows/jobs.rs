//! Jobs, their results and their attempts, as they are read.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Reader, StoredInstant};
use crate::{
    id::{AccountId, InstanceId, JobId, ModelId},
    job::{Attempt, Job, JobResult, Lane, Limits, Priority},
    store::{Claim, FoundJob, LaneCount, StoreError, Wakeup},
    usage::Usage,
};

/// A row of `jobs`; `T` is how the database keeps an instant.
#[derive(Debug, FromRow)]
pub(crate) struct JobRow<T> {
    pub(crate) job_id: Uuid,
    pub(crate) account_id: String,
    pub(crate) operation: String,
    pub(crate) alias: Option<String>,
    pub(crate) vendor: String,
    pub(crate) model: String,
    pub(crate) model_id: Option<Uuid>,
    pub(crate) retry_of: Option<Uuid>,
    pub(crate) priority: String,
    pub(crate) status: String,
    pub(crate) attempt: i32,
    pub(crate) lost_attempts: i32,
    pub(crate) timeout_ms: i64,
    pub(crate) num_retries: i32,
    pub(crate) total_timeout_ms: Option<i64>,
    pub(crate) route: Option<String>,
    pub(crate) credential: Option<String>,
    pub(crate) stream: bool,
    pub(crate) deferred: bool,
    pub(crate) ticket: Option<String>,
    pub(crate) callback_url: Option<String>,
    pub(crate) metadata: Option<String>,
    pub(crate) reply_to: Option<Uuid>,
    pub(crate) created_at: T,
    pub(crate) run_at: Option<T>,
    pub(crate) expires_at: Option<T>,
    pub(crate) started_at: Option<T>,
    pub(crate) attempt_started_at: Option<T>,
    pub(crate) finished_at: Option<T>,
}

impl<T: StoredInstant> TryFrom<JobRow<T>> for Job {
    type Error = StoreError;

    fn try_from(row: JobRow<T>) -> Result<Self, StoreError> {
        let read = Reader("jobs");
        Ok(Self {
            id: JobId::from_uuid(row.job_id),
            account: read.word("account_id", &row.account_id)?,
            operation: read.word("operation", &row.operation)?,
            alias: row.alias,
            vendor: read.word("vendor", &row.vendor)?,
            model: row.model,
            model_id: row.model_id.map(ModelId::from_uuid),
            retry_of: row.retry_of.map(JobId::from_uuid),
            priority: read.word("priority", &row.priority)?,
            status: read.word("status", &row.status)?,
            attempt: read.count("attempt", row.attempt)?,
            lost_attempts: read.count("lost_attempts", row.lost_attempts)?,
            limits: Limits {
                timeout: read.millis("timeout_ms", row.timeout_ms)?,
                num_retries: read.count("num_retries", row.num_retries)?,
                total_timeout: row
                    .total_timeout_ms
                    .map(|total| read.millis("total_timeout_ms", total))
                    .transpose()?,
            },
            route: row.route.map(|route| read.word("route", &route)).transpose()?,
            credential: row.credential.map(|name| read.word("credential", &name)).transpose()?,
            stream: row.stream,
            deferred: row.deferred,
            ticket: row.ticket,
            callback_url: row.callback_url,
            metadata: row.metadata.map(|text| read.json("metadata", text)).transpose()?,
            reply_to: row.reply_to.map(InstanceId::from_uuid),
            created_at: read.instant("created_at", row.created_at)?,
            run_at: read.optional_instant("run_at", row.run_at)?,
            expires_at: read.optional_instant("expires_at", row.expires_at)?,
            started_at: read.optional_instant("started_at", row.started_at)?,
            attempt_started_at: read
                .optional_instant("attempt_started_at", row.attempt_started_at)?,
            finished_at: read.optional_instant("finished_at", row.finished_at)?,
        })
    }
}

/// A job with the instance that answers for it.
#[derive(Debug, FromRow)]
pub(crate) struct HeldRow<T> {
    #[sqlx(flatten)]
    pub(crate) job: JobRow<T>,
    pub(crate) instance_id: Option<Uuid>,
}

/// A claimed job with its arguments.
#[derive(Debug, FromRow)]
pub(crate) struct ClaimRow<T> {
    #[sqlx(flatten)]
    pub(crate) job: JobRow<T>,
    pub(crate) args: Option<String>,
    pub(crate) ready_at: T,
}

/// Those claims of `instance` that can be read: they are good and must reach their worker. One that
/// cannot be read ends when its instance does.
pub(crate) fn claims<T: StoredInstant>(rows: Vec<ClaimRow<T>>, instance: InstanceId) -> Vec<Claim> {
    let read = |row: ClaimRow<T>| readable(row.job.job_id, row.into_claim(instance));
    rows.into_iter().filter_map(read).collect()
}

impl<T: StoredInstant> ClaimRow<T> {
    fn into_claim(self, instance: InstanceId) -> Result<Claim, StoreError> {
        let read = Reader("job_inputs");
        let args = self.args.ok_or_else(|| read.corrupt("args", "there is no row"))?;
        let args = read.json("args", args)?;
        let ready_at = Reader("jobs").instant("ready_at", self.ready_at)?;
        Ok(Claim { job: self.job.try_into()?, args, instance, ready_at })
    }
}

/// A job with its result, if there is one.
#[derive(Debug, FromRow)]
pub(crate) struct FoundRow<T> {
    #[sqlx(flatten)]
    pub(crate) job: JobRow<T>,
    #[sqlx(flatten)]
    pub(crate) result: ResultRow,
}

impl<T: StoredInstant> FoundRow<T> {
    pub(crate) fn into_found(self) -> Result<FoundJob, StoreError> {
        let job = Job::try_from(self.job)?;
        let result = if job.status.is_final() { Some(self.result.try_into()?) } else { None };
        Ok((job, result))
    }
}

/// A row of `job_results` without its key.
#[derive(Debug, Default, FromRow)]
pub(crate) struct ResultRow {
    pub(crate) response: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) usage: Option<String>,
}

impl TryFrom<ResultRow> for JobResult {
    type Error = StoreError;

    fn try_from(row: ResultRow) -> Result<Self, StoreError> {
        let read = Reader("job_results");
        Ok(Self {
            response: row.response.map(|text| read.json("response", text)).transpose()?,
            error: row.error.map(|text| read.document("error", &text)).transpose()?,
            usage: usage(read, row.usage.as_deref())?,
        })
    }
}

fn usage(read: Reader, text: Option<&str>) -> Result<Usage, StoreError> {
    text.map_or(Ok(Usage::default()), |text| read.document("usage", text))
}

/// The text of a document of ours, for its column.
pub(crate) fn text_of(document: &impl serde::Serialize) -> String {
    serde_json::to_string(document).expect("a struct of strings and numbers is always JSON")
}

/// The text of a usage, for its column; `None` when it is empty.
pub(crate) fn usage_text(usage: &Usage) -> Option<String> {
    (!usage.is_empty()).then(|| text_of(usage))
}

/// A row of `attempts`.
#[derive(Debug, FromRow)]
pub(crate) struct AttemptRow<T> {
    pub(crate) job_id: Uuid,
    pub(crate) number: i32,
    pub(crate) outcome: String,
    pub(crate) instance_id: Option<Uuid>,
    pub(crate) started_at: T,
    pub(crate) finished_at: T,
    pub(crate) error: Option<String>,
    pub(crate) usage: Option<String>,
    pub(crate) vendor_request_id: Option<String>,
}

impl<T: StoredInstant> TryFrom<AttemptRow<T>> for Attempt {
    type Error = StoreError;

    fn try_from(row: AttemptRow<T>) -> Result<Self, StoreError> {
        let read = Reader("attempts");
        Ok(Self {
            job_id: JobId::from_uuid(row.job_id),
            number: read.count("number", row.number)?,
            outcome: read.word("outcome", &row.outcome)?,
            instance: row.instance_id.map(InstanceId::from_uuid),
            started_at: read.instant("started_at", row.started_at)?,
            finished_at: read.instant("finished_at", row.finished_at)?,
            error: row.error.map(|text| read.document("error", &text)).transpose()?,
            usage: usage(read, row.usage.as_deref())?,
            vendor_request_id: row.vendor_request_id,
        })
    }
}

/// The columns of `jobs` that a message is made of.
#[derive(Debug, FromRow)]
pub(crate) struct WakeupRow {
    pub(crate) job_id: Uuid,
    pub(crate) vendor: String,
    pub(crate) priority: String,
    pub(crate) attempt: i32,
    pub(crate) reply_to: Option<Uuid>,
}

impl TryFrom<WakeupRow> for Wakeup {
    type Error = StoreError;

    fn try_from(row: WakeupRow) -> Result<Self, StoreError> {
        let read = Reader("jobs");
        Ok(Self {
            job_id: JobId::from_uuid(row.job_id),
            lane: lane(&row.vendor, &row.priority)?,
            attempt: read.count("attempt", row.attempt)?,
            reply_to: row.reply_to.map(InstanceId::from_uuid),
        })
    }
}

/// How many unfinished jobs a lane holds.
#[derive(Debug, FromRow)]
pub(crate) struct LaneRow {
    vendor: String,
    priority: String,
    queued: i64,
    running: i64,
}

impl TryFrom<LaneRow> for LaneCount {
    type Error = StoreError;

    fn try_from(row: LaneRow) -> Result<Self, StoreError> {
        let read = Reader("jobs");
        Ok(Self {
            lane: lane(&row.vendor, &row.priority)?,
            queued: read.count("status", row.queued)?,
            running: read.count("status", row.running)?,
        })
    }
}

fn lane(vendor: &str, priority: &str) -> Result<Lane, StoreError> {
    let read = Reader("jobs");
    let priority: Priority = read.word("priority", priority)?;
    Ok(Lane { vendor: read.word("vendor", vendor)?, priority })
}

/// Hands out each wanted job that was found, if it is the account's.
pub(crate) fn found<T: StoredInstant>(
    wanted: &[(JobId, AccountId)],
    rows: Vec<FoundRow<T>>,
) -> Result<Vec<Option<FoundJob>>, StoreError> {
    let mut by_id = HashMap::with_capacity(rows.len());
    for row in rows {
        let (job, result) = row.into_found()?;
        by_id.insert(job.id, (job, result));
    }
    let pick = |(id, account): &(JobId, AccountId)| {
        by_id.get(id).filter(|(job, _)| job.account == *account).cloned()
    };
    Ok(wanted.iter().map(pick).collect())
}

/// Those wake-ups that can be read.
pub(crate) fn wakeups(rows: Vec<WakeupRow>) -> Vec<Wakeup> {
    rows.into_iter().filter_map(|row| readable(row.job_id, row.try_into())).collect()
}

/// Leaves out a job that cannot be read, with a line for the operator, so that those beside it go
/// on: a process of a newer release may be able to read it.
pub(crate) fn readable<T>(job_id: Uuid, read: Result<T, StoreError>) -> Option<T> {
    read.inspect_err(|error| {
        tracing::error!(job.id = %job_id, error = crate::outage::chain(error), "job cannot be read");
    })
    .ok()
}

/// A duration for its column, in milliseconds.
pub(crate) fn millis_of(duration: std::time::Duration) -> u64 {
    // Clients choose at most days; what fits no column is as good as unlimited.
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs())
}

/// When a job queued at `queued_at` becomes ready to run: then, or when it no longer waits.
pub(crate) fn ready_at(run_at: Option<DateTime<Utc>>, queued_at: DateTime<Utc>) -> DateTime<Utc> {
    run_at.map_or(queued_at, |run_at| run_at.max(queued_at))
}
