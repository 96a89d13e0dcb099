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
        check(edges.store.kind(), async {
            edges.store.ping().await.map_err(|error| words(&error))
        }),
        check(edges.store.kind(), async {
            edges.store.check_migrated().await.map_err(|error| words(&error))
        }),
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
    // Whole microseconds: more digits would be noise.
    let duration_ms = (start.elapsed().as_secs_f64() * 1e6).round() / 1e3;
    Check { status, kind, message, duration_ms }
}

/// What went wrong in this layer's words. Causes may name hosts and users and stay in the log.
fn words(error: &StoreError) -> String {
    tracing::warn!(error = error as &dyn std::error::Error, "store check failed");
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::{future, sync::Arc};

    use async_trait::async_trait;
    use axum::body::Body;
    use http::Request;
    use inferq_common::{
        broker::{Broker, BrokerError, Deliveries, Event, Inbox, LaneDepth, Message},
        id::InstanceId,
        job::Lane,
        store::{Store as _, sqlite::SqliteStore},
    };
    use metrics_exporter_prometheus::PrometheusBuilder;
    use serde_json::Value;
    use tower::ServiceExt as _;

    use super::*;
    use crate::testing::{TestApi, open};

    /// A broker that cannot be reached.
    #[derive(Debug)]
    struct Unreachable;

    #[async_trait]
    impl Broker for Unreachable {
        fn kind(&self) -> &'static str {
            "rabbitmq"
        }

        fn takes_time(&self) -> bool {
            true
        }

        async fn publish(&self, _: Lane, _: &Message) -> Result<(), BrokerError> {
            Err(BrokerError::Closed)
        }

        async fn consume(&self, _: Lane, _: u16) -> Result<Box<dyn Deliveries>, BrokerError> {
            Err(BrokerError::Closed)
        }

        async fn inbox(&self, _: InstanceId) -> Result<Box<dyn Inbox>, BrokerError> {
            Err(BrokerError::Closed)
        }

        async fn send(&self, _: InstanceId, _: &Event) -> Result<(), BrokerError> {
            Err(BrokerError::Closed)
        }

        async fn hand(&self, _: InstanceId, _: &Event) -> Result<(), BrokerError> {
            Err(BrokerError::Closed)
        }

        async fn depth(&self, _: Lane) -> Result<LaneDepth, BrokerError> {
            Err(BrokerError::Closed)
        }

        fn health(&self) -> BrokerHealth {
            BrokerHealth::Down("connection refused".to_owned())
        }

        async fn close(&self, _: Duration) {}
    }

    async fn ready(store: SharedStore, broker: SharedBroker) -> (u16, Value) {
        let (code, body) = operator(store, broker, "/readyz").await;
        let mut body: Value = serde_json::from_str(&body).unwrap();
        for check in body["checks"].as_object_mut().unwrap().values_mut() {
            let duration = check.as_object_mut().unwrap().remove("duration_ms").unwrap();
            assert!((0.0..3000.0).contains(&duration.as_f64().unwrap()), "{duration}");
        }
        (code, body)
    }

    async fn operator(store: SharedStore, broker: SharedBroker, path: &str) -> (u16, String) {
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let router = operator_router(store, broker, metrics);
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    fn sqlite(folder: &tempfile::TempDir) -> Arc<SqliteStore> {
        open(folder)
    }

    #[tokio::test]
    async fn a_process_with_all_it_needs_is_ready_without_a_key() {
        let api = TestApi::start().await;
        let request = |path: &str| Request::get(path).body(Body::empty()).unwrap();
        let live = api.send(request("/healthz")).await;
        assert_eq!(live.ok(), serde_json::json!({ "status": "ok", "version": "0.1.0" }));
        assert_eq!(api.send(request("/readyz")).await.ok()["status"], "ok");
        let metrics = api.send(request("/metrics")).await;
        assert_eq!(metrics.status, 200);
        assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    }

    #[tokio::test]
    async fn without_the_broker_a_process_is_degraded_not_dead() {
        let folder = tempfile::tempdir().unwrap();
        let store = sqlite(&folder);
        store.migrate().await.unwrap();
        let (code, body) = ready(store, Arc::new(Unreachable)).await;
        assert_eq!(code, 200);
        insta::assert_json_snapshot!(body);
    }

    #[tokio::test]
    async fn a_store_without_its_tables_makes_a_process_unavailable() {
        let folder = tempfile::tempdir().unwrap();
        let (code, body) = ready(sqlite(&folder), Arc::new(Unreachable)).await;
        assert_eq!((code, &body["status"]), (503, &"unavailable".into()));
        assert_eq!(body["checks"]["store"]["status"], "ok");
        assert_eq!(body["checks"]["migrations"]["status"], "failed");
        let message = body["checks"]["migrations"]["message"].as_str().unwrap();
        assert!(message.contains("run `inferq migrate`"), "{message}");
    }

    #[tokio::test]
    async fn a_store_that_is_gone_makes_a_process_unavailable_but_alive() {
        let folder = tempfile::tempdir().unwrap();
        let store = sqlite(&folder);
        store.migrate().await.unwrap();
        store.close().await;
        let (code, body) = ready(store.clone(), Arc::new(Unreachable)).await;
        assert_eq!((code, &body["status"]), (503, &"unavailable".into()));
        assert_eq!(body["checks"]["store"]["status"], "failed");
        assert_eq!(operator(store.clone(), Arc::new(Unreachable), "/healthz").await.0, 200);
        assert_eq!(operator(store, Arc::new(Unreachable), "/metrics").await.0, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_is_over_after_two_seconds() {
        let check = check("postgres", future::pending::<Result<(), String>>()).await;
        assert_eq!(check.status, CheckStatus::Failed);
        assert_eq!(check.message.as_deref(), Some("no answer within 2 s"));
        assert!((2000.0..2100.0).contains(&check.duration_ms));
    }
}
