//! Credentials: how an account pays a vendor by itself.

pub mod delete;
pub mod get;
pub mod list;
pub mod put;
#[cfg(test)]
mod tests;

use axum::{Router, routing};

use crate::{error::ApiError, state::AppState};

/// The routes of this resource.
pub(crate) fn router() -> Router<AppState> {
    let one = routing::get(get::get_credential)
        .put(put::put_credential)
        .delete(delete::delete_credential);
    Router::new()
        .route("/v5/credentials", routing::get(list::list_credentials))
        .route("/v5/credentials/{name}", one)
}

fn not_found() -> ApiError {
    ApiError::NotFound("the account has no credential of this name".into())
}
