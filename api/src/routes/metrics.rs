//! `/metrics` in Prometheus' text form.

use axum::{Router, extract::State, response::IntoResponse, routing};
use http::header;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::state::AppState;

/// The content type of the text form.
///
/// Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.
const TEXT_FORM: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The routes of this resource.
pub(crate) fn router() -> Router<AppState> {
    Router::new().route(
        "/metrics",
        routing::get(async |State(state): State<AppState>| {
            metrics(State(state.metrics.clone())).await
        }),
    )
}

/// The route for a process without an api.
pub(super) fn of(handle: PrometheusHandle) -> Router {
    Router::new().route("/metrics", routing::get(metrics)).with_state(handle)
}

/// Metrics
///
/// Needs no key.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "Operators",
    operation_id = "GET-/metrics",
    responses((
        status = 200,
        description = "Prometheus' text form",
        body = String,
        content_type = "text/plain",
    )),
)]
pub(crate) async fn metrics(State(handle): State<PrometheusHandle>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, TEXT_FORM)], handle.render())
}
