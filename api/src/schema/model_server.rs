//! Model servers: the stable fronts that aliases name.

use inferq_common::{
    model::{ModelServer, ServerBackend},
    view,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A model server.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "ModelServerInfo")]
pub struct ModelServerInfo {
    pub account_id: String,
    pub model_server_id: String,
    /// For display only.
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// What it runs: the id of a registered model, or `vendor/name`.
    #[schema(required = false)]
    pub model_deployment_id: String,
}

impl From<ModelServer> for ModelServerInfo {
    fn from(server: ModelServer) -> Self {
        Self {
            account_id: server.account.to_string(),
            model_server_id: server.id.to_string(),
            name: server.name,
            alias: server.alias,
            model_deployment_id: server.model_deployment_id,
        }
    }
}

/// The characters of an alias.
pub const ALIAS_PATTERN: &str = "^[A-Za-z0-9_.-]+$";

/// A model server to be made.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(title = "CreateModelServerRequest")]
pub struct CreateModelServerRequest {
    /// What it runs: the id of a registered model of the account or of a public one, or
    /// `vendor/name`.
    #[schema(min_length = 1, max_length = 2048)]
    pub model_deployment_id: String,
    /// For display only.
    #[schema(min_length = 1, max_length = 256)]
    pub name: String,
    /// Unique within the account: 1 to 128 of `A-Z a-z 0-9 . _ -`.
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_.-]+$")]
    pub alias: Option<String>,
}

/// What a model server runs at present.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "ModelServerDeployment")]
pub struct ModelServerDeployment {
    pub model_deployment_id: String,
}

/// What a model server is to run from now on.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(title = "UpdateModelServerBackendRequest")]
pub struct UpdateModelServerBackendRequest {
    /// The id of a registered model of the account or of a public one, or `vendor/name`.
    #[schema(min_length = 1, max_length = 2048)]
    pub new_model_deployment_id: String,
}

/// A model server that was switched.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "UpdateModelServerBackendResponse")]
pub struct UpdateModelServerBackendResponse {
    pub account_id: String,
    pub model_server_id: String,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// What it ran before; the same as now if nothing has changed.
    #[schema(required = false)]
    pub old_model_deployment_id: String,
    pub new_model_deployment_id: String,
    /// What it runs.
    #[schema(required = false)]
    pub model_deployment_id: String,
}

impl UpdateModelServerBackendResponse {
    pub fn new(server: ModelServer, from: String) -> Self {
        Self {
            account_id: server.account.to_string(),
            model_server_id: server.id.to_string(),
            name: server.name,
            alias: server.alias,
            old_model_deployment_id: from,
            new_model_deployment_id: server.model_deployment_id.clone(),
            model_deployment_id: server.model_deployment_id,
        }
    }
}

/// A model server that runs what it ran before.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "RollbackModelServerResponse")]
pub struct RollbackModelServerResponse {
    pub from_deployment: String,
    pub rolled_back_to_deployment: String,
}

/// A model server that is no more.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "DeletedModelServer")]
pub struct DeletedModelServer {
    pub model_server_id: String,
    pub deleted: bool,
}

/// What a model server ran from a moment on.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "ModelServerBackend")]
pub struct ModelServerBackend {
    /// Counted from 1; the highest is what it runs now.
    pub number: i64,
    pub model_deployment_id: String,
    #[schema(value_type = String, format = DateTime)]
    pub since: String,
    /// Whose key chose it, where that was noted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_user_id: Option<String>,
    /// The entry that a rollback goes back to, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_to: Option<i64>,
}

impl From<ServerBackend> for ModelServerBackend {
    fn from(backend: ServerBackend) -> Self {
        Self {
            number: backend.number,
            model_deployment_id: backend.model_deployment_id,
            since: view::rfc3339(backend.since),
            by_user_id: backend.by_user_id,
            rollback_to: backend.rollback_to,
        }
    }
}
