//! `GET /v5/jobs`

use axum::{Json, extract::State};
use http::Uri;
use inferq_common::{
    id::JobId,
    job::JobStatus,
    store::{JobFilter, PageRequest},
    vendor::{ModelName, Vendor},
    view::JobView,
};
use serde_json::value::RawValue;

use crate::{
    auth::Caller,
    error::ApiError,
    extract::{Fault, Members, Problems, read},
    paging::{self, List},
    state::AppState,
};

const QUERY: &[&str] =
    &["status", "model_vendor", "model", "limit", "starting_after", "ending_before", "sort_order"];

/// Lists jobs, newest first unless asked otherwise, without their responses.
pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<List<JobView>>, ApiError> {
    let (filter, page) = read_query(&uri)?;
    let found = state.store.list_jobs(&caller.account, &filter, &page).await?;
    let items = found.items.into_iter().map(|job| JobView::new(job, None)).collect();
    Ok(Json(List::page(items, page.limit, found.has_more)))
}

fn read_query(uri: &Uri) -> Result<(JobFilter, PageRequest<JobId>), ApiError> {
    let mut problems = Problems::default();
    let query = Members::of_query(uri, QUERY);
    let status = query.optional("status", &mut problems, read::word::<JobStatus>);
    let vendor = query.optional("model_vendor", &mut problems, read::word::<Vendor>);
    let model = query.optional("model", &mut problems, model);
    let page = paging::read(&query, &mut problems);
    problems.check()?;
    Ok((filter(status, vendor, model), page))
}

/// The name of a model, as `vendor/name` or alone.
fn model(raw: &RawValue) -> Result<String, Fault> {
    let model = read::string(raw)?;
    if model.chars().any(char::is_control) {
        return Err(Fault::value("a model name has no control characters"));
    }
    Ok(model)
}

fn filter(status: Option<JobStatus>, vendor: Option<Vendor>, model: Option<String>) -> JobFilter {
    let whole = model.as_deref().and_then(|model| model.parse::<ModelName>().ok());
    match whole.filter(|whole| vendor.is_none_or(|vendor| vendor == whole.vendor)) {
        Some(ModelName { vendor, name }) => {
            JobFilter { status, vendor: Some(vendor), model: Some(name) }
        }
        None => JobFilter { status, vendor, model },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_with_or_without_its_vendor() {
        let of = |vendor, model: &str| {
            let filter = filter(None, vendor, Some(model.to_owned()));
            (filter.vendor, filter.model.unwrap())
        };
        assert_eq!(of(None, "openai/gpt-5"), (Some(Vendor::OpenAi), "gpt-5".to_owned()));
        assert_eq!(of(None, "gpt-5"), (None, "gpt-5".to_owned()));
        let xai = Some(Vendor::Xai);
        assert_eq!(of(xai, "openai/gpt-5"), (xai, "openai/gpt-5".to_owned()));
    }
}
