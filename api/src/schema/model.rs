//! Registered models.

use inferq_common::{
    job::Json,
    model::{Model, ModelType},
    vendor::Vendor,
    view,
};
use serde::{Deserialize, Serialize};
use utoipa::{
    ToSchema,
    openapi::{Ref, Schema, schema::AnyOfBuilder},
};

use super::{
    launch::LaunchVendorConfiguration,
    llm_engine::LLMEngineVendorConfiguration,
    words::{
        IdentifierTypeEnum, InferenceModelAvailability, InferenceModelStatus, InferenceModelType,
        InferenceModelVendor,
    },
};

/// A model of an account.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "InferenceModel")]
pub struct InferenceModel {
    pub id: String,
    #[schema(schema_with = super::list::constant_model, required = false)]
    pub object: &'static str,
    pub name: String,
    pub model_type: InferenceModelType,
    pub model_vendor: InferenceModelVendor,
    /// With its defaults filled in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = vendor_configuration, required = false)]
    pub vendor_configuration: Option<Json>,
    pub status: InferenceModelStatus,
    /// Why the status is what it is, or why the model is unavailable, for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Map<String, Value>>)]
    pub model_metadata: Option<Json>,
    #[schema(required = false)]
    pub model_availability: InferenceModelAvailability,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: String,
    pub created_by_user_id: String,
    pub created_by_identity_type: IdentifierTypeEnum,
}

/// The configuration of the vendors that deploy a model; hosted models have none.
fn vendor_configuration() -> Schema {
    AnyOfBuilder::new()
        .item(Ref::from_schema_name(LaunchVendorConfiguration::name()))
        .item(Ref::from_schema_name(LLMEngineVendorConfiguration::name()))
        .build()
        .into()
}

impl From<Model> for InferenceModel {
    fn from(model: Model) -> Self {
        Self {
            id: model.id.to_string(),
            object: "model",
            name: model.name,
            model_type: model.model_type.into(),
            model_vendor: model.vendor.into(),
            vendor_configuration: model.vendor_configuration,
            status: model.status.into(),
            status_reason: model.status_reason,
            model_metadata: model.metadata,
            model_availability: InferenceModelAvailability::Unknown,
            created_at: view::rfc3339(model.created_at),
            created_by_user_id: model.created_by_user_id,
            created_by_identity_type: model.created_by_identity_type.into(),
        }
    }
}

/// What happens where the account has a model of the same vendor and name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// 409.
    #[default]
    Error,
    /// Its configuration, type and metadata are replaced.
    Update,
}

/// A model for Launch to run.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(title = "CreateLaunchModelRequest")]
pub struct CreateLaunchModelRequest {
    /// Unique for the vendor within the account.
    #[schema(min_length = 1, max_length = 1024)]
    pub name: String,
    #[schema(inline, required = false, default = "launch")]
    pub model_vendor: LaunchVendorWord,
    #[schema(inline, required = false, default = "generic")]
    pub model_type: LaunchTypeWord,
    pub vendor_configuration: LaunchVendorConfiguration,
    #[schema(value_type = Option<Map<String, Value>>)]
    pub model_metadata: Option<Json>,
    #[schema(inline, required = false, default = "error")]
    pub on_conflict: OnConflict,
}

/// A model for LLM Engine to run.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(title = "CreateLLMEngineModelRequest")]
pub struct CreateLLMEngineModelRequest {
    /// Unique for the vendor within the account.
    #[schema(min_length = 1, max_length = 1024)]
    pub name: String,
    #[schema(inline, required = false, default = "llmengine")]
    pub model_vendor: LLMEngineVendorWord,
    #[schema(inline, required = false, default = "chat_completion")]
    pub model_type: LLMEngineTypeWord,
    pub vendor_configuration: LLMEngineVendorConfiguration,
    #[schema(value_type = Option<Map<String, Value>>)]
    pub model_metadata: Option<Json>,
    #[schema(inline, required = false, default = "error")]
    pub on_conflict: OnConflict,
}

/// A model that its vendor hosts. Calling `vendor/name` needs no registration; a registered model
/// has an id, metadata and a default callback address.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(title = "CreateHostedModelRequest")]
pub struct CreateHostedModelRequest {
    /// The vendor's own name of the model; unique for the vendor within the account.
    #[schema(min_length = 1, max_length = 1024)]
    pub name: String,
    pub model_vendor: InferenceModelVendor,
    pub model_type: InferenceModelType,
    /// `default_callback_url` in it is where callbacks go unless a request names another address,
    /// `credential` the name of the credential that calls are made with.
    #[schema(value_type = Option<Map<String, Value>>)]
    pub model_metadata: Option<Json>,
    #[schema(inline, required = false, default = "error")]
    pub on_conflict: OnConflict,
}

/// The body of a model's creation; `model_vendor` says which of the three it is.
#[derive(Debug, Clone, ToSchema)]
#[serde(untagged)]
#[schema(title = "CreateModelRequest")]
pub enum CreateModelRequest {
    Launch(CreateLaunchModelRequest),
    LLMEngine(CreateLLMEngineModelRequest),
    Hosted(CreateHostedModelRequest),
}

/// A change of a model: new metadata, a part of its configuration (also with metadata), or a name.
///
/// A name stands alone. What is `null` counts as not given.
#[derive(Debug, Clone, ToSchema)]
#[serde(untagged)]
#[schema(title = "UpdateModelRequest")]
pub enum UpdateModelRequest {
    Metadata(UpdateModelMetadataRequest),
    Configuration(UpdateModelConfigurationRequest),
    Name(RenameModelRequest),
}

/// New metadata of a model, in place of what it had.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(title = "UpdateModelMetadataRequest")]
pub struct UpdateModelMetadataRequest {
    #[schema(value_type = Option<Map<String, Value>>)]
    pub model_metadata: Option<Json>,
}

/// A part of a model's configuration.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(title = "UpdateModelConfigurationRequest")]
pub struct UpdateModelConfigurationRequest {
    /// Members that are given take the place of those there, `null` takes one away; for Launch that
    /// goes for the members of `model_image` and `model_infra`.
    #[schema(value_type = Map<String, Value>)]
    pub vendor_configuration: Json,
    #[schema(value_type = Option<Map<String, Value>>)]
    pub model_metadata: Option<Json>,
}

/// A new name of a model.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(title = "RenameModelRequest")]
pub struct RenameModelRequest {
    /// Unique for the vendor within the account.
    #[schema(min_length = 1, max_length = 1024)]
    pub name: String,
    #[schema(inline, required = false, default = "error")]
    pub on_conflict: OnTakenName,
}

/// What happens where another model of the vendor has the name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnTakenName {
    /// 409.
    #[default]
    Error,
    /// The two models exchange names.
    Swap,
}

/// A model that is no more.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "DeletedModel")]
pub struct DeletedModel {
    pub id: String,
    #[schema(schema_with = super::list::constant_model, required = false)]
    pub object: &'static str,
    pub deleted: bool,
}

/// A word of the contract that has to be there where it stands at all.
macro_rules! literal {
    ($($name:ident($domain:ident::$variant:ident) = $text:tt),+ $(,)?) => {$(
        #[doc = concat!("Always `", $text, "`.")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        pub enum $name {
            #[serde(rename = $text)]
            Only,
        }

        impl From<$name> for $domain {
            fn from($name::Only: $name) -> Self {
                Self::$variant
            }
        }
    )+};
}

literal! {
    LaunchVendorWord(Vendor::Launch) = "launch",
    LaunchTypeWord(ModelType::Generic) = "generic",
    LLMEngineVendorWord(Vendor::LlmEngine) = "llmengine",
    LLMEngineTypeWord(ModelType::ChatCompletion) = "chat_completion",
}
