//! A job: plain data and the rules of its life.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    credential::CredentialName,
    error::JobError,
    id::{AccountId, InstanceId, JobId, ModelId},
    ticket::Ticket,
    usage::Usage,
    vendor::{Vendor, text_enum},
};

text_enum! {
    /// Where a job is in its life.
    JobStatus {
        Queued = "queued",
        Running = "running",
        Succeeded = "succeeded",
        Failed = "failed",
        Cancelled = "cancelled",
        /// Its start-by deadline passed before it started.
        Expired = "expired",
    }
}

impl JobStatus {
    /// The state machine. Both stores and the worker go by it.
    ///
    /// A running job is queued again for another attempt, after its process was lost, or because it
    /// was put off before its vendor was called.
    pub const fn can_become(self, next: Self) -> bool {
        use JobStatus::{Cancelled, Expired, Failed, Queued, Running, Succeeded};
        matches!(
            (self, next),
            (Queued, Running | Failed | Cancelled | Expired)
                | (Running, Queued | Succeeded | Failed | Cancelled)
        )
    }

    /// Whether it never changes again.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired)
    }
}

text_enum! {
    /// Which of a lane's three queues a job stands in.
    Priority { High = "high", Normal = "normal", Low = "low" }
}

text_enum! {
    /// Which endpoint made the job; decides the shape of its synchronous answer.
    Operation { Inference = "inference", Execute = "execute" }
}

text_enum! {
    /// The vendor's endpoint a job goes to, where the vendor has several. [`crate::route`] knows
    /// which vendor has which.
    Route {
        ChatCompletions = "chat_completions",
        Completions = "completions",
        Embeddings = "embeddings",
        Responses = "responses",
        Rerank = "rerank",
        /// Anthropic's own format, wherever it is served.
        Messages = "messages",
        CountTokens = "count_tokens",
        /// Cohere's chat.
        Chat = "chat",
        /// Cohere's embed.
        Embed = "embed",
        GenerateContent = "generate_content",
        EmbedContent = "embed_content",
        BatchEmbedContents = "batch_embed_contents",
        /// Gemini's stateful endpoint.
        Interactions = "interactions",
        Predict = "predict",
        RawPredict = "raw_predict",
        Converse = "converse",
        /// Bedrock's `InvokeModel`: the body is the model vendor's.
        Invoke = "invoke",
        /// LLM Engine's own completions.
        CompletionsSync = "completions_sync",
        SyncTask = "sync_task",
        AsyncTask = "async_task",
    }
}

/// One durable queue: a vendor's jobs of one priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    pub vendor: Vendor,
    pub priority: Priority,
}

impl Lane {
    /// Every lane there is.
    pub fn all() -> impl Iterator<Item = Self> {
        Vendor::ALL.iter().flat_map(|&vendor| Self::of_vendor(vendor))
    }

    /// The lanes of one vendor, most urgent first.
    pub fn of_vendor(vendor: Vendor) -> impl Iterator<Item = Self> {
        Priority::ALL.iter().map(move |&priority| Self { vendor, priority })
    }
}

/// `openai.normal`: the lane's name in columns, queues and metrics.
impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.vendor, self.priority)
    }
}

impl FromStr for Lane {
    type Err = crate::vendor::UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (vendor, priority) = text.split_once('.').unwrap_or((text, ""));
        Ok(Self { vendor: vendor.parse()?, priority: priority.parse()? })
    }
}

/// The limits a job runs under; the api checks what clients choose against the constants here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bounds one attempt; 1 s to 24 h.
    pub timeout: Duration,
    /// Attempts after the first; 0 to 10.
    pub num_retries: u32,
    /// Bounds all attempts together, waits included.
    pub total_timeout: Option<Duration>,
}

impl Limits {
    pub const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
    pub const MAX_RETRIES: u32 = 10;
    /// A job that has lost this many processes is failed, not run again: it may be what kills them.
    pub const MAX_LOST_ATTEMPTS: u32 = 5;
}

impl Default for Limits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(60), num_retries: 2, total_timeout: None }
    }
}

/// A job as clients and workers know it, without its input and its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub id: JobId,
    pub account: AccountId,
    pub operation: Operation,
    /// The alias (or model server id) an `execute` named.
    pub alias: Option<String>,
    pub vendor: Vendor,
    /// The vendor's own name of the model, without `vendor/`.
    pub model: String,
    /// The registered model, if it is one.
    pub model_id: Option<ModelId>,
    /// The job this one repeats on a client's request.
    pub retry_of: Option<JobId>,
    pub priority: Priority,
    pub status: JobStatus,
    /// Attempts begun so far; 0 before the first.
    pub attempt: u32,
    /// Those of `attempt` that ended because their process stopped; they cost no retry.
    pub lost_attempts: u32,
    pub limits: Limits,
    /// Overrides the route that the shape of `args` would choose.
    pub route: Option<Route>,
    /// The account's credential that the registered model names; `None`: the account's default.
    pub credential: Option<CredentialName>,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// Whether a claim was ever taken back before the vendor was called.
    pub deferred: bool,
    /// What an adapter wants to be shown again: the vendor's name of a task under way. Kept through
    /// the loss of a process; cleared by a retry and by the end.
    pub ticket: Option<String>,
    pub callback_url: Option<String>,
    /// The client's own JSON object, kept as text.
    pub metadata: Option<Json>,
    /// The process a synchronous caller waits at; events of this job go there.
    pub reply_to: Option<InstanceId>,
    pub created_at: DateTime<Utc>,
    /// While queued: not before this moment. `None`: at once.
    pub run_at: Option<DateTime<Utc>>,
    /// Start-by deadline.
    pub expires_at: Option<DateTime<Utc>>,
    /// When its first attempt began.
    pub started_at: Option<DateTime<Utc>>,
    /// When its present or last attempt was claimed. One that was parked began earlier: see
    /// [`Job::attempt_began_at`].
    pub attempt_started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
}

impl Job {
    pub fn lane(&self) -> Lane {
        Lane { vendor: self.vendor, priority: self.priority }
    }

    /// The moment after which no further attempt may run, if the client set a total timeout.
    pub fn deadline(&self) -> Option<DateTime<Utc>> {
        let total = self.limits.total_timeout?;
        Some(self.created_at + TimeDelta::from_std(total).unwrap_or(TimeDelta::MAX))
    }

    /// When its present or last attempt began: with the task it goes on with, if it goes on with one,
    /// else with its claim. One that took over the task of a lost attempt began with that task too.
    pub fn attempt_began_at(&self) -> Option<DateTime<Utc>> {
        let ticket = self.ticket.as_deref().and_then(|ticket| ticket.parse::<Ticket>().ok());
        let task_at = ticket.map(|ticket| ticket.started_at);
        // The clocks of two workers may differ: it was begun before it was claimed again.
        task_at.into_iter().chain(self.attempt_started_at).min()
    }
}

/// A JSON document kept as the text it came in: number spelling and key order survive.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Arc<RawValue>);

impl Json {
    /// Checks that `text` is one JSON document and keeps it.
    pub fn parse(text: impl Into<String>) -> serde_json::Result<Self> {
        RawValue::from_string(text.into()).map(|raw| Self(raw.into()))
    }

    pub fn of(value: &impl Serialize) -> serde_json::Result<Self> {
        serde_json::value::to_raw_value(value).map(|raw| Self(raw.into()))
    }

    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    pub fn raw(&self) -> &RawValue {
        &self.0
    }
}

impl From<Box<RawValue>> for Json {
    fn from(raw: Box<RawValue>) -> Self {
        Self(raw.into())
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

/// Inputs and results never reach a log: only the size shows.
impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({} bytes)", self.as_str().len())
    }
}

/// A job about to be stored.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// With `status` queued, `attempt` 0 and no times but `created_at`, `run_at`, `expires_at`.
    pub job: Job,
    /// The arguments for the model.
    pub args: Json,
    pub idempotency: Option<IdempotencyKey>,
    /// A worker with room for it: if that instance is alive, the job is lent to it as it is stored, running
    /// its first attempt. Not for a job with `run_at`.
    pub lend_to: Option<InstanceId>,
}

/// A client's name for a submit, and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// 1 to 255 characters; unique within the account.
    pub key: String,
    /// SHA-256 of method, path and body: the same key with another body is a client's mistake.
    pub fingerprint: [u8; 32],
}

/// What a finished attempt has to show.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Succeeded {
        response: Json,
        usage: Usage,
        vendor_request_id: Option<String>,
    },
    Failed {
        error: JobError,
        usage: Usage,
    },
    /// The attempt failed; the job is queued again, not before `run_at`.
    Retry {
        error: JobError,
        usage: Usage,
        run_at: DateTime<Utc>,
    },
    /// The worker hands the job back unfinished, because it stops; the attempt is recorded as lost.
    HandedBack,
    /// No call was made, because the vendor's lane is held back: the job is queued again, not before
    /// `run_at`, as if it had not been claimed. A claim never used for a call is no attempt: its
    /// number is given again, no row tells of it and it costs no retry.
    Deferred {
        run_at: DateTime<Utc>,
        /// Becomes the job's ticket; `None`: that stays as it is.
        ticket: Option<String>,
    },
}

/// What a job ended with.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct JobResult {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<JobError>,
    #[serde(default, skip_serializing_if = "Usage::is_empty")]
    pub usage: Usage,
}

text_enum! {
    /// How one attempt ended.
    AttemptOutcome {
        Succeeded = "succeeded",
        Failed = "failed",
        Cancelled = "cancelled",
        /// The process that ran it stopped or was lost before it ended.
        Lost = "lost",
    }
}

/// One finished try at a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    pub job_id: JobId,
    /// Counted from 1.
    pub number: u32,
    pub outcome: AttemptOutcome,
    pub instance: Option<InstanceId>,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    pub error: Option<JobError>,
    pub usage: Usage,
    pub vendor_request_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_machine_is_this_table() {
        use JobStatus::{Cancelled, Expired, Failed, Queued, Running, Succeeded};
        let allowed = [
            (Queued, Running),
            (Queued, Failed),
            (Queued, Cancelled),
            (Queued, Expired),
            (Running, Queued),
            (Running, Succeeded),
            (Running, Failed),
            (Running, Cancelled),
        ];
        for &from in JobStatus::ALL {
            for &to in JobStatus::ALL {
                assert_eq!(from.can_become(to), allowed.contains(&(from, to)), "{from} -> {to}");
                assert!(!(from.is_final() && from.can_become(to)), "{from} is final");
            }
        }
    }

    #[test]
    fn a_lane_is_named_and_found_by_its_name() {
        for lane in Lane::all() {
            assert_eq!(lane.to_string().parse::<Lane>().unwrap(), lane);
        }
        assert!("openai".parse::<Lane>().is_err());
    }

    #[test]
    fn json_keeps_its_spelling() {
        let text = r#"{"b":1.50,"a":123456789012345678901234567890}"#;
        let json = Json::parse(text).unwrap();
        assert_eq!(serde_json::to_string(&json).unwrap(), text);
        assert_eq!(format!("{json:?}"), "Json(45 bytes)");
    }
}
