//! The documents of the API as types: the contract's own under its names, then ours.
//!
//! Request bodies of models are checked against these schemas by [`check`]; the OpenAPI document is
//! made of them.

pub mod check;
pub mod credential;
pub mod error;
pub mod health;
pub mod inference;
pub mod job;
pub mod launch;
pub mod launch_task;
pub mod list;
pub mod llm_engine;
pub mod model;
pub mod model_server;
mod quantity;
pub mod words;

use std::collections::BTreeMap;

use utoipa::openapi::{RefOr, Schema};

/// All schemas with a name.
fn components() -> &'static BTreeMap<String, RefOr<Schema>> {
    static NONE: BTreeMap<String, RefOr<Schema>> = BTreeMap::new();
    crate::openapi::document().components.as_ref().map_or(&NONE, |components| &components.schemas)
}
