//! `GET /v5/models`.

use axum::{Json, extract::State};
use http::Uri;
use inferq_common::{
    id::ModelId,
    store::{ModelFilter, PageRequest},
};
use serde_json::{json, value::RawValue};

use super::availability;
use crate::{
    auth::Caller,
    error::ApiError,
    extract::{Fault, Members, Problems, read},
    paging,
    schema::{error::HTTPValidationError, list::ModelList, words::InferenceModelVendor},
    state::AppState,
};

/// List Models
///
/// Newest first unless `sort_order` says `asc`. The next page is asked for with `starting_after`
/// and the id of the last item, the page before with `ending_before` and the id of the first.
#[utoipa::path(
    get,
    path = "/v5/models",
    tag = "Models",
    operation_id = "GET-V5-/v5/models",
    params(
        ("name" = Option<String>, Query),
        ("model_vendor" = Option<InferenceModelVendor>, Query),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 1000, description = "100 if not given"),
        ("starting_after" = Option<String>, Query),
        ("ending_before" = Option<String>, Query),
        ("sort_by" = Option<String>, Query, description = "`created_at`, also with `:asc` or `:desc`"),
        ("sort_order" = Option<String>, Query, description = "`asc` or `desc`"),
    ),
    responses(
        (status = 200, description = "Successful Response", body = ModelList),
        (status = 422, description = "Validation Error", body = HTTPValidationError),
    ),
    security(("APIKeyHeader" = [])),
)]
pub(crate) async fn list_models(
    State(state): State<AppState>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<ModelList>, ApiError> {
    let (filter, page) = read_query(&uri)?;
    let models = state.store.list_models(&caller.account, &filter, &page).await?;
    let total = state.store.count_models(&caller.account, &filter).await?;
    Ok(Json(ModelList {
        object: "list",
        items: availability::shown(&state, models.items).await?,
        limit: page.limit,
        total,
        has_more: models.has_more,
    }))
}

const NAMES: &[&str] =
    &["name", "model_vendor", "limit", "starting_after", "ending_before", "sort_by", "sort_order"];

fn read_query(uri: &Uri) -> Result<(ModelFilter, PageRequest<ModelId>), ApiError> {
    let members = Members::of_query(uri, NAMES);
    let mut problems = Problems::default();
    let name = members.optional("name", &mut problems, |raw| {
        let name = read::string(raw)?;
        // A database may refuse the very question.
        let control = name.contains(char::is_control);
        if control { Err(Fault::value("has control characters")) } else { Ok(name) }
    });
    let vendor = members.optional("model_vendor", &mut problems, read::word);
    let sorted = members.optional("sort_by", &mut problems, sort_by).flatten();
    let page = paging::read(&members, &mut problems);
    problems.check()?;
    // `sort_order` says it for all keys.
    let ascending = match members.get("sort_order") {
        Some(_) => page.ascending,
        None => sorted.unwrap_or(page.ascending),
    };
    Ok((ModelFilter { vendor, name }, PageRequest { ascending, ..page }))
}

/// The order of creation is the only one, and that of ids; answers whether it is to ascend.
///
/// Further keys could only order what stands at one instant, which ids do already.
fn sort_by(raw: &RawValue) -> Result<Option<bool>, Fault> {
    let text = read::string(raw)?;
    let mut ascending = None;
    for (index, key) in text.split(',').enumerate() {
        let (name, order) = key.split_once(':').unwrap_or((key, ""));
        let this = match order {
            "" => None,
            "asc" => Some(true),
            "desc" => Some(false),
            _ => return Err(none_of("'asc' or 'desc'")),
        };
        if !matches!(name, "created_at" | "id") {
            return Err(none_of("'created_at' or 'id'"));
        }
        if index == 0 {
            ascending = this;
        }
    }
    Ok(ascending)
}

fn none_of(expected: &str) -> Fault {
    Fault::new("literal_error", format!("Input should be {expected}"))
        .with_ctx(json!({ "expected": expected }))
}
