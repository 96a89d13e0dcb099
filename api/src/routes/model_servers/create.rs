//! `POST /v4/serving`.

use axum::{Json, extract::State};
use inferq_common::{
    id::{AccountId, ModelId, ModelServerId},
    model::ModelServer,
    store::Added,
    vendor::ModelName,
};
use serde_json::{json, value::RawValue};

use super::is_alias;
use crate::{
    auth::Caller,
    error::ApiError,
    extract::{Fault, Payload},
    schema::{
        check::{Findings, check},
        error::{ErrorDetail, HTTPValidationError},
        model_server::{ALIAS_PATTERN, CreateModelServerRequest, ModelServerInfo},
    },
    state::AppState,
};

/// Create Model Server
#[utoipa::path(
    post,
    path = "/v4/serving",
    tag = "Model server",
    operation_id = "POST-V4-/v4/serving",
    request_body = CreateModelServerRequest,
    responses(
        (status = 200, description = "Successful Response", body = ModelServerInfo),
        (status = 409, description = "The alias is taken, or the model was deleted meanwhile; not to be repeated", body = ErrorDetail),
        (status = 422, description = "Validation Error", body = HTTPValidationError),
    ),
    security(("APIKeyHeader" = [])),
)]
pub(crate) async fn create_model_server(
    State(state): State<AppState>,
    caller: Caller,
    payload: Payload,
) -> Result<Json<ModelServerInfo>, ApiError> {
    let request = read(&payload, &state, &caller.account).await?;
    let now = state.clock.now();
    let server = ModelServer {
        id: ModelServerId::new(now),
        account: caller.account,
        name: request.name,
        alias: request.alias,
        model_deployment_id: request.model_deployment_id,
        created_at: now,
    };
    let by = caller.key.to_string();
    match state.store.add_model_server(&server, Some(&by)).await? {
        Some(Added::New(server) | Added::Updated(server)) => {
            state.catalogue.settle_servers(&state.store).await;
            Ok(Json(server.into()))
        }
        Some(Added::Conflict(there)) => Err(ApiError::Conflict(
            format!("the alias is taken by model server {} of this account", there.id).into(),
        )),
        // It was there a moment ago.
        None => Err(ApiError::Conflict("this model has just been deleted".into())),
    }
}

async fn read(
    payload: &Payload,
    state: &AppState,
    account: &AccountId,
) -> Result<CreateModelServerRequest, ApiError> {
    payload.members(&[])?;
    let body: &RawValue = serde_json::from_str(payload.text()?).map_err(ApiError::internal)?;
    let mut findings = Findings::of_body();
    let mut read = check::<CreateModelServerRequest>(body, &mut findings);
    if let Some((_, request)) = &mut read {
        match deployment(&request.model_deployment_id, state, account).await? {
            Ok(id) => request.model_deployment_id = id,
            Err(reason) => findings.refuse("model_deployment_id", reason),
        }
        if request.name.contains(char::is_control) {
            findings.refuse("name", "has control characters");
        }
        if !request.alias.as_deref().is_none_or(is_alias) {
            let msg = format!("String should match pattern '{ALIAS_PATTERN}'");
            let fault = Fault::new("string_pattern_mismatch", msg)
                .with_ctx(json!({ "pattern": ALIAS_PATTERN }));
            findings.within("alias", |inner| inner.add(fault, None));
        }
    }
    findings.finish()?;
    read.map(|(_, request)| request)
        .ok_or_else(|| ApiError::internal("a model server without findings and without a reading"))
}

/// What a model server can run, in its normal form: the id of a registered model of the account, or
/// of a public one of another, or `vendor/name` of a served vendor.
pub(super) async fn deployment(
    id: &str,
    state: &AppState,
    account: &AccountId,
) -> Result<Result<String, String>, ApiError> {
    if let Ok(id) = id.parse::<ModelId>() {
        let found = state.store.find_any_model(id).await?;
        let usable = found
            .is_some_and(|model| model.account == *account || model.settings().public_inference);
        return Ok(if usable {
            Ok(id.to_string())
        } else {
            Err("the account has no model with this id".into())
        });
    }
    Ok(match id.parse::<ModelName>() {
        Ok(_) => Ok(id.to_owned()),
        Err(reason) => Err(format!("is neither the id of a model nor 'vendor/name': {reason}")),
    })
}
