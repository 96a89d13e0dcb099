//! The vendor configuration of `launch`: a container image and what it runs on.

use std::collections::BTreeMap;

use inferq_common::{job::Json, json_schema};
use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type, schema::AnyOfBuilder},
};

use super::{check::Findings, quantity};

/// A model that Launch runs: its image and its infrastructure.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[schema(title = "LaunchVendorConfiguration")]
pub struct LaunchVendorConfiguration {
    pub model_image: LaunchModelBundleConfiguration,
    pub model_infra: LaunchModelEndpointConfiguration,
}

/// The container image, and how it is started and asked.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[schema(title = "LaunchModelBundleConfiguration")]
pub struct LaunchModelBundleConfiguration {
    /// The image is `registry/repository:tag`.
    #[schema(min_length = 1)]
    pub registry: String,
    #[schema(min_length = 1)]
    pub repository: String,
    #[schema(min_length = 1)]
    pub tag: String,
    /// Takes one request by POST; begins with `/`.
    #[schema(required = false, default = "/predict")]
    pub predict_route: String,
    /// The arguments the container starts with; its server listens on port 5005.
    pub command: Vec<String>,
    /// Takes one request by POST and answers with server-sent events; begins with `/`.
    pub streaming_predict_route: Option<String>,
    pub streaming_command: Option<Vec<String>>,
    /// JSON Schema of a request: arguments that do not fit are refused with 422. At most 64 KiB,
    /// and without references to other documents.
    #[schema(required = false, default = json!({}), value_type = Map<String, Value>)]
    pub request_schema: Json,
    /// JSON Schema of a response: a job whose response does not fit fails with class `protocol`.
    #[schema(required = false, default = json!({}), value_type = Map<String, Value>)]
    pub response_schema: Json,
    #[schema(required = false, default = json!({}), value_type = Map<String, Value>)]
    pub env_vars: Json,
    /// Seconds before the first readiness probe.
    #[schema(required = false, default = 120, minimum = 0)]
    pub readiness_delay: i64,
    /// Answers 200 to a GET once the model is ready; begins with `/`.
    #[schema(required = false, default = "/readyz")]
    pub healthcheck_route: String,
}

/// What one worker of the model gets, and how many there are.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[schema(title = "LaunchModelEndpointConfiguration")]
pub struct LaunchModelEndpointConfiguration {
    #[schema(inline, required = false, default = "sync")]
    pub endpoint_type: LaunchEndpointType,
    /// A Kubernetes quantity, such as 3 or `500m`.
    #[schema(inline, required = false, default = 3)]
    pub cpus: Cpus,
    /// Above 0 it needs `gpu_type`.
    #[schema(required = false, default = 0, minimum = 0)]
    pub gpus: i64,
    #[schema(inline)]
    pub gpu_type: Option<LaunchGpuType>,
    /// A Kubernetes quantity.
    #[schema(required = false, default = "8Gi")]
    pub memory: String,
    /// A Kubernetes quantity.
    #[schema(required = false, default = "16Gi")]
    pub storage: String,
    #[schema(required = false, default = 0, minimum = 0, maximum = 250)]
    pub min_workers: i64,
    /// Not below `min_workers`.
    #[schema(required = false, default = 1, minimum = 0, maximum = 250)]
    pub max_workers: i64,
    /// Calls of this model at once, at most, by each worker process of inferq.
    #[schema(required = false, default = 10, minimum = 1)]
    pub per_worker: i64,
    /// Whether its jobs have priority `high` where their requests name none.
    #[schema(required = false, default = false)]
    pub high_priority: bool,
    pub labels: Option<BTreeMap<String, String>>,
    /// Whether model servers of other accounts may run it.
    #[schema(required = false, default = false)]
    pub public_inference: bool,
}

/// How requests reach the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LaunchEndpointType {
    Async,
    Sync,
    Streaming,
}

/// The accelerators Launch knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum LaunchGpuType {
    #[serde(rename = "nvidia-tesla-t4")]
    T4,
    #[serde(rename = "nvidia-ampere-a10")]
    A10,
    #[serde(rename = "nvidia-ampere-a100")]
    A100,
    #[serde(rename = "nvidia-ampere-a100e")]
    A100e,
    #[serde(rename = "nvidia-hopper-h100")]
    H100,
    #[serde(rename = "nvidia-hopper-h100-1g20gb")]
    H100Slice1g20gb,
    #[serde(rename = "nvidia-hopper-h100-3g40gb")]
    H100Slice3g40gb,
}

/// A count, or a Kubernetes quantity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cpus {
    Quantity(String),
    Count(i64),
}

impl LaunchVendorConfiguration {
    /// The rules beyond types.
    pub fn check(&self, findings: &mut Findings) {
        findings.within("model_image", |inner| self.model_image.check(inner));
        findings.within("model_infra", |inner| self.model_infra.check(inner));
    }
}

impl LaunchModelBundleConfiguration {
    fn check(&self, findings: &mut Findings) {
        let routes = [
            ("predict_route", Some(&self.predict_route)),
            ("streaming_predict_route", self.streaming_predict_route.as_ref()),
            ("healthcheck_route", Some(&self.healthcheck_route)),
        ];
        for (name, route) in routes {
            if route.is_some_and(|route| !route.starts_with('/')) {
                findings.refuse(name, "must begin with '/'");
            }
        }
        let schemas =
            [("request_schema", &self.request_schema), ("response_schema", &self.response_schema)];
        for (name, schema) in schemas {
            if let Err(reason) = json_schema::Schema::compile(schema.as_str()) {
                findings.refuse(name, reason);
            }
        }
    }
}

impl LaunchModelEndpointConfiguration {
    fn check(&self, findings: &mut Findings) {
        match &self.cpus {
            Cpus::Quantity(cpus) => quantity::check("cpus", cpus, findings),
            Cpus::Count(cpus) if *cpus > 0 => {}
            Cpus::Count(_) => findings.refuse("cpus", "must be above 0"),
        }
        match (self.gpus, self.gpu_type) {
            (1.., None) => findings.refuse("gpu_type", "is needed where gpus is above 0"),
            (..=0, Some(_)) => findings.refuse("gpus", "must be above 0 where gpu_type is given"),
            _ => {}
        }
        quantity::check("memory", &self.memory, findings);
        quantity::check("storage", &self.storage, findings);
        if self.max_workers < self.min_workers {
            findings.refuse("max_workers", "must not be below min_workers");
        }
    }
}

impl PartialSchema for Cpus {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String);
        let count = ObjectBuilder::new().schema_type(Type::Integer);
        AnyOfBuilder::new().item(text).item(count).into()
    }
}

impl ToSchema for Cpus {}
