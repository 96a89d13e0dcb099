//! Callbacks that are owed: read and repeated.

mod get;
mod redeliver;
pub(crate) mod view;

use axum::{
    Router,
    routing::{get, post},
};

use crate::state::AppState;

/// The routes of this resource.
pub(crate) fn router() -> Router<AppState> {
    Router::new()
        .route("/v5/deliveries/{delivery_id}", get(get::get))
        .route("/v5/deliveries/{delivery_id}/redeliver", post(redeliver::redeliver))
}
