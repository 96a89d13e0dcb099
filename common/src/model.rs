//! Registered models, and the model servers (aliases) in front of them.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::{
    credential::{CredentialName, InvalidCredentialName},
    id::{AccountId, ModelId, ModelServerId},
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
