//! `DELETE /v5/credentials/{name}`.

use axum::{Json, extract::State};
use inferq_common::credential::CredentialName;

use super::not_found;
use crate::{
    auth::Caller,
    error::ApiError,
    extract::Segment,
    schema::{credential::DeletedCredential, error::ErrorDetail},
    state::AppState,
};

/// Delete Credential
///
/// Attempts that begin later than five seconds from now cannot use it: those of jobs whose model
/// names it fail with class `auth`, those for which it was the default use the operator's own.
#[utoipa::path(
    delete,
    path = "/v5/credentials/{name}",
    tag = "Credentials",
    operation_id = "DELETE-V5-/v5/credentials/name",
    params(("name" = String, Path)),
    responses(
        (status = 200, description = "Successful Response", body = DeletedCredential),
        (status = 404, description = "The account has no such credential", body = ErrorDetail),
    ),
    security(("APIKeyHeader" = [])),
)]
pub(crate) async fn delete_credential(
    State(state): State<AppState>,
    caller: Caller,
    Segment(name): Segment<String>,
) -> Result<Json<DeletedCredential>, ApiError> {
    let name: CredentialName = name.parse().map_err(|_| not_found())?;
    let deleted = state.store.delete_credential(&caller.account, &name).await?;
    let id = deleted.ok_or_else(not_found)?.to_string();
    state.catalogue.forget();
    Ok(Json(DeletedCredential { id, object: "credential", name: name.to_string(), deleted: true }))
}
