//! Registered models (v5).

mod availability;
#[cfg(test)]
mod change_tests;
pub mod create;
mod definition;
pub mod delete;
pub mod get;
pub mod list;
#[cfg(test)]
mod tests;
pub mod update;

use axum::{Router, routing};
use inferq_common::{id::ModelId, model::Model, vendor::ModelName};

use crate::{auth::Caller, error::ApiError, state::AppState};

/// The routes of this resource.
pub(crate) fn router() -> Router<AppState> {
    Router::new()
        .route("/v5/models", routing::get(list::list_models).post(create::create_model))
        .route(
            "/v5/models/{model_id}",
            routing::get(get::get_model).patch(update::update_model).delete(delete::delete_model),
        )
}

/// The account's model with this id, or of this `vendor/name`.
///
/// # Errors
/// 404 if there is none.
async fn find(state: &AppState, caller: &Caller, id: &str) -> Result<Model, ApiError> {
    let model = if let Ok(id) = id.parse::<ModelId>() {
        state.store.find_model(id, &caller.account).await?
    } else if let Ok(ModelName { vendor, name }) = id.parse() {
        state.store.find_model_by_name(&caller.account, vendor, &name).await?
    } else {
        None
    };
    model.ok_or_else(not_found)
}

fn not_found() -> ApiError {
    ApiError::NotFound("the account has no model with this id".into())
}

fn deploying(model: &Model) -> ApiError {
    let detail = format!(
        "model {}/{} is being deployed; it can be neither changed nor deleted until that has ended",
        model.vendor, model.name
    );
    ApiError::Conflict(detail.into())
}
