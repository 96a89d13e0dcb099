//! Launch's tasks: the routes that Launch's clients use for predictions.
//!
//! Each task is a job like any other, and its id is the job's. What Launch calls a model endpoint is
//! a registered model or a model server here. Deploying is no part of it.

pub mod create;
mod endpoint;
pub mod hosted;
pub mod list;
mod request;
pub mod stream;
pub mod sync;
pub mod task;
#[cfg(test)]
mod tests;

use axum::{
    Router,
    routing::{get, post},
};

use crate::state::AppState;

/// The routes of this resource.
pub(crate) fn router() -> Router<AppState> {
    Router::new()
        .route("/v1/model-endpoints", get(list::list))
        .route("/v1/async-tasks", post(create::create))
        .route("/v1/async-tasks/{task_id}", get(task::get))
        .route("/v1/sync-tasks", post(sync::run))
        .route("/v1/streaming-tasks", post(stream::run))
        .merge(hosted::router())
}
