//! Jobs by the alias of a model server (v4).

use axum::Router;

use crate::state::AppState;

/// The routes of this resource.
pub(crate) fn router() -> Router<AppState> {
    Router::new()
}
