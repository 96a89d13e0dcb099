//! The closed sets of words on the wire, each under its name in the contract.

use inferq_common::{
    callback::DeliveryStatus as CallbackStatus,
    error::ErrorClass as Class,
    job::{AttemptOutcome as Ending, JobStatus as Status, Operation, Priority, Route},
    model::{IdentityType, ModelStatus, ModelType},
    vendor::Vendor,
};
use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

/// Gives a word of the domain its schema, so that the document lists what the code knows.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident($domain:ty)),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $domain);

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let words = <$domain>::ALL.iter().map(|word| word.as_str());
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .title(Some(stringify!($name)))
                    .enum_values(Some(words))
                    .into()
            }
        }

        impl ToSchema for $name {}

        impl From<$domain> for $name {
            fn from(word: $domain) -> Self {
                Self(word)
            }
        }
    )+};
}

words! {
    /// What a model is asked for.
    InferenceModelType(ModelType),
    /// Who serves a model.
    InferenceModelVendor(Vendor),
    /// Whether a model can be called.
    InferenceModelStatus(ModelStatus),
    /// Who made something.
    IdentifierTypeEnum(IdentityType),
    /// Where a job is in its life.
    JobStatus(Status),
    /// Which endpoint made a job.
    JobOperation(Operation),
    /// Which of a lane's three queues a job stands in.
    JobPriority(Priority),
    /// The vendor's endpoint a job goes to.
    InferenceRoute(Route),
    /// What kind of failure ended a job or an attempt.
    ErrorClass(Class),
    /// How one attempt ended.
    AttemptOutcome(Ending),
    /// Where a callback is in its life.
    DeliveryStatus(CallbackStatus),
}

/// Whether a model answers at present, as the workers have seen in the last ten minutes. Where none
/// has called it that is `unknown`; nothing is called only to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(title = "InferenceModelAvailability")]
#[serde(rename_all = "snake_case")]
pub enum InferenceModelAvailability {
    Unknown,
    Available,
    Unavailable,
}
