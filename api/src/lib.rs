//! HTTP in, jobs and status out.

pub mod auth;
mod cache;
pub mod error;
pub mod extract;
pub mod openapi;
pub mod routes;
pub mod schema;
pub mod state;

use std::sync::Arc;

use axum::Router;
use inferq_common::{
    broker::SharedBroker, clock::Clock, config::ApiConfig, instance::CurrentInstance,
    shutdown::Shutdown, store::SharedStore,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

pub use self::state::AppState;

/// What the api stands on.
pub struct Api {
    pub store: SharedStore,
    pub broker: SharedBroker,
    pub instance: CurrentInstance,
    pub config: ApiConfig,
    pub guard: inferq_common::egress::Guard,
    pub clock: Arc<dyn Clock>,
    pub metrics: PrometheusHandle,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("store", &self.store).finish_non_exhaustive()
    }
}

/// All routes over the given parts.
pub fn router(api: Api) -> Router {
    routes::router().with_state(AppState::new(api))
}

/// Serves until a soft stop, then lets callers in flight finish.
///
/// # Errors
/// What the listener says when it cannot accept any more.
pub async fn serve(api: Api, listener: TcpListener, shutdown: Shutdown) -> std::io::Result<()> {
    axum::serve(listener, router(api))
        .with_graceful_shutdown(async move { shutdown.soft.cancelled().await })
        .await
}
