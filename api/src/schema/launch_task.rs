//! Launch's tasks and model endpoints.

use chrono::{DateTime, Utc};
use inferq_common::{error::JobError, id::JobId, job::Json, view::optional_instant};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A task for a model endpoint.
#[derive(ToSchema)]
#[schema(title = "LaunchTaskRequest")]
pub struct LaunchTaskRequest {
    /// Arguments passed into the model
    #[schema(required = false)]
    pub args: Map<String, Value>,
    /// Where the job is posted once it has ended, however it ended.
    #[schema(required = false, format = "uri")]
    pub callback_url: String,
    /// Results are JSON: only `false` is taken.
    #[schema(required = false, default = false)]
    pub return_pickled: bool,
    /// Bounds one attempt, in seconds above 0; 60 if not given.
    #[schema(required = false, maximum = 86_400)]
    pub timeout_seconds: f64,
    /// Attempts after the first; 2 if not given.
    #[schema(required = false, minimum = 0, maximum = 10)]
    pub num_retries: i64,
}

/// A task that was taken.
#[derive(Debug, Serialize, ToSchema)]
#[schema(title = "LaunchTaskCreated")]
pub struct LaunchTaskCreated {
    /// The id of the job that was made.
    #[schema(value_type = uuid::Uuid)]
    pub task_id: JobId,
}

/// Where a task is, in Launch's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schema(title = "LaunchTaskStatus")]
pub enum LaunchTaskStatus {
    /// It waits to be run, or to be run again.
    Pending,
    Started,
    Success,
    /// It failed, was cancelled or expired.
    Failure,
}

/// What a model answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(title = "LaunchTaskResult")]
pub struct LaunchTaskResult {
    /// The model's answer as the text of a JSON document, as Launch has it.
    pub result: String,
}

/// A task, or how a synchronous one ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(title = "LaunchTask")]
pub struct LaunchTask {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<uuid::Uuid>)]
    pub task_id: Option<JobId>,
    pub status: LaunchTaskStatus,
    /// Once it has succeeded.
    #[schema(required)]
    pub result: Option<LaunchTaskResult>,
    /// Why it did not succeed, in words.
    #[schema(required)]
    pub traceback: Option<String>,
    /// Once it has ended: 200, or the HTTP status that stands for its error.
    #[schema(required)]
    pub status_code: Option<u16>,
    /// The job's error.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<super::job::JobError>)]
    pub error: Option<JobError>,
}

/// How a model endpoint is meant to be called; any endpoint takes any kind of task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(title = "LaunchEndpointType")]
pub enum EndpointType {
    Async,
    Sync,
    Streaming,
}

/// Whether a model endpoint can be called, in Launch's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(title = "LaunchEndpointStatus")]
pub enum EndpointStatus {
    Ready,
    UpdateInProgress,
    UpdateFailed,
}

/// A registered model, a model server or a hosted vendor's model, as Launch's clients see it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "LaunchModelEndpoint")]
pub struct ModelEndpoint {
    /// What `model_endpoint_id` takes.
    pub id: String,
    /// The model's name, or the alias of a model server.
    pub name: String,
    pub endpoint_type: EndpointType,
    /// The lane its tasks stand in.
    pub destination: String,
    /// The model, as `vendor/name`.
    pub bundle_name: String,
    pub status: EndpointStatus,
    #[schema(required, value_type = Option<Map<String, Value>>)]
    pub metadata: Option<Json>,
    #[schema(required)]
    pub default_callback_url: Option<String>,
    #[schema(required)]
    pub created_by: Option<String>,
    #[serde(serialize_with = "optional_instant")]
    #[schema(required, format = DateTime)]
    pub created_at: Option<DateTime<Utc>>,
}

/// Model endpoints.
#[derive(Debug, Serialize, ToSchema)]
#[schema(title = "LaunchModelEndpoints")]
pub struct ModelEndpoints {
    pub model_endpoints: Vec<ModelEndpoint>,
}

/// The same for clients of before version 0.4.
#[derive(Debug, Serialize, ToSchema)]
#[schema(title = "HostedEndpoints")]
pub struct HostedEndpoints {
    pub endpoints: Vec<ModelEndpoint>,
}

/// A task as clients of before version 0.4 see it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(title = "HostedTask")]
pub struct HostedTask {
    /// `PENDING` also while it runs.
    pub state: LaunchTaskStatus,
    /// Once it has succeeded: the model's answer as the text of a JSON document.
    #[schema(required)]
    pub result: Option<String>,
    /// Why it did not succeed, in words.
    #[schema(required)]
    pub traceback: Option<String>,
    /// Once it has ended.
    #[schema(required)]
    pub status_code: Option<u16>,
}

impl From<LaunchTask> for HostedTask {
    fn from(task: LaunchTask) -> Self {
        // Those clients wait while it is pending, and know no other word for it.
        let state = match task.status {
            LaunchTaskStatus::Started => LaunchTaskStatus::Pending,
            status => status,
        };
        Self {
            state,
            result: task.result.map(|result| result.result),
            traceback: task.traceback,
            status_code: task.status_code,
        }
    }
}
