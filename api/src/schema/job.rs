//! Jobs, their attempts and their callbacks. Jobs are written by [`inferq_common::view::JobView`].

use serde_json::{Map, Value};
use utoipa::{
    ToSchema,
    openapi::{Object, ObjectBuilder, schema::SchemaType},
};
use uuid::Uuid;

use super::{
    list::constant,
    words::{AttemptOutcome, DeliveryStatus, ErrorClass, JobOperation, JobPriority, JobStatus},
};

/// One request for inference, from submit to a final status.
#[derive(ToSchema)]
#[schema(title = "Job")]
pub struct Job {
    pub id: Uuid,
    #[schema(schema_with = job_word)]
    pub object: String,
    pub account_id: String,
    pub operation: JobOperation,
    pub status: JobStatus,
    /// `vendor/name`.
    pub model: String,
    /// The registered model, if it is one.
    #[schema(required)]
    pub model_id: Option<Uuid>,
    #[schema(required)]
    pub alias: Option<String>,
    pub priority: JobPriority,
    /// Attempts begun so far.
    pub attempt: i64,
    pub timeout_seconds: i64,
    pub num_retries: i64,
    #[schema(required)]
    pub total_timeout_seconds: Option<i64>,
    /// The client's own object.
    #[schema(required)]
    pub metadata: Option<Map<String, Value>>,
    #[schema(required)]
    pub callback_url: Option<String>,
    /// The job this one repeats on a client's request.
    #[schema(required)]
    pub retry_of: Option<Uuid>,
    #[schema(format = DateTime)]
    pub created_at: String,
    /// While queued: not before this moment.
    #[schema(required, format = DateTime)]
    pub run_at: Option<String>,
    /// Not to be started after this moment.
    #[schema(required, format = DateTime)]
    pub expires_at: Option<String>,
    #[schema(required, format = DateTime)]
    pub started_at: Option<String>,
    #[schema(required, format = DateTime)]
    pub finished_at: Option<String>,
    /// What the model answered, once the job has succeeded.
    #[schema(schema_with = anything)]
    pub response: Value,
    /// Why the job did not succeed.
    #[schema(required)]
    pub error: Option<JobError>,
    #[schema(required)]
    pub usage: Option<Usage>,
}

/// Why a job or an attempt did not succeed.
#[derive(ToSchema)]
#[schema(title = "JobError")]
pub struct JobError {
    pub class: ErrorClass,
    /// One sentence for a person.
    pub message: String,
    /// The HTTP status the vendor answered, if it answered.
    #[schema(required = false)]
    pub vendor_status: i64,
    /// The vendor's own word for the failure.
    #[schema(required = false)]
    pub vendor_code: String,
    /// The vendor's own id of the request.
    #[schema(required = false)]
    pub vendor_request_id: String,
    /// What a person can do about it.
    #[schema(required = false)]
    pub hint: String,
}

/// Tokens in, tokens out. A count the vendor does not tell is absent.
#[derive(ToSchema)]
#[schema(title = "Usage")]
pub struct Usage {
    /// All tokens of the prompt, cached ones included.
    #[schema(required = false)]
    pub input_tokens: i64,
    #[schema(required = false)]
    pub cached_input_tokens: i64,
    #[schema(required = false)]
    pub cache_write_tokens: i64,
    /// All tokens of the answer, reasoning included.
    #[schema(required = false)]
    pub output_tokens: i64,
    #[schema(required = false)]
    pub reasoning_tokens: i64,
}

fn job_word() -> Object {
    constant("job")
}

fn anything() -> Object {
    ObjectBuilder::new().schema_type(SchemaType::AnyValue).build()
}

/// One finished try at a job.
#[derive(ToSchema)]
#[schema(title = "Attempt")]
pub struct Attempt {
    #[schema(schema_with = attempt_word)]
    pub object: String,
    pub job_id: Uuid,
    /// From 1.
    pub number: i64,
    pub outcome: AttemptOutcome,
    #[schema(format = DateTime)]
    pub started_at: String,
    #[schema(format = DateTime)]
    pub finished_at: String,
    #[schema(required)]
    pub error: Option<JobError>,
    #[schema(required)]
    pub usage: Option<Usage>,
    /// The vendor's own id of the request.
    #[schema(required)]
    pub vendor_request_id: Option<String>,
}

/// One callback that is owed.
#[derive(ToSchema)]
#[schema(title = "Delivery")]
pub struct Delivery {
    /// The `webhook-id` of all its attempts.
    pub id: Uuid,
    #[schema(schema_with = delivery_word)]
    pub object: String,
    pub job_id: Uuid,
    pub account_id: String,
    /// `job.succeeded`, `job.failed`, `job.cancelled` or `job.expired`.
    #[schema(rename = "type")]
    pub event: String,
    pub url: String,
    pub status: DeliveryStatus,
    /// Attempts begun since it was made or last asked to be repeated.
    pub attempt: i64,
    #[schema(format = DateTime)]
    pub created_at: String,
    #[schema(required, format = DateTime)]
    pub next_attempt_at: Option<String>,
    #[schema(required, format = DateTime)]
    pub finished_at: Option<String>,
    /// Only where one delivery is read by itself.
    #[schema(required = false)]
    pub attempts: Vec<DeliveryAttempt>,
}

/// One POST of a callback and what came of it.
#[derive(ToSchema)]
#[schema(title = "DeliveryAttempt")]
pub struct DeliveryAttempt {
    /// From 1, over the delivery's whole life.
    pub number: i64,
    #[schema(format = DateTime)]
    pub started_at: String,
    #[schema(format = DateTime)]
    pub finished_at: String,
    /// What the receiver answered, if it answered.
    #[schema(required)]
    pub status_code: Option<i64>,
    /// Why it counts as a failure.
    #[schema(required)]
    pub error: Option<String>,
}

/// A page of jobs, without their responses.
#[derive(ToSchema)]
#[schema(title = "JobList")]
pub struct JobList {
    #[schema(schema_with = super::list::constant_list)]
    pub object: String,
    pub items: Vec<Job>,
    /// How many items a page has at most.
    pub limit: i64,
    /// Whether there are more in the direction that was asked for.
    pub has_more: bool,
}

/// The attempts of a job, in their order.
#[derive(ToSchema)]
#[schema(title = "AttemptList")]
pub struct AttemptList {
    #[schema(schema_with = super::list::constant_list)]
    pub object: String,
    pub items: Vec<Attempt>,
    pub has_more: bool,
}

/// The callbacks of a job.
#[derive(ToSchema)]
#[schema(title = "DeliveryList")]
pub struct DeliveryList {
    #[schema(schema_with = super::list::constant_list)]
    pub object: String,
    pub items: Vec<Delivery>,
    pub has_more: bool,
}

/// A synchronous call whose job did not succeed. Not to be repeated: the retries have been made.
#[derive(ToSchema)]
#[schema(title = "FailedInference")]
pub struct FailedInference {
    /// One sentence for a person.
    pub detail: String,
    pub error: JobError,
    pub job_id: Uuid,
}

fn attempt_word() -> Object {
    constant("attempt")
}

fn delivery_word() -> Object {
    constant("delivery")
}
