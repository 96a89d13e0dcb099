//! Model servers: the stable fronts that aliases name.

use inferq_common::model::ModelServer;
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
    /// What it runs: the id of a registered model of the account, or `vendor/name`.
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
