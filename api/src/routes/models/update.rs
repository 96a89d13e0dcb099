//! `PATCH /v5/models/{model_id}`.

use axum::{Json as JsonBody, extract::State};
use inferq_common::{
    job::Json,
    model::{Model, ModelStatus},
    store::serving::{Changed, Renamed},
    vendor::Vendor,
};
use serde_json::value::RawValue;

use super::{availability, create::check_name, definition, deploying, find, not_found};
use crate::{
    auth::Caller,
    error::ApiError,
    extract::{Fault, Payload, Segment},
    schema::{
        check::{Entries, Findings, check},
        error::{ErrorDetail, HTTPValidationError},
        model::{
            InferenceModel, OnTakenName, RenameModelRequest, UpdateModelMetadataRequest,
            UpdateModelRequest,
        },
    },
    state::AppState,
};

/// A change that others get in the way of is tried this often: each time another one was made.
const MAX_ROUNDS: usize = 5;

/// The two parts of a Launch configuration; their members are merged one by one.
const LAUNCH_PARTS: [&str; 2] = ["model_image", "model_infra"];

/// Update Model
///
/// Calls made after the answer go by the change, in every process.
#[utoipa::path(
    patch,
    path = "/v5/models/{model_id}",
    tag = "Models",
    operation_id = "PATCH-V5-/v5/models/model_id",
    params(("model_id" = String, Path)),
    request_body = UpdateModelRequest,
    responses(
        (status = 200, description = "Successful Response", body = InferenceModel),
        (status = 404, description = "The account has no such model", body = ErrorDetail),
        (status = 409, description = "The name is taken, or the model is being deployed; not to be \
            repeated", body = ErrorDetail),
        (status = 422, description = "Validation Error", body = HTTPValidationError),
    ),
    security(("APIKeyHeader" = [])),
)]
pub(crate) async fn update_model(
    State(state): State<AppState>,
    caller: Caller,
    Segment(id): Segment<String>,
    payload: Payload,
) -> Result<JsonBody<InferenceModel>, ApiError> {
    // For what is no body at all: told as everywhere.
    payload.members(&[])?;
    let body: &RawValue = serde_json::from_str(payload.text()?).map_err(ApiError::internal)?;
    let entries = Entries::of(body).ok_or_else(|| ApiError::internal("the body is an object"))?;
    let mut model = find(&state, &caller, &id).await?;
    if let Some(name) = entries.given("name") {
        return rename(&state, &caller, &model, &entries, body, name).await;
    }
    for _ in 0..MAX_ROUNDS {
        let changed = change(&state, &caller, &model, &entries, body).await?;
        match state.store.replace_model(&model, &changed).await? {
            Changed::Done(model) => {
                state.catalogue.settle_models().await;
                return availability::shown_one(&state, model).await.map(JsonBody);
            }
            Changed::Missing => return Err(not_found()),
            Changed::Deploying(model) => return Err(deploying(&model)),
            Changed::Stale => model = find(&state, &caller, &model.id.to_string()).await?,
        }
    }
    Err(ApiError::unavailable("others change this model all the time"))
}

/// The body is a name and what to do where it is taken.
async fn rename(
    state: &AppState,
    caller: &Caller,
    model: &Model,
    entries: &Entries<'_>,
    body: &RawValue,
    name: &RawValue,
) -> Result<JsonBody<InferenceModel>, ApiError> {
    let mut findings = Findings::of_body();
    let read = check::<RenameModelRequest>(body, &mut findings);
    for other in ["vendor_configuration", "model_metadata"] {
        if let Some(given) = entries.given(other) {
            let fault = Fault::new("extra_forbidden", "A name is changed by itself");
            findings.within(other, |inner| inner.add(fault, Some(given)));
        }
    }
    if let Some((_, request)) = &read
        && let Err(reason) = check_name(model.vendor, &request.name)
    {
        findings.within("name", |inner| inner.add(Fault::value(reason), Some(name)));
    }
    findings.finish()?;
    let Some((_, request)) = read else {
        return Err(ApiError::internal("a name without findings and without a reading"));
    };
    let swap = request.on_conflict == OnTakenName::Swap;
    match state.store.rename_model(model.id, &caller.account, &request.name, swap).await? {
        Renamed::Done(model) => {
            state.catalogue.settle_models().await;
            availability::shown_one(state, model).await.map(JsonBody)
        }
        Renamed::Missing => Err(not_found()),
        Renamed::Deploying(model) => Err(deploying(&model)),
        Renamed::Conflict(there) => Err(ApiError::Conflict(
            format!(
                "the name {}/{} is that of model {}; with on_conflict 'swap' the two exchange names",
                there.vendor, there.name, there.id
            )
            .into(),
        )),
    }
}

/// The model as the body would have it.
///
/// # Errors
/// 422 with all that is wrong.
async fn change(
    state: &AppState,
    caller: &Caller,
    model: &Model,
    entries: &Entries<'_>,
    body: &RawValue,
) -> Result<Model, ApiError> {
    if model.status == ModelStatus::Deploying {
        return Err(deploying(model));
    }
    let mut findings = Findings::of_body();
    let mut changed = model.clone();
    if let Some(given) = entries.given("vendor_configuration") {
        let n_bytes = given.get().len()
            + model.vendor_configuration.as_ref().map_or(0, |own| own.as_str().len());
        let (model, given) = (model.clone(), given.to_owned());
        let check = move || {
            let read = |inner: &mut Findings| configuration(&model, &given, inner);
            let merged = findings.within("vendor_configuration", read);
            Ok((merged, findings))
        };
        let merged;
        (merged, findings) = definition::run(n_bytes, check).await?;
        definition::bounds(merged.as_ref(), None, &mut findings);
        changed.vendor_configuration = merged.or(changed.vendor_configuration);
    }
    if let Some((_, request)) = check::<UpdateModelMetadataRequest>(body, &mut findings) {
        definition::bounds(None, request.model_metadata.as_ref(), &mut findings);
        changed.metadata = request.model_metadata.or(changed.metadata);
    }
    changed.default_callback_url = definition::default_callback(
        model.vendor,
        changed.vendor_configuration.as_ref(),
        changed.metadata.as_ref(),
        &state.guard,
        &mut findings,
    );
    if entries.given("model_metadata").is_some() {
        let metadata = changed.metadata.as_ref();
        let account = &caller.account;
        definition::check_credential(state, account, model.vendor, metadata, &mut findings).await?;
    }
    findings.finish()?;
    Ok(changed)
}

/// The model's configuration with `given` merged into it, checked as a whole.
fn configuration(model: &Model, given: &RawValue, findings: &mut Findings) -> Option<Json> {
    let Some(own) = &model.vendor_configuration else {
        let msg = "Only models of launch and llmengine have a vendor_configuration";
        findings.add(Fault::new("extra_forbidden", msg), Some(given));
        return None;
    };
    let Some(patch) = Entries::of(given) else {
        let msg = "Input should be a valid dictionary or object to extract fields from";
        findings.add(Fault::new("model_attributes_type", msg), Some(given));
        return None;
    };
    let is_launch = |patch: &Entries<'_>| LAUNCH_PARTS.iter().any(|it| patch.get(it).is_some());
    let (is_own, expected) = match model.vendor {
        Vendor::Launch => (
            is_launch(&patch) || patch.iter().next().is_none(),
            "a launch model has 'model_image' and 'model_infra' in its configuration",
        ),
        _ => (
            !is_launch(&patch),
            "an llmengine model has no 'model_image' and 'model_infra' in its configuration",
        ),
    };
    if !is_own {
        findings.add(Fault::value(expected), Some(given));
        return None;
    }
    let merged = merge(own.raw(), given, model.vendor == Vendor::Launch);
    let merged = Json::parse(merged).ok()?;
    if let Err(fault) = crate::rules::not_too_deep(merged.raw()) {
        findings.add(fault, None);
        return None;
    }
    definition::configuration(model.vendor, merged.raw(), findings)
}

/// The members of `own` with those of `patch` in their place; `null` takes one away. `deeply`: the
/// members of members, too. What is no object is put in its place as it is.
fn merge(own: &RawValue, patch: &RawValue, deeply: bool) -> String {
    let (Some(own), Some(changes)) = (Entries::of(own), Entries::of(patch)) else {
        return patch.get().to_owned();
    };
    let mut members: Vec<String> = Vec::new();
    let mut member = |name: &str, value: &str| {
        members.push(format!("{}:{value}", serde_json::Value::from(name)));
    };
    for (name, value) in own.iter() {
        match changes.get(name) {
            None => member(name, value.get()),
            Some(change) if change.get() == "null" => {}
            Some(change) if deeply => member(name, &merge(value, change, false)),
            Some(change) => member(name, change.get()),
        }
    }
    for (name, change) in changes.iter() {
        if own.get(name).is_none() && change.get() != "null" {
            member(name, change.get());
        }
    }
    format!("{{{}}}", members.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn merged(own: &str, patch: &str, deeply: bool) -> String {
        let raw = |text| serde_json::from_str::<Box<RawValue>>(text).unwrap();
        merge(&raw(own), &raw(patch), deeply)
    }

    #[test]
    fn what_is_given_takes_the_place_of_what_was_there_and_null_takes_it_away() {
        assert_eq!(
            merged(r#"{"a":1.50,"b":[1]}"#, r#"{"b":2e3,"c":3}"#, false),
            r#"{"a":1.50,"b":2e3,"c":3}"#
        );
        assert_eq!(merged(r#"{"a":1,"b":2}"#, r#"{"a":null,"x":null}"#, false), r#"{"b":2}"#);
        assert_eq!(
            merged(r#"{"p":{"a":1,"b":{"x":1}}}"#, r#"{"p":{"b":{"y":2}}}"#, true),
            r#"{"p":{"a":1,"b":{"y":2}}}"#
        );
        assert_eq!(merged(r#"{"p":{"a":1}}"#, r#"{"p":[]}"#, true), r#"{"p":[]}"#);
    }
}
