//! `/healthz` and `/readyz`: whether this process lives, and whether it can do its work.

use std::{fmt::Display, future::Future, time::Duration};

use axum::{Json, Router, extract::State, response::IntoResponse, routing};
use http::{StatusCode, header};
use inferq_common::{
    broker::{BrokerHealth, SharedBroker},
    store::{SharedStore, StoreError},
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::time::{Instant, timeout};

use super::metrics;
use crate::{
    schema::health::{Check, CheckStatus, Checks, Liveness, Readiness, ReadyStatus},
    state::AppState,
};

/// A check that takes longer counts as failed: a prober waits a few seconds at most.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// What the checks look at.
#[derive(Debug, Clone)]
pub(crate) struct Edges {
    pub store: SharedStore,
    pub broker: SharedBroker,
}

/// `/healthz`, `/readyz` and `/metrics` for a process without an api.
pub fn operator_router(
    store: SharedStore,
    broker: SharedBroker,
    metrics: PrometheusHandle,
) -> Router {
    let edges = Edges { store, broker };
    Router::new()
        .route("/healthz", routing::get(healthz))
        .route("/readyz", routing::get(readyz))
        .with_state(edges)
        .merge(metrics::of(metrics))
}

/// The routes of this resource.
pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/healthz", routing::get(healthz)).route(
        "/readyz",
        routing::get(async |State(state): State<AppState>| {
            readyz(State(Edges { store: state.store.clone(), broker: state.broker.clone() })).await
        }),
    )
}

/// Liveness
///
/// Answers as long as the process does. Needs no key.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "Operators",
    operation_id = "GET-/healthz",
    responses((status = 200, description = "The process lives", body = Liveness)),
)]
pub(crate) async fn healthz() -> Json<Liveness> {
    Json(Liveness { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// Readiness
///
/// `degraded` without the broker: jobs are accepted and run when it is back. Needs no key.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "Operators",
    operation_id = "GET-/readyz",
    responses(
        (status = 200, description = "`ok` or `degraded`", body = Readiness),
        (status = 503, description = "`unavailable`", body = Readiness),
    ),
)]
pub(crate) async fn readyz(State(edges): State<Edges>) -> impl IntoResponse {
    let readiness = assess(&edges).await;
    let code = match readiness.status {
        ReadyStatus::Ok | ReadyStatus::Degraded => StatusCode::OK,
        ReadyStatus::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, [(header::CACHE_CONTROL, "no-store")], Json(readiness))
}

async fn assess(edges: &Edges) -> Readiness {
    let (store, migrations, broker) = tokio::join!(
        check(edges.store.kind(), async { edges.store.ping().await.map_err(words) }),
        check(edges.store.kind(), async { edges.store.check_migrated().await.map_err(words) }),
        check(edges.broker.kind(), async {
            match edges.broker.health() {
                BrokerHealth::Up => Ok(()),
                BrokerHealth::Down(reason) => Err(reason),
            }
        }),
    );
    let fine = |check: &Check| check.status == CheckStatus::Ok;
    let status = match (fine(&store) && fine(&migrations), fine(&broker)) {
        (true, true) => ReadyStatus::Ok,
        (true, false) => ReadyStatus::Degraded,
        (false, _) => ReadyStatus::Unavailable,
    };
    Readiness { status, checks: Checks { store, migrations, broker } }
}

async fn check<E: Display>(
    kind: &'static str,
    probe: impl Future<Output = Result<(), E>>,
) -> Check {
    let start = Instant::now();
    let message = match timeout(CHECK_TIMEOUT, probe).await {
        Ok(Ok(())) => None,
        Ok(Err(reason)) => Some(reason.to_string()),
        Err(_) => Some(format!("no answer within {} s", CHECK_TIMEOUT.as_secs())),
    };
    let status = if message.is_none() { CheckStatus::Ok } else { CheckStatus::Failed };
    Check { status, kind, message, duration_ms: start.elapsed().as_secs_f64() * 1000.0 }
}

/// What went wrong in this layer's words. Causes may name hosts and users and stay in the log.
fn words(error: StoreError) -> String {
    tracing::warn!(error = &error as &dyn std::error::Error, "store check failed");
    error.to_string()
}
