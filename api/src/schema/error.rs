//! The document of a 422, and of any other error. They are written by [`crate::error`].

use serde_json::{Map, Value};
use utoipa::{
    ToSchema,
    openapi::{Array, ArrayBuilder, ObjectBuilder, RefOr, Schema, Type, schema::AnyOfBuilder},
};

/// Everything that is wrong with one request.
#[derive(ToSchema)]
#[schema(title = "HTTPValidationError")]
pub struct HTTPValidationError {
    #[schema(required = false)]
    pub detail: Vec<ValidationError>,
}

/// One member of a request that is wrong.
#[derive(ToSchema)]
#[schema(title = "ValidationError")]
pub struct ValidationError {
    /// Where: `body`, `query`, `path` or `header`, then the names and indexes that lead there.
    #[schema(schema_with = location)]
    pub loc: Vec<Value>,
    /// For people.
    pub msg: String,
    /// For programs; pydantic's words, such as `missing` and `int_parsing`.
    #[schema(rename = "type")]
    pub kind: String,
    /// What stands there, unless it is large.
    #[schema(required = false)]
    pub input: Value,
    /// What the message speaks of.
    #[schema(value_type = Object, additional_properties, required = false)]
    pub ctx: Map<String, Value>,
}

fn location() -> Array {
    let step = AnyOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::String))
        .item(ObjectBuilder::new().schema_type(Type::Integer));
    ArrayBuilder::new().items(RefOr::T(Schema::from(step.build()))).title(Some("Location")).build()
}

/// Any error but a 422.
#[derive(ToSchema)]
#[schema(title = "ErrorDetail")]
pub struct ErrorDetail {
    /// One sentence for a person.
    pub detail: String,
}
