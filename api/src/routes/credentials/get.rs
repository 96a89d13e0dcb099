//! `GET /v5/credentials/{name}`.

use axum::{Json, extract::State};
use inferq_common::credential::CredentialName;

use super::not_found;
use crate::{
    auth::Caller,
    error::ApiError,
    extract::Segment,
    schema::{credential::Credential, error::ErrorDetail},
    state::AppState,
};

/// Get Credential
///
/// Which members are set, never their secret values.
#[utoipa::path(
    get,
    path = "/v5/credentials/{name}",
    tag = "Credentials",
    operation_id = "GET-V5-/v5/credentials/name",
    params(("name" = String, Path)),
    responses(
        (status = 200, description = "Successful Response", body = Credential),
        (status = 404, description = "The account has no such credential", body = ErrorDetail),
    ),
    security(("APIKeyHeader" = [])),
)]
pub(crate) async fn get_credential(
    State(state): State<AppState>,
    caller: Caller,
    Segment(name): Segment<String>,
) -> Result<Json<Credential>, ApiError> {
    let name: CredentialName = name.parse().map_err(|_| not_found())?;
    let found = state.store.find_credential(&caller.account, &name).await?;
    let sealed = found.ok_or_else(not_found)?;
    Ok(Json(Credential::of(&sealed, &state.master_keys)))
}
