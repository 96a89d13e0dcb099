//! The envelopes of lists.

use serde::Serialize;
use utoipa::{
    ToSchema,
    openapi::{Object, ObjectBuilder, Type, extensions::Extensions},
};

/// A page of models.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "ModelList")]
pub struct ModelList {
    #[schema(schema_with = constant_list)]
    pub object: &'static str,
    pub items: Vec<super::model::InferenceModel>,
    /// How many items a page has at most.
    pub limit: u32,
    /// How many models the filters let through, on all pages together.
    pub total: u64,
    /// Whether there are more in the direction that was asked for.
    pub has_more: bool,
}

/// All model servers of the account, oldest first.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "ModelServerList")]
pub struct ModelServerList {
    #[schema(schema_with = constant_list)]
    pub object: &'static str,
    pub items: Vec<super::model_server::ModelServerInfo>,
}

/// What a model server runs and ran, newest first: the last 1000.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "ModelServerHistory")]
pub struct ModelServerHistory {
    #[schema(schema_with = constant_list)]
    pub object: &'static str,
    pub items: Vec<super::model_server::ModelServerBackend>,
}

/// A member that always has this one value.
pub(super) fn constant(word: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .default(Some(word.into()))
        .extensions(Some(Extensions::from_iter([("const", word)])))
        .build()
}

pub(super) fn constant_model() -> Object {
    constant("model")
}

pub(super) fn constant_list() -> Object {
    constant("list")
}
