//! The document of a 422, and of any other error.

use inferq_common::job::Json;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use utoipa::ToSchema;

/// Everything that is wrong with one request.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "HTTPValidationError")]
pub struct HTTPValidationError {
    #[schema(required = false)]
    pub detail: Vec<ValidationError>,
}

/// One member of a request that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(title = "ValidationError")]
pub struct ValidationError {
    /// Where: `body`, `query`, `path` or `header`, then the names and indexes that lead there.
    #[schema(value_type = Vec<Location>)]
    pub loc: Vec<Location>,
    /// For people.
    pub msg: String,
    /// For programs; pydantic's words, such as `missing` and `int_parsing`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What stands there, unless it is large.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Value)]
    pub input: Option<Json>,
    /// What the message speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, additional_properties)]
    pub ctx: Option<Value>,
}

/// Inputs longer than this are not sent back.
const MAX_INPUT_BYTES: usize = 4096;

impl ValidationError {
    pub fn new(
        kind: &'static str,
        loc: Vec<Location>,
        msg: impl Into<String>,
        input: Option<&RawValue>,
        ctx: Option<Value>,
    ) -> Self {
        let input = input
            .filter(|input| input.get().len() <= MAX_INPUT_BYTES)
            .map(|input| Json::from(input.to_owned()));
        Self { loc, msg: msg.into(), kind, input, ctx }
    }

    /// A value of the right type that a rule forbids.
    pub fn refused(loc: Vec<Location>, reason: impl std::fmt::Display) -> Self {
        let ctx = json!({ "error": reason.to_string() });
        Self::new("value_error", loc, format!("Value error, {reason}"), None, Some(ctx))
    }
}

/// A step of the way to a member: a name or an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Location {
    Name(String),
    Index(usize),
}

impl From<&str> for Location {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<usize> for Location {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// Any error but a 422.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(title = "ErrorDetail")]
pub struct ErrorDetail {
    /// One sentence for a person.
    pub detail: String,
}
