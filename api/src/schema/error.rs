//! The document of a 422, and of any other error. They are written by [`crate::error`].

use serde_json::{Map, Value};
use utoipa::{
    ToSchema,
    openapi::{
        Array, ArrayBuilder, Object, ObjectBuilder, RefOr, Schema, Type,
        schema::{AdditionalProperties, AnyOfBuilder},
    },
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
    #[schema(schema_with = message)]
    pub msg: String,
    /// For programs; pydantic's words, such as `missing` and `int_parsing`.
    #[schema(rename = "type", schema_with = error_type)]
    pub kind: String,
    /// What stands there, unless it is large.
    #[schema(required = false)]
    pub input: Value,
    /// What the message speaks of.
    #[schema(schema_with = context, required = false)]
    pub ctx: Map<String, Value>,
}

fn location() -> Array {
    let step = AnyOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::String))
        .item(ObjectBuilder::new().schema_type(Type::Integer));
    ArrayBuilder::new().items(RefOr::T(Schema::from(step.build()))).title(Some("Location")).build()
}

fn message() -> Object {
    ObjectBuilder::new().schema_type(Type::String).title(Some("Message")).build()
}

fn error_type() -> Object {
    ObjectBuilder::new().schema_type(Type::String).title(Some("Error Type")).build()
}

fn context() -> Object {
    ObjectBuilder::new()
        .title(Some("Context"))
        .additional_properties(Some(AdditionalProperties::FreeForm(true)))
        .build()
}

/// Any error but a 422.
#[derive(ToSchema)]
#[schema(title = "ErrorDetail")]
pub struct ErrorDetail {
    /// One sentence for a person.
    pub detail: String,
}
