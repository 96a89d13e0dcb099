//! Registered models, and the model servers (aliases) in front of them.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::{
    credential::{CredentialName, InvalidCredentialName},
    id::{AccountId, InstanceId, ModelId, ModelServerId},
    job::{Json, Route},
    members::each_member,
    vendor::{Vendor, text_enum},
};

text_enum! {
    /// What a model is asked for.
    ModelType {
        Generic = "generic",
        Completion = "completion",
        ChatCompletion = "chat_completion",
    }
}

text_enum! {
    /// Whether a model can be called.
    ModelStatus {
        Failed = "failed",
        Ready = "ready",
        Deploying = "deploying",
        DeploymentTimeout = "deployment_timeout",
    }
}

text_enum! {
    /// Who made something.
    IdentityType { User = "user", ServiceAccount = "service_account" }
}

/// A registered model. `vendor/name` is unique within its account.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub id: ModelId,
    pub account: AccountId,
    pub name: String,
    pub vendor: Vendor,
    pub model_type: ModelType,
    /// The seed's `LaunchVendorConfiguration` or `LLMEngineVendorConfiguration`, as it was given.
    pub vendor_configuration: Option<Json>,
    pub metadata: Option<Json>,
    pub status: ModelStatus,
    pub status_reason: Option<String>,
    /// Where callbacks of this model's jobs go unless the request names another address.
    pub default_callback_url: Option<String>,
    pub created_at: DateTime<Utc>,
    pub created_by_user_id: String,
    pub created_by_identity_type: IdentityType,
}

impl Model {
    /// The endpoint that calls go to where the request names none: a Launch model whose endpoint is
    /// of type `async` is given tasks and asked for them.
    pub fn route(&self) -> Option<Route> {
        #[derive(Deserialize)]
        struct Configuration {
            model_infra: Infra,
        }
        #[derive(Deserialize)]
        struct Infra {
            endpoint_type: String,
        }
        if self.vendor != Vendor::Launch {
            return None;
        }
        let text = self.vendor_configuration.as_ref()?.as_str();
        let configuration: Configuration = serde_json::from_str(text).ok()?;
        (configuration.model_infra.endpoint_type == "async").then_some(Route::AsyncTask)
    }

    /// What the configuration says about calls. What cannot be read says nothing: it was checked as
    /// it was stored.
    pub fn settings(&self) -> ModelSettings {
        let configuration = self.vendor_configuration.as_ref().map(Json::as_str);
        let settings = match (self.vendor, configuration) {
            (Vendor::Launch, Some(text)) => {
                serde_json::from_str::<LaunchSettings>(text).ok().map(LaunchSettings::into_settings)
            }
            (Vendor::LlmEngine, Some(text)) => serde_json::from_str(text).ok(),
            _ => None,
        };
        settings.unwrap_or_default()
    }

    /// The credential that calls are made with: `credential` in the metadata.
    ///
    /// # Errors
    /// If something stands there that is no name.
    pub fn credential(&self) -> Result<Option<CredentialName>, InvalidCredentialName> {
        let mut named = Ok(None);
        let Some(metadata) = &self.metadata else { return named };
        // What is no object names nothing.
        let _ = each_member(metadata.as_str(), |member| {
            if member.key == "credential" {
                named = serde_json::from_str::<Option<CredentialName>>(member.value)
                    .map_err(|_| InvalidCredentialName);
            }
        });
        named
    }
}

/// What a model's configuration says about the calls that are made of it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct ModelSettings {
    /// Calls at once within one worker process.
    pub per_worker: Option<usize>,
    /// Jobs are of high priority unless their request names another one.
    pub high_priority: bool,
    /// Other accounts may run it.
    #[serde(deserialize_with = "or_false")]
    pub public_inference: bool,
    /// What a request must fit; `None`: anything.
    #[serde(skip)]
    pub request_schema: Option<Json>,
    /// What a response must fit; `None`: anything.
    #[serde(skip)]
    pub response_schema: Option<Json>,
}

fn or_false<'de, D: serde::Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    Option::deserialize(value).map(Option::unwrap_or_default)
}

#[derive(Deserialize)]
struct LaunchSettings {
    model_image: LaunchImage,
    model_infra: ModelSettings,
}

#[derive(Deserialize)]
struct LaunchImage {
    request_schema: Option<Json>,
    response_schema: Option<Json>,
}

impl LaunchSettings {
    fn into_settings(self) -> ModelSettings {
        // The default, an empty object, asks for nothing.
        let asking = |schema: Json| (!is_empty_object(&schema)).then_some(schema);
        ModelSettings {
            request_schema: self.model_image.request_schema.and_then(asking),
            response_schema: self.model_image.response_schema.and_then(asking),
            ..self.model_infra
        }
    }
}

fn is_empty_object(json: &Json) -> bool {
    let mut n_members = 0;
    each_member(json.as_str(), |_| n_members += 1).is_ok() && n_members == 0
}

/// The stable front of a swappable model: what a v4 alias names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelServer {
    pub id: ModelServerId,
    pub account: AccountId,
    /// For display only.
    pub name: String,
    /// Unique within the account.
    pub alias: Option<String>,
    /// What it runs: the id of a registered model, or `vendor/name`.
    pub model_deployment_id: String,
    pub created_at: DateTime<Utc>,
}

/// What a model server ran from a moment on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerBackend {
    /// Counted from 1 within the server; the highest is what it runs now.
    pub number: i64,
    /// The id of a registered model, or `vendor/name`.
    pub model_deployment_id: String,
    pub since: DateTime<Utc>,
    /// Who chose it, as far as that was noted.
    pub by_user_id: Option<String>,
    /// The entry that a rollback goes back to.
    pub rollback_to: Option<i64>,
}

impl ServerBackend {
    /// What a server was made with.
    pub fn first_of(server: &ModelServer, by: Option<&str>) -> Self {
        Self {
            number: 1,
            model_deployment_id: server.model_deployment_id.clone(),
            since: server.created_at,
            by_user_id: by.map(str::to_owned),
            rollback_to: None,
        }
    }
}

/// Whether one worker can call a model, as far as it has lately seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    pub model: ModelId,
    pub instance: InstanceId,
    pub available: bool,
    /// Why not, for a person.
    pub reason: Option<String>,
    /// When it began to be so.
    pub since: DateTime<Utc>,
    /// When it was last seen to be so.
    pub updated_at: DateTime<Utc>,
}
