//! The OpenAPI document, made from the types and handlers of this crate.

mod clients;
mod polish;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use utoipa::{
    Modify, OpenApi as _,
    openapi::{
        OpenApi,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
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
        clients::inference,
        clients::execute,
        clients::list_jobs,
        clients::get_job,
        clients::cancel_job,
        clients::retry_job,
        clients::watch_job,
        clients::list_attempts,
        clients::list_deliveries,
        clients::get_delivery,
        clients::redeliver,
        crate::routes::model_servers::create::create_model_server,
        crate::routes::model_servers::list::list_model_servers,
        crate::routes::model_servers::get::get_model_server,
        crate::routes::model_servers::get::get_model_server_by_alias,
        crate::routes::model_servers::get::get_deployment,
        crate::routes::model_servers::execute::execute_model_server,
        crate::routes::model_servers::backend::update_backend,
        crate::routes::model_servers::rollback::roll_back,
        crate::routes::model_servers::history::list_history,
        crate::routes::model_servers::delete::delete_model_server,
        crate::routes::models::create::create_model,
        crate::routes::models::list::list_models,
        crate::routes::models::get::get_model,
        crate::routes::models::update::update_model,
        crate::routes::models::delete::delete_model,
        crate::routes::credentials::list::list_credentials,
        crate::routes::credentials::put::put_credential,
        crate::routes::credentials::get::get_credential,
        crate::routes::credentials::delete::delete_credential,
        crate::routes::launch::create::create,
        crate::routes::launch::task::get,
        crate::routes::launch::sync::run,
        crate::routes::launch::stream::run,
        crate::routes::launch::list::list,
        crate::routes::launch::hosted::list_endpoints,
        crate::routes::launch::hosted::get_endpoint,
        crate::routes::launch::hosted::create_task,
        crate::routes::launch::hosted::get_endpoint_task,
        crate::routes::launch::hosted::get_task,
        crate::routes::launch::hosted::run_task,
        crate::routes::health::healthz,
        crate::routes::health::readyz,
        crate::routes::metrics::metrics,
        crate::routes::docs::openapi_json,
        crate::routes::docs::docs,
    ),
    // In the order of the page; every operation has one of them.
    tags(
        (name = "Inference", description = "Jobs by the name of a model"),
        (name = "Jobs", description = "What became of them"),
        (name = "Models", description = "Registered models"),
        (name = "Model server", description = "Aliases, and jobs by them"),
        (name = "Launch", description = "Tasks, as Launch's clients make them"),
        (name = "Credentials", description = "How an account pays vendors by itself"),
        (name = "Deliveries", description = "Callbacks"),
        (name = "Operators", description = "Health, metrics and this document"),
    ),
    // Those that no operation names directly.
    components(schemas(
        crate::schema::inference::GenericInferenceResponse,
        crate::schema::inference::GenericInferenceResponseChunk,
    )),
    modifiers(&Security, &Polish),
)]
struct Document;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut OpenApi) {
        let key = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("x-api-key")));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(API_KEY, key);
        // The key is the user name; the password says nothing.
        let basic = SecurityScheme::Http(Http::new(HttpAuthScheme::Basic));
        components.add_security_scheme("HTTPBasic", basic);
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("HTTPBearer", bearer);
    }
}
