//! `GET /v5/credentials`.

use axum::{Json, extract::State};
use http::Uri;

use crate::{
    auth::Caller,
    error::ApiError,
    extract::{Members, Problems, read},
    paging,
    schema::{
        credential::{Credential, CredentialList},
        error::HTTPValidationError,
        words::InferenceModelVendor,
    },
    state::AppState,
};

/// List Credentials
///
/// Newest first unless `sort_order` says `asc`. The next page is asked for with `starting_after`
/// and the id of the last item, the page before with `ending_before` and the id of the first.
#[utoipa::path(
    get,
    path = "/v5/credentials",
    tag = "Credentials",
    operation_id = "GET-V5-/v5/credentials",
    params(
        ("vendor" = Option<InferenceModelVendor>, Query),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 1000, description = "100 if not given"),
        ("starting_after" = Option<String>, Query),
        ("ending_before" = Option<String>, Query),
        ("sort_order" = Option<String>, Query, description = "`asc` or `desc`"),
    ),
    responses(
        (status = 200, description = "Successful Response", body = CredentialList),
        (status = 422, description = "Validation Error", body = HTTPValidationError),
    ),
    security(("APIKeyHeader" = [])),
)]
pub(crate) async fn list_credentials(
    State(state): State<AppState>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<CredentialList>, ApiError> {
    let names = &["vendor", "limit", "starting_after", "ending_before", "sort_order"];
    let members = Members::of_query(&uri, names);
    let mut problems = Problems::default();
    let vendor = members.optional("vendor", &mut problems, read::word);
    let page = paging::read(&members, &mut problems);
    problems.check()?;
    let found = state.store.list_credentials(&caller.account, vendor, &page).await?;
    let view = |sealed| Credential::of(sealed, &state.master_keys);
    Ok(Json(CredentialList {
        object: "list",
        items: found.items.iter().map(view).collect(),
        limit: page.limit,
        has_more: found.has_more,
    }))
}
