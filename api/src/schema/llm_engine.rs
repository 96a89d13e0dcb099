//! The vendor configuration of `llmengine`: a base model and the server that runs it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::check::Findings;

/// A language model that LLM Engine runs. Further members are kept and passed to the framework.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[schema(title = "LLMEngineVendorConfiguration")]
pub struct LLMEngineVendorConfiguration {
    /// The base model, such as `llama-3-8b-instruct`.
    #[schema(min_length = 1)]
    pub model: String,
    #[schema(required = false, default = "latest")]
    pub inference_framework_image_tag: String,
    #[schema(required = false, default = 1, minimum = 1)]
    pub nodes_per_worker: i64,
    #[schema(required = false, default = 0, minimum = 0, maximum = 250)]
    pub min_workers: i64,
    /// Not below `min_workers`.
    #[schema(required = false, default = 1, minimum = 0, maximum = 250)]
    pub max_workers: i64,
    /// Calls of this model at once, at most, by each worker process of inferq.
    #[schema(required = false, default = 2, minimum = 1)]
    pub per_worker: i64,
    /// Over how many GPUs of a worker the model is split; not above `gpus`.
    #[schema(required = false, default = 1, minimum = 1)]
    pub num_shards: i64,
    #[schema(required = false, default = json!({}))]
    pub labels: BTreeMap<String, String>,
    #[schema(required = false, default = "hugging_face")]
    pub source: String,
    #[schema(required = false, default = "vllm")]
    pub inference_framework: String,
    #[schema(required = false, default = "streaming")]
    pub endpoint_type: String,
    pub quantize: Option<String>,
    /// A remote folder or archive of weights.
    pub checkpoint_path: Option<String>,
    /// A Jinja template in place of the checkpoint's own.
    pub chat_template_override: Option<String>,
    /// Of `billing`, `callback` and `logging`. Where hooks are named and `callback` is not among them
    /// the default callback address is not used.
    pub post_inference_hooks: Option<Vec<String>>,
    #[schema(minimum = 0)]
    pub cpus: Option<i64>,
    #[schema(minimum = 0)]
    pub gpus: Option<i64>,
    /// A Kubernetes quantity.
    pub memory: Option<String>,
    pub gpu_type: Option<String>,
    /// A Kubernetes quantity.
    pub storage: Option<String>,
    /// Whether its jobs have priority `high` where their requests name none.
    #[schema(required = false, default = false)]
    pub high_priority: bool,
    /// Where callbacks of this model's jobs go unless the request names another address.
    pub default_callback_url: Option<String>,
    /// Whether model servers of other accounts may run it.
    pub public_inference: Option<bool>,
    // Members the framework knows and inferq does not. (A doc comment would describe each of them.)
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl LLMEngineVendorConfiguration {
    /// The rules beyond types.
    pub fn check(&self, findings: &mut Findings) {
        if self.max_workers < self.min_workers {
            findings.refuse("max_workers", "must not be below min_workers");
        }
        if self.gpus.is_some_and(|gpus| gpus > 0 && self.num_shards > gpus) {
            findings.refuse("num_shards", "must not be above gpus");
        }
        for (name, quantity) in [("memory", &self.memory), ("storage", &self.storage)] {
            if let Some(quantity) = quantity {
                super::quantity::check(name, quantity, findings);
            }
        }
    }
}
