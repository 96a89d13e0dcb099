//! The OpenAPI document, made from the types and handlers of this crate.

mod polish;

use std::sync::LazyLock;

use utoipa::{
    Modify, OpenApi as _,
    openapi::{
        OpenApi,
        security::{ApiKey, ApiKeyValue, SecurityScheme},
    },
};

use self::polish::Polish;

/// The name of the one security scheme in the contract.
const API_KEY: &str = "APIKeyHeader";

/// The document served at `/openapi.json`.
pub fn document() -> &'static OpenApi {
    static DOCUMENT: LazyLock<OpenApi> = LazyLock::new(Document::openapi);
    &DOCUMENT
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "inferq",
        description = "Asynchronous inference: every request is a durable job. Answers come by \
            waiting, by polling, or by a signed POST to a callback address.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
    ),
    components(schemas(
        crate::schema::error::HTTPValidationError,
        crate::schema::error::ErrorDetail,
        crate::schema::inference::GenericModelRequest,
        crate::schema::inference::GenericModelResponse,
        crate::schema::inference::GenericInferenceRequest,
        crate::schema::inference::GenericInferenceResponse,
        crate::schema::inference::GenericInferenceResponseChunk,
        crate::schema::model::CreateModelRequest,
        crate::schema::list::ModelList,
        crate::schema::list::ModelServerList,
        crate::schema::model_server::CreateModelServerRequest,
        crate::schema::model_server::ModelServerDeployment,
        crate::schema::job::Job,
    )),
    modifiers(&Security, &Polish),
)]
struct Document;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut OpenApi) {
        let key = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("x-api-key")));
        document.components.get_or_insert_default().add_security_scheme(API_KEY, key);
    }
}
