//! The routes, one folder or file for each resource.

pub mod credentials;
pub mod deliveries;
pub mod docs;
pub mod execute;
pub mod health;
pub mod inference;
pub mod jobs;
pub mod launch;
pub mod metrics;
pub mod model_servers;
pub mod models;
#[cfg(test)]
mod tests;

use axum::Router;

use crate::{error::ApiError, middleware, state::AppState};

/// All routes. What is unknown gets FastAPI's JSON, not an empty page.
pub(crate) fn router(state: &AppState) -> Router {
    let router = middleware::for_clients(state, platform())
        .merge(health::router())
        .merge(metrics::router())
        .merge(docs::router())
        .fallback(async || ApiError::no_route())
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed);
    middleware::for_all(state, router).with_state(state.clone())
}

/// The routes of clients.
fn platform() -> Router<AppState> {
    Router::new()
        .merge(inference::router())
        .merge(execute::router())
        .merge(jobs::router())
        .merge(deliveries::router())
        .merge(models::router())
        .merge(model_servers::router())
        .merge(credentials::router())
        .merge(launch::router())
}
