//! `GET /v1/model-endpoints`.

use axum::{Json, extract::State};
use http::Uri;

use super::endpoint::{all, named};
use crate::{
    auth::Caller,
    error::ApiError,
    extract::{Members, Problems, read},
    schema::launch_task::ModelEndpoints,
    state::AppState,
};

/// List Model Endpoints
///
/// Model servers and registered models of the account; with `name` those of that name, where
/// `vendor/name` of a hosted vendor needs no registration.
#[utoipa::path(
    get,
    path = "/v1/model-endpoints",
    tag = "Launch",
    operation_id = "GET-V1-/v1/model-endpoints",
    params(
        ("name" = Option<String>, Query),
    ),
    responses(
        (status = 200, description = "Successful Response", body = ModelEndpoints),
        (status = 422, description = "Validation Error",
            body = crate::schema::error::HTTPValidationError),
    ),
    security(("APIKeyHeader" = []), ("HTTPBasic" = []), ("HTTPBearer" = [])),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<ModelEndpoints>, ApiError> {
    let query = Members::of_query(&uri, &["name"]);
    let mut problems = Problems::default();
    let name = query.optional("name", &mut problems, read::string);
    problems.check()?;
    let model_endpoints = match name {
        Some(name) => named(&state, &caller.account, &name).await?,
        None => all(&state, &caller.account).await?,
    };
    Ok(Json(ModelEndpoints { model_endpoints }))
}
