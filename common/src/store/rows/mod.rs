//! What both stores share: rows as they are read, what the moves write besides, and pages.
//!
//! A row keeps words, documents and instants as stored; turning it into the domain checks each and
//! names table and column of what cannot be read.

mod chunks;

pub(crate) use self::chunks::*;

use std::{collections::HashMap, str::FromStr};

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use sqlx::FromRow;
use uuid::Uuid;

use super::{FoundJob, Page, PageRequest, StoreError, Wakeup};
use crate::{
    account::{ApiKey, KeyHash},
    callback::{Delivery, DeliveryAttempt, DeliveryStatus},
    credential::{Envelope, SealedCredential},
    error::{ErrorClass, JobError},
    id::{
        AccountId, ApiKeyId, CredentialId, DeliveryId, InstanceId, JobId, ModelId, ModelServerId,
    },
    job::{
        Attempt, AttemptOutcome, Job, JobResult, JobStatus, Json, Lane, Limits, Outcome, Priority,
    },
    model::{Model, ModelServer, ServerBackend, Sighting},
    usage::Usage,
};

type Source = Box<dyn std::error::Error + Send + Sync>;

/// An instant as a database keeps it.
pub(crate) trait StoredInstant {
    /// `None`: out of the range of time.
    fn instant(self) -> Option<DateTime<Utc>>;
}

impl StoredInstant for DateTime<Utc> {
    fn instant(self) -> Option<DateTime<Utc>> {
        Some(self)
    }
}

/// Microseconds since 1970.
impl StoredInstant for i64 {
    fn instant(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_micros(self)
    }
}

/// Reads the values of one table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader(pub(crate) &'static str);

impl Reader {
    pub(crate) fn corrupt(self, column: &'static str, source: impl Into<Source>) -> StoreError {
        StoreError::Corrupt { table: self.0, column, source: source.into() }
    }

    /// A word of a closed set, or an account's name.
    pub(crate) fn word<T>(self, column: &'static str, text: &str) -> Result<T, StoreError>
    where
        T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
    {
        text.parse().map_err(|error: T::Err| self.corrupt(column, error))
    }

    /// A JSON document kept as its text.
    pub(crate) fn json(self, column: &'static str, text: String) -> Result<Json, StoreError> {
        Json::parse(text).map_err(|error| self.corrupt(column, error))
    }

    /// A JSON document of ours.
    pub(crate) fn document<T: DeserializeOwned>(
        self,
        column: &'static str,
        text: &str,
    ) -> Result<T, StoreError> {
        serde_json::from_str(text).map_err(|error| self.corrupt(column, error))
    }

    pub(crate) fn count<N, M>(self, column: &'static str, number: N) -> Result<M, StoreError>
    where
        M: TryFrom<N, Error: std::error::Error + Send + Sync + 'static>,
    {
        M::try_from(number).map_err(|error| self.corrupt(column, error))
    }

    pub(crate) fn millis(
        self,
        column: &'static str,
        millis: i64,
    ) -> Result<std::time::Duration, StoreError> {
        self.count(column, millis).map(std::time::Duration::from_millis)
    }

    pub(crate) fn instant(
        self,
        column: &'static str,
        at: impl StoredInstant,
    ) -> Result<DateTime<Utc>, StoreError> {
        at.instant().ok_or_else(|| self.corrupt(column, "out of the range of time"))
    }

    pub(crate) fn optional_instant(
        self,
        column: &'static str,
        at: Option<impl StoredInstant>,
    ) -> Result<Option<DateTime<Utc>>, StoreError> {
        at.map(|at| self.instant(column, at)).transpose()
    }

    fn hash(self, column: &'static str, bytes: Vec<u8>) -> Result<[u8; 32], StoreError> {
        bytes.try_into().map_err(|_| self.corrupt(column, "not 32 bytes"))
    }

    pub(crate) fn key_hash(
        self,
        column: &'static str,
        bytes: Vec<u8>,
    ) -> Result<KeyHash, StoreError> {
        self.hash(column, bytes).map(KeyHash)
    }
}

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

pub(crate) fn lane(vendor: &str, priority: &str) -> Result<Lane, StoreError> {
    let read = Reader("jobs");
    let priority: Priority = read.word("priority", priority)?;
    Ok(Lane { vendor: read.word("vendor", vendor)?, priority })
}

/// A row of `deliveries`.
#[derive(Debug, FromRow)]
pub(crate) struct DeliveryRow<T> {
    pub(crate) delivery_id: Uuid,
    pub(crate) job_id: Uuid,
    pub(crate) account_id: String,
    pub(crate) url: String,
    pub(crate) host: String,
    pub(crate) job_status: String,
    pub(crate) status: String,
    pub(crate) attempt: i32,
    pub(crate) instance_id: Option<Uuid>,
    pub(crate) created_at: T,
    pub(crate) next_attempt_at: Option<T>,
    pub(crate) finished_at: Option<T>,
}

impl<T: StoredInstant> TryFrom<DeliveryRow<T>> for Delivery {
    type Error = StoreError;

    fn try_from(row: DeliveryRow<T>) -> Result<Self, StoreError> {
        let read = Reader("deliveries");
        Ok(Self {
            id: DeliveryId::from_uuid(row.delivery_id),
            job_id: JobId::from_uuid(row.job_id),
            account: read.word("account_id", &row.account_id)?,
            url: row.url,
            host: row.host,
            job_status: read.word("job_status", &row.job_status)?,
            status: read.word("status", &row.status)?,
            attempt: read.count("attempt", row.attempt)?,
            instance: row.instance_id.map(InstanceId::from_uuid),
            created_at: read.instant("created_at", row.created_at)?,
            next_attempt_at: read.optional_instant("next_attempt_at", row.next_attempt_at)?,
            finished_at: read.optional_instant("finished_at", row.finished_at)?,
        })
    }
}

/// A row of `delivery_attempts`.
#[derive(Debug, FromRow)]
pub(crate) struct DeliveryAttemptRow<T> {
    pub(crate) delivery_id: Uuid,
    pub(crate) number: i32,
    pub(crate) started_at: T,
    pub(crate) finished_at: T,
    pub(crate) status_code: Option<i32>,
    pub(crate) error: Option<String>,
}

impl<T: StoredInstant> TryFrom<DeliveryAttemptRow<T>> for DeliveryAttempt {
    type Error = StoreError;

    fn try_from(row: DeliveryAttemptRow<T>) -> Result<Self, StoreError> {
        let read = Reader("delivery_attempts");
        Ok(Self {
            delivery_id: DeliveryId::from_uuid(row.delivery_id),
            number: read.count("number", row.number)?,
            started_at: read.instant("started_at", row.started_at)?,
            finished_at: read.instant("finished_at", row.finished_at)?,
            status_code: row.status_code.map(|code| read.count("status_code", code)).transpose()?,
            error: row.error,
        })
    }
}

/// A row of `models`.
#[derive(Debug, FromRow)]
pub(crate) struct ModelRow<T> {
    pub(crate) model_id: Uuid,
    pub(crate) account_id: String,
    pub(crate) name: String,
    pub(crate) vendor: String,
    pub(crate) model_type: String,
    pub(crate) vendor_configuration: Option<String>,
    pub(crate) metadata: Option<String>,
    pub(crate) status: String,
    pub(crate) status_reason: Option<String>,
    pub(crate) default_callback_url: Option<String>,
    pub(crate) created_at: T,
    pub(crate) created_by_user_id: String,
    pub(crate) created_by_identity_type: String,
}

impl<T: StoredInstant> TryFrom<ModelRow<T>> for Model {
    type Error = StoreError;

    fn try_from(row: ModelRow<T>) -> Result<Self, StoreError> {
        let read = Reader("models");
        Ok(Self {
            id: ModelId::from_uuid(row.model_id),
            account: read.word("account_id", &row.account_id)?,
            name: row.name,
            vendor: read.word("vendor", &row.vendor)?,
            model_type: read.word("model_type", &row.model_type)?,
            vendor_configuration: row
                .vendor_configuration
                .map(|text| read.json("vendor_configuration", text))
                .transpose()?,
            metadata: row.metadata.map(|text| read.json("metadata", text)).transpose()?,
            status: read.word("status", &row.status)?,
            status_reason: row.status_reason,
            default_callback_url: row.default_callback_url,
            created_at: read.instant("created_at", row.created_at)?,
            created_by_user_id: row.created_by_user_id,
            created_by_identity_type: read
                .word("created_by_identity_type", &row.created_by_identity_type)?,
        })
    }
}

/// A row of `model_servers`.
#[derive(Debug, FromRow)]
pub(crate) struct ModelServerRow<T> {
    pub(crate) model_server_id: Uuid,
    pub(crate) account_id: String,
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    pub(crate) model_deployment_id: String,
    pub(crate) created_at: T,
}

impl<T: StoredInstant> TryFrom<ModelServerRow<T>> for ModelServer {
    type Error = StoreError;

    fn try_from(row: ModelServerRow<T>) -> Result<Self, StoreError> {
        let read = Reader("model_servers");
        Ok(Self {
            id: ModelServerId::from_uuid(row.model_server_id),
            account: read.word("account_id", &row.account_id)?,
            name: row.name,
            alias: row.alias,
            model_deployment_id: row.model_deployment_id,
            created_at: read.instant("created_at", row.created_at)?,
        })
    }
}

/// A row of `model_server_backends`.
#[derive(Debug, FromRow)]
pub(crate) struct ServerBackendRow<T> {
    pub(crate) number: i64,
    pub(crate) model_deployment_id: String,
    pub(crate) since: T,
    pub(crate) by_user_id: Option<String>,
    pub(crate) rollback_to: Option<i64>,
}

impl<T: StoredInstant> TryFrom<ServerBackendRow<T>> for ServerBackend {
    type Error = StoreError;

    fn try_from(row: ServerBackendRow<T>) -> Result<Self, StoreError> {
        Ok(Self {
            number: row.number,
            model_deployment_id: row.model_deployment_id,
            since: Reader("model_server_backends").instant("since", row.since)?,
            by_user_id: row.by_user_id,
            rollback_to: row.rollback_to,
        })
    }
}

/// A row of `model_health`.
#[derive(Debug, FromRow)]
pub(crate) struct SightingRow<T> {
    pub(crate) model_id: Uuid,
    pub(crate) instance_id: Uuid,
    pub(crate) available: bool,
    pub(crate) reason: Option<String>,
    pub(crate) since: T,
    pub(crate) updated_at: T,
}

impl<T: StoredInstant> TryFrom<SightingRow<T>> for Sighting {
    type Error = StoreError;

    fn try_from(row: SightingRow<T>) -> Result<Self, StoreError> {
        let read = Reader("model_health");
        Ok(Self {
            model: ModelId::from_uuid(row.model_id),
            instance: InstanceId::from_uuid(row.instance_id),
            available: row.available,
            reason: row.reason,
            since: read.instant("since", row.since)?,
            updated_at: read.instant("updated_at", row.updated_at)?,
        })
    }
}

/// A row of `api_keys`.
#[derive(Debug, FromRow)]
pub(crate) struct ApiKeyRow<T> {
    pub(crate) api_key_id: Uuid,
    pub(crate) account_id: String,
    pub(crate) name: String,
    pub(crate) prefix: String,
    pub(crate) hash: Vec<u8>,
    pub(crate) created_at: T,
    pub(crate) revoked_at: Option<T>,
}

impl<T: StoredInstant> ApiKeyRow<T> {
    pub(crate) fn into_key(self, other_accounts: Vec<AccountId>) -> Result<ApiKey, StoreError> {
        let read = Reader("api_keys");
        Ok(ApiKey {
            id: ApiKeyId::from_uuid(self.api_key_id),
            account: read.word("account_id", &self.account_id)?,
            other_accounts,
            name: self.name,
            prefix: self.prefix,
            hash: read.key_hash("hash", self.hash)?,
            created_at: read.instant("created_at", self.created_at)?,
            revoked_at: read.optional_instant("revoked_at", self.revoked_at)?,
        })
    }
}

/// A row of `credentials`.
#[derive(Debug, FromRow)]
pub(crate) struct CredentialRow<T> {
    pub(crate) credential_id: Uuid,
    pub(crate) account_id: String,
    pub(crate) name: String,
    pub(crate) vendor: String,
    pub(crate) envelope: Vec<u8>,
    pub(crate) is_default: bool,
    pub(crate) created_at: T,
    pub(crate) updated_at: T,
    pub(crate) version: i64,
}

impl<T: StoredInstant> TryFrom<CredentialRow<T>> for SealedCredential {
    type Error = StoreError;

    fn try_from(row: CredentialRow<T>) -> Result<Self, StoreError> {
        let read = Reader("credentials");
        Ok(Self {
            id: CredentialId::from_uuid(row.credential_id),
            account: read.word("account_id", &row.account_id)?,
            name: read.word("name", &row.name)?,
            vendor: read.word("vendor", &row.vendor)?,
            secret: Envelope(row.envelope),
            is_default: row.is_default,
            created_at: read.instant("created_at", row.created_at)?,
            updated_at: read.instant("updated_at", row.updated_at)?,
            version: row.version,
        })
    }
}

/// Turns rows into the domain; the first that cannot be read is the error.
pub(crate) fn all<R, D>(rows: Vec<R>) -> Result<Vec<D>, StoreError>
where
    D: TryFrom<R, Error = StoreError>,
{
    rows.into_iter().map(D::try_from).collect()
}

/// Hands out each wanted job that was found, if it is the account's.
pub(crate) fn found<T: StoredInstant>(
    wanted: &[(JobId, AccountId)],
    rows: impl Iterator<Item = (JobRow<T>, ResultRow)>,
) -> Result<Vec<Option<FoundJob>>, StoreError> {
    let mut by_id = HashMap::new();
    for (job, result) in rows {
        let job = Job::try_from(job)?;
        let result = if job.status.is_final() { Some(result.try_into()?) } else { None };
        by_id.insert(job.id, (job, result));
    }
    let pick = |(id, account): &(JobId, AccountId)| {
        by_id.get(id).filter(|(job, _)| job.account == *account).cloned()
    };
    Ok(wanted.iter().map(pick).collect())
}

/// What an outcome writes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ending {
    /// What the job becomes.
    pub(crate) status: JobStatus,
    /// What its attempt row says.
    pub(crate) outcome: AttemptOutcome,
    pub(crate) response: Option<Json>,
    pub(crate) error: Option<JobError>,
    pub(crate) usage: Usage,
    pub(crate) vendor_request_id: Option<String>,
    /// For a job that is queued again: not before this moment.
    pub(crate) run_at: Option<DateTime<Utc>>,
    /// Whether the attempt counts among the lost ones.
    pub(crate) lost: bool,
}

impl Ending {
    /// `None` for a deferral, which ends no attempt and is a statement of its own.
    pub(crate) fn of(outcome: &Outcome) -> Option<Self> {
        let empty = Self {
            status: JobStatus::Queued,
            outcome: AttemptOutcome::Failed,
            response: None,
            error: None,
            usage: Usage::default(),
            vendor_request_id: None,
            run_at: None,
            lost: false,
        };
        Some(match outcome.clone() {
            Outcome::Succeeded { response, usage, vendor_request_id } => Self {
                status: JobStatus::Succeeded,
                outcome: AttemptOutcome::Succeeded,
                response: Some(response),
                usage,
                vendor_request_id,
                ..empty
            },
            Outcome::Failed { error, usage } => {
                Self { status: JobStatus::Failed, usage, ..empty }.because(error)
            }
            Outcome::Retry { error, usage, run_at } => {
                Self { usage, run_at: Some(run_at), ..empty }.because(error)
            }
            Outcome::HandedBack => Self {
                outcome: AttemptOutcome::Lost,
                error: Some(handed_back()),
                lost: true,
                ..empty
            },
            Outcome::Deferred { .. } => return None,
        })
    }

    /// Of an attempt that is given back after part of its stream was passed on.
    pub(crate) fn stream_lost(id: JobId) -> Self {
        let ending = Self::of(&Outcome::HandedBack).expect("it ends the attempt");
        Self { status: JobStatus::Failed, error: Some(stream_lost(id)), ..ending }
    }

    fn because(self, error: JobError) -> Self {
        Self { vendor_request_id: error.vendor_request_id.clone(), error: Some(error), ..self }
    }
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

/// The error of a job that a client cancelled, and of the attempt this ended.
pub(crate) fn cancelled() -> JobError {
    JobError::new(ErrorClass::Cancelled, "the job was cancelled")
}

/// The error of a job whose start-by deadline passed.
pub(crate) fn expired() -> JobError {
    JobError::new(ErrorClass::Expired, "the job had not started when its deadline passed")
}

/// The error of an attempt whose process was lost.
pub(crate) fn lost() -> JobError {
    JobError::new(ErrorClass::Lost, "the process that ran this attempt was lost")
}

/// The error of an attempt whose process stopped in good order.
pub(crate) fn handed_back() -> JobError {
    JobError::new(ErrorClass::Lost, "the process that ran this attempt stopped before it ended")
}

/// The error of a job that lost [`Limits::MAX_LOST_ATTEMPTS`] processes.
pub(crate) fn lost_too_often() -> JobError {
    let message = format!(
        "the job lost the process that ran it {} times and is not run again",
        Limits::MAX_LOST_ATTEMPTS
    );
    JobError::new(ErrorClass::Lost, message)
}

/// The host of a callback's URL in lower case: what the cap per receiver counts.
///
/// URLs are checked when a job is submitted; one without a host shares the cap of the empty name.
pub(crate) fn callback_host(url: &str) -> String {
    let host = url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_lowercase));
    host.unwrap_or_default()
}

/// The delivery a job owes once it has ended with `status`; `None` without a callback URL.
pub(crate) fn delivery_owed(job: &Job, status: JobStatus, now: DateTime<Utc>) -> Option<Delivery> {
    let url = job.callback_url.clone()?;
    Some(Delivery {
        id: DeliveryId::new(now),
        job_id: job.id,
        account: job.account.clone(),
        host: callback_host(&url),
        url,
        job_status: status,
        status: DeliveryStatus::Pending,
        attempt: 0,
        instance: None,
        created_at: now,
        next_attempt_at: Some(now),
        finished_at: None,
    })
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

/// A page as a range of ids: `low < id < high`, read from one end.
///
/// Both bounds are always there, so that one static statement per direction does for all pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) low: Uuid,
    pub(crate) high: Uuid,
    /// Read from the high end.
    pub(crate) descending: bool,
    /// One more row than the page holds, to learn whether there is more.
    pub(crate) fetch: i64,
    limit: usize,
    /// The rows come in the opposite of the list's order.
    reversed: bool,
}

impl Window {
    pub(crate) fn of<Id: Copy>(page: &PageRequest<Id>, uuid: impl Fn(Id) -> Uuid) -> Self {
        let limit = page.limit.clamp(1, 1000);
        // What stands before an entry is read from that entry outwards, then turned round.
        let reversed = page.after.is_none() && page.before.is_some();
        let edge = page.after.or(page.before).map(uuid);
        let descending = page.ascending == reversed;
        let (low, high) = match edge {
            Some(edge) if descending => (Uuid::nil(), edge),
            Some(edge) => (edge, Uuid::max()),
            None => (Uuid::nil(), Uuid::max()),
        };
        let fetch = i64::from(limit) + 1;
        Self { low, high, descending, fetch, limit: limit as usize, reversed }
    }

    pub(crate) fn page<R, D>(self, mut rows: Vec<R>) -> Result<Page<D>, StoreError>
    where
        D: TryFrom<R, Error = StoreError>,
    {
        let has_more = rows.len() > self.limit;
        rows.truncate(self.limit);
        if self.reversed {
            rows.reverse();
        }
        Ok(Page { items: all(rows)?, has_more })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_word_names_its_table_and_column() {
        let error = Reader("jobs").word::<JobStatus>("status", "paused").unwrap_err();
        assert_eq!(error.to_string(), "cannot read jobs.status");
    }

    #[test]
    fn the_cap_per_receiver_ignores_case_and_port() {
        assert_eq!(callback_host("https://Hooks.Example.com:8443/x?y"), "hooks.example.com");
        assert_eq!(callback_host("http://[::1]/"), "[::1]");
        assert_eq!(callback_host("nonsense"), "");
    }

    #[test]
    fn an_outcome_becomes_what_the_state_machine_allows() {
        let error = JobError::new(ErrorClass::Timeout, "late");
        let usage = Usage::default();
        let outcomes = [
            Outcome::Succeeded {
                response: Json::parse("1").unwrap(),
                usage,
                vendor_request_id: None,
            },
            Outcome::Failed { error: error.clone(), usage },
            Outcome::Retry { error, usage, run_at: DateTime::UNIX_EPOCH },
            Outcome::HandedBack,
        ];
        for outcome in outcomes {
            let ending = Ending::of(&outcome).unwrap();
            assert!(JobStatus::Running.can_become(ending.status), "{outcome:?}");
            assert_eq!(ending.lost, outcome == Outcome::HandedBack);
        }
        assert!(
            Ending::of(&Outcome::Deferred { run_at: DateTime::UNIX_EPOCH, ticket: None }).is_none()
        );
    }

    #[test]
    fn a_window_reads_away_from_its_edge() {
        let id = Uuid::from_u128(7);
        let page = |after, before, ascending| {
            Window::of(&PageRequest { after, before, limit: 2, ascending }, |id| id)
        };
        let newest = page(None, None, false);
        assert!(newest.descending && !newest.reversed);
        let older = page(Some(id), None, false);
        assert_eq!((older.low, older.high, older.descending), (Uuid::nil(), id, true));
        let newer = page(None, Some(id), false);
        assert_eq!((newer.low, newer.high, newer.descending), (id, Uuid::max(), false));
        assert!(newer.reversed);
        let next = page(Some(id), None, true);
        assert_eq!((next.low, next.high, next.descending), (id, Uuid::max(), false));
        let previous = page(None, Some(id), true);
        assert_eq!((previous.low, previous.high, previous.descending), (Uuid::nil(), id, true));
        assert!(previous.reversed);
    }
}
