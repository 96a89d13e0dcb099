//! Model servers (v4): the stable fronts that aliases name.

use axum::Router;

use crate::state::AppState;

/// The routes of this resource.
pub(crate) fn router() -> Router<AppState> {
    Router::new()
}
