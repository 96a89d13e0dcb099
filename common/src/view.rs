//! A job as outsiders see it: the document of the jobs API and of callbacks.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};

use crate::{
    error::JobError,
    id::{AccountId, JobId, ModelId},
    job::{Job, JobResult, JobStatus, Json, Operation, Priority},
    usage::Usage,
};

/// The JSON of a job. Absent values are `null`, so that every document has the same members.
#[derive(Debug, Clone, Serialize)]
pub struct JobView {
    pub id: JobId,
    /// Always `job`.
    pub object: &'static str,
    pub account_id: AccountId,
    pub operation: Operation,
    pub status: JobStatus,
    /// `vendor/name`.
    pub model: String,
    pub model_id: Option<ModelId>,
    pub alias: Option<String>,
    pub priority: Priority,
    /// Attempts begun so far.
    pub attempt: u32,
    pub timeout_seconds: u64,
    pub num_retries: u32,
    pub total_timeout_seconds: Option<u64>,
    pub metadata: Option<Json>,
    pub callback_url: Option<String>,
    pub retry_of: Option<JobId>,
    #[serde(serialize_with = "instant")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "optional_instant")]
    pub run_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "optional_instant")]
    pub expires_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "optional_instant")]
    pub started_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "optional_instant")]
    pub finished_at: Option<DateTime<Utc>>,
    pub response: Option<Json>,
    pub error: Option<JobError>,
    pub usage: Option<Usage>,
}

impl JobView {
    pub fn new(job: Job, result: Option<JobResult>) -> Self {
        let result = result.unwrap_or_default();
        Self {
            id: job.id,
            object: "job",
            account_id: job.account,
            operation: job.operation,
            status: job.status,
            model: format!("{}/{}", job.vendor, job.model),
            model_id: job.model_id,
            alias: job.alias,
            priority: job.priority,
            attempt: job.attempt,
            timeout_seconds: job.limits.timeout.as_secs(),
            num_retries: job.limits.num_retries,
            total_timeout_seconds: job.limits.total_timeout.map(|total| total.as_secs()),
            metadata: job.metadata,
            callback_url: job.callback_url,
            retry_of: job.retry_of,
            created_at: job.created_at,
            run_at: job.run_at,
            expires_at: job.expires_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            response: result.response,
            error: result.error,
            usage: Some(result.usage).filter(|usage| !usage.is_empty()),
        }
    }
}

/// RFC 3339 in UTC with microseconds and `Z`.
pub fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// For `#[serde(serialize_with)]`: [`rfc3339`].
pub fn instant<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}

/// For `#[serde(serialize_with)]`: [`rfc3339`] or `null`.
pub fn optional_instant<S: Serializer>(
    at: &Option<DateTime<Utc>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => instant(at, serializer),
        None => serializer.serialize_none(),
    }
}
