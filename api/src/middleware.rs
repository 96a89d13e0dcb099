//! What happens to every request around its handler.

use std::{any::Any, sync::Arc};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use inferq_common::telemetry::metric;
use tokio::time::Instant;
use tower_http::{
    CompressionLevel,
    catch_panic::CatchPanicLayer,
    compression::{
        CompressionLayer, Predicate as _,
        predicate::{NotForContentType, SizeAbove},
    },
};
use tracing::{Instrument as _, debug, info_span};
use uuid::{NoContext, Timestamp, Uuid};

use crate::{error::ApiError, state::AppState};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Smaller responses are not worth the work: they fit one packet as they are.
const COMPRESS_ABOVE_BYTES: u16 = 1400;

/// Marks a response that comes in parts, each of which must leave at once: it is not compressed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Live;

/// For the routes of clients: bounds how many requests are served at once. Health and metrics answer
/// also under full load.
pub(crate) fn for_clients(state: &AppState, router: Router<AppState>) -> Router<AppState> {
    router.route_layer(from_fn_with_state(state.clone(), bound_requests))
}

/// For all routes, outermost last.
pub(crate) fn for_all(state: &AppState, router: Router<AppState>) -> Router<AppState> {
    let is_whole = |_: StatusCode, _: Version, _: &HeaderMap, marks: &Extensions| {
        marks.get::<Live>().is_none()
    };
    let worth_it = SizeAbove::new(COMPRESS_ABOVE_BYTES)
        .and(NotForContentType::const_new("text/event-stream"))
        .and(is_whole);
    router
        .layer(CatchPanicLayer::custom(panicked))
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(worth_it))
        .layer(from_fn_with_state(state.clone(), observe))
}

async fn bound_requests(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let Ok(_permit) = Arc::clone(&state.requests).try_acquire_owned() else {
        return ApiError::unavailable("too many requests are being served").into_response();
    };
    next.run(request).await
}

/// Names the request, measures it, and gives everything logged meanwhile a span.
async fn observe(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = request_id(&state, request.headers());
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unknown", MatchedPath::as_str);
    let span = info_span!(
        "http.request",
        http.method = method,
        http.route = route,
        request.id = id.to_str().unwrap_or_default(),
    );
    let mut response = next.run(request).instrument(span.clone()).await;
    let elapsed = begun.elapsed();
    let status = response.status();
    debug!(parent: &span, http.status = status.as_u16(), elapsed_ms = elapsed.as_millis(), "served");
    metrics::histogram!(
        metric::HTTP_DURATION,
        "route" => route.to_owned(),
        "method" => method,
        "status" => status.as_str().to_owned(),
    )
    .record(elapsed.as_secs_f64());
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The client's own name for the request if it is up to 128 visible ASCII characters, else a new one.
fn request_id(state: &AppState, headers: &HeaderMap) -> HeaderValue {
    let sane = |value: &&HeaderValue| {
        (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    if let Some(given) = headers.get(REQUEST_ID).filter(sane) {
        return given.clone();
    }
    let now = state.clock.now();
    let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
    let id = Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.timestamp_subsec_nanos()));
    HeaderValue::try_from(id.to_string()).expect("a UUID is visible ASCII")
}

/// Labels come from closed sets, and anyone can make up a method.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the layer hands it over so")]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let words = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    ApiError::internal(format!("handler panicked: {words}")).into_response()
}
