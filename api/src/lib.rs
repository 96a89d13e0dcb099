//! HTTP in, jobs and status out.
//!
//! A request passes `middleware`, is read by `extract`, and handled in `routes`. One that makes a job
//! goes through `submit` and is answered by `answer`.

pub mod answer;
pub mod auth;
mod cancel;
pub mod catalogue;
mod credential;
pub mod error;
pub mod extract;
mod held;
mod loans;
mod middleware;
pub mod openapi;
pub mod paging;
mod registered;
mod rooms;
pub mod routes;
mod rules;
pub mod schema;
mod server;
pub mod state;
mod stream;
pub mod submit;
pub mod terms;
#[cfg(test)]
mod testing;
mod twin;
mod upstream;
pub mod waiters;
mod waiting;

use std::sync::Arc;

use axum::Router;
use inferq_common::{
    broker::SharedBroker,
    clock::Clock,
    config::ApiConfig,
    credential::MasterKeys,
    egress::Guard,
    instance::CurrentInstance,
    publisher::Publisher,
    shutdown::Shutdown,
    store::{SharedStore, path::JobPath},
};
use metrics_exporter_prometheus::PrometheusHandle;

pub use self::{
    rooms::Rooms,
    server::{serve, serve_operators},
    state::AppState,
    upstream::UpstreamModels,
    waiters::Waiters,
};

/// What the api stands on.
#[derive(Clone)]
pub struct Api {
    pub store: SharedStore,
    pub broker: SharedBroker,
    pub publisher: Publisher,
    pub path: JobPath,
    pub instance: CurrentInstance,
    /// Callers that wait in this process; its inbox hands each event of a job to
    /// [`Waiters::take`].
    pub waiters: Waiters,
    /// Workers that jobs may be lent to; its inbox shows each event of a job to [`Rooms::note`].
    pub rooms: Rooms,
    pub config: ApiConfig,
    pub upstream: UpstreamModels,
    pub guard: Guard,
    /// They seal what clients store.
    pub master_keys: Arc<MasterKeys>,
    pub clock: Arc<dyn Clock>,
    pub metrics: PrometheusHandle,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("store", &self.store).finish_non_exhaustive()
    }
}

/// All routes over the given parts, for a process that is never stopped.
pub fn router(api: Api) -> Router {
    routes::router(&AppState::new(api, Shutdown::new()))
}
