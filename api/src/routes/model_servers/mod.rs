//! Model servers (v4): the stable fronts that aliases name.

pub mod backend;
pub mod create;
pub mod delete;
pub mod execute;
pub mod get;
pub mod history;
pub mod list;
pub mod rollback;
#[cfg(test)]
mod switch_tests;
#[cfg(test)]
mod tests;

use axum::{Router, routing};

use crate::{error::ApiError, state::AppState};

/// The routes of this resource.
pub(crate) fn router() -> Router<AppState> {
    Router::new()
        .route(
            "/v4/serving",
            routing::get(list::list_model_servers).post(create::create_model_server),
        )
        .route(
            "/v4/serving/{model_server_id}",
            routing::get(get::get_model_server).delete(delete::delete_model_server),
        )
        .route("/v4/serving/{model_server_id}/backend", routing::put(backend::update_backend))
        .route("/v4/serving/{model_server_id}/rollback", routing::post(rollback::roll_back))
        .route("/v4/serving/{model_server_id}/history", routing::get(history::list_history))
        .route(
            "/v4/serving/{model_server_id}/execute",
            routing::post(execute::execute_model_server),
        )
        .route("/v4/serving/{model_server_id}/deployment", routing::get(get::get_deployment))
        .route("/v4/serving/a/{alias}", routing::get(get::get_model_server_by_alias))
}

/// Whether a text of any length has an alias's characters:
/// [`ALIAS_PATTERN`](crate::schema::model_server::ALIAS_PATTERN) as code.
fn is_alias(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    !text.is_empty() && text.chars().all(allowed)
}

fn not_found() -> ApiError {
    ApiError::NotFound("the account has no model server with this id".into())
}
