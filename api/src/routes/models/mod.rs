//! Registered models (v5).

pub mod create;
pub mod get;
pub mod list;
#[cfg(test)]
mod tests;

use axum::{Router, routing};

use crate::state::AppState;

/// The routes of this resource.
pub(crate) fn router() -> Router<AppState> {
    Router::new()
        .route("/v5/models", routing::get(list::list_models).post(create::create_model))
        .route("/v5/models/{model_id}", routing::get(get::get_model))
}
