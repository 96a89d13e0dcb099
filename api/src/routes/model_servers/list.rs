//! `GET /v4/serving`.

use axum::{Json, extract::State};

use crate::{auth::Caller, error::ApiError, schema::list::ModelServerList, state::AppState};

/// List Model Servers
#[utoipa::path(
    get,
    path = "/v4/serving",
    tag = "Model server",
    operation_id = "GET-V4-/v4/serving",
    responses((status = 200, description = "Successful Response", body = ModelServerList)),
    security(("APIKeyHeader" = [])),
)]
pub(crate) async fn list_model_servers(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<Json<ModelServerList>, ApiError> {
    let servers = state.store.list_model_servers(&caller.account).await?;
    let items = servers.into_iter().map(Into::into).collect();
    Ok(Json(ModelServerList { object: "list", items }))
}
