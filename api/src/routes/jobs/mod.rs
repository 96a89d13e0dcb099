//! Jobs: read, listed, cancelled, repeated, watched.

mod attempts;
mod cancel;
mod deliveries;
mod events;
mod get;
mod list;
mod retry;
#[cfg(test)]
mod tests;

use axum::{
    Router,
    routing::{get, post},
};

pub(crate) use self::attempts::AttemptView;
use crate::state::AppState;

/// The routes of this resource.
pub(crate) fn router() -> Router<AppState> {
    Router::new()
        .route("/v5/jobs", get(list::list))
        .route("/v5/jobs/{job_id}", get(get::get))
        .route("/v5/jobs/{job_id}/cancel", post(cancel::cancel))
        .route("/v5/jobs/{job_id}/retry", post(retry::retry))
        .route("/v5/jobs/{job_id}/events", get(events::events))
        .route("/v5/jobs/{job_id}/attempts", get(attempts::attempts))
        .route("/v5/jobs/{job_id}/deliveries", get(deliveries::deliveries))
}
