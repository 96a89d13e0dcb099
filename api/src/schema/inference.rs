//! Requests for inference and their answers. They are read and written by the routes themselves,
//! because arguments and responses pass through untouched; the tests hold both to these schemas.

use serde_json::{Map, Value};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ArrayBuilder, Object, ObjectBuilder, Ref, RefOr, Schema, Type,
        schema::{AdditionalProperties, AnyOfBuilder, SchemaType},
    },
};

use super::{
    list::constant,
    words::{InferenceRoute, JobPriority},
};

/// The input of a model behind an alias: an object of the model's own.
#[derive(ToSchema)]
#[schema(title = "GenericModelRequest")]
pub struct GenericModelRequest {
    /// Flag indicating whether to stream the completion response
    #[schema(required = false, default = false)]
    pub stream: bool,
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// What a model behind an alias answered, or why it did not.
#[derive(ToSchema)]
#[schema(title = "GenericModelResponse")]
pub struct GenericModelResponse {
    #[schema(required = false)]
    pub status: String,
    #[schema(required = false)]
    pub status_code: i64,
    #[schema(required = false)]
    pub error_message: String,
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A request for inference.
#[derive(ToSchema)]
#[schema(title = "GenericInferenceRequest")]
pub struct GenericInferenceRequest {
    /// model specified as `vendor/name` (ex. openai/gpt-5)
    pub model: String,
    /// Arguments passed into model
    #[schema(required = false)]
    pub args: Map<String, Value>,
    /// Vendor specific configuration
    #[schema(required = false)]
    pub inference_configuration: LaunchInferenceConfiguration,
    /// Whether the answer comes in chunks; `args.stream` asks for the same.
    #[schema(required = false, default = false)]
    pub stream: bool,
    /// Where the job is posted once it has ended; the answer is 202 then.
    #[schema(required = false, format = "uri")]
    pub callback_url: String,
    /// Kept with the job and shown with it.
    #[schema(required = false)]
    pub metadata: Map<String, Value>,
    #[schema(required = false)]
    pub priority: JobPriority,
    /// Not to be started before this moment.
    #[schema(required = false, format = DateTime)]
    pub run_at: String,
    /// Not to be started after this moment.
    #[schema(required = false, format = DateTime)]
    pub expires_at: String,
    /// Whether the job is cancelled once its caller is gone.
    #[schema(required = false, default = false)]
    pub cancel_on_disconnect: bool,
}

/// The limits a job runs under.
#[derive(ToSchema)]
#[schema(title = "LaunchInferenceConfiguration")]
pub struct LaunchInferenceConfiguration {
    /// Bounds one attempt; 60 if not given.
    #[schema(required = false, minimum = 1, maximum = 86_400)]
    pub timeout_seconds: i64,
    /// Attempts after the first; 2 if not given.
    #[schema(required = false, minimum = 0, maximum = 10)]
    pub num_retries: i64,
    /// Bounds all attempts together, waits included.
    #[schema(required = false, minimum = 1)]
    pub total_timeout_seconds: i64,
    /// Overrides the endpoint that the shape of `args` would choose.
    #[schema(required = false)]
    pub route: InferenceRoute,
}

/// What a model answered.
#[derive(ToSchema)]
#[schema(title = "GenericInferenceResponse")]
pub struct GenericInferenceResponse {
    #[schema(schema_with = inference_word, required = false)]
    pub object: String,
    #[schema(schema_with = any_response)]
    pub response: Value,
}

/// A part of what a model answered.
#[derive(ToSchema)]
#[schema(title = "GenericInferenceResponseChunk")]
pub struct GenericInferenceResponseChunk {
    #[schema(schema_with = chunk_word, required = false)]
    pub object: String,
    #[schema(schema_with = any_response)]
    pub response: Value,
}

fn inference_word() -> Object {
    constant("generic_inference")
}

fn chunk_word() -> Object {
    constant("generic_inference.chunk")
}

/// Any JSON value but null.
fn any_response() -> Schema {
    let scalar = |kind| ObjectBuilder::new().schema_type(kind);
    AnyOfBuilder::new()
        .item(
            scalar(Type::Object).additional_properties(Some(AdditionalProperties::FreeForm(true))),
        )
        .item(
            ArrayBuilder::new()
                .items(RefOr::T(Schema::Object(Object::with_type(SchemaType::AnyValue)))),
        )
        .item(scalar(Type::String))
        .item(scalar(Type::Integer))
        .item(scalar(Type::Number))
        .item(scalar(Type::Boolean))
        .build()
        .into()
}

/// What `POST /v5/inference` answers at once.
#[derive(Debug)]
pub struct InferenceAnswer;

impl PartialSchema for InferenceAnswer {
    fn schema() -> RefOr<Schema> {
        let mut either = AnyOfBuilder::new()
            .item(Ref::from_schema_name(GenericInferenceResponse::name()))
            .item(Ref::from_schema_name(GenericInferenceResponseChunk::name()))
            .build();
        let title = "Response Post-V5-/V5/Inference".into();
        either.extensions.get_or_insert_default().insert("title".to_owned(), title);
        RefOr::T(either.into())
    }
}

impl ToSchema for InferenceAnswer {}
