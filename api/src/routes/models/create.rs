//! `POST /v5/models`.

use axum::{Json as JsonBody, extract::State};
use chrono::{DateTime, Utc};
use inferq_common::{
    egress::Guard,
    id::{AccountId, ModelId},
    job::Json,
    model::{IdentityType, Model, ModelStatus, ModelType},
    store::Added,
    vendor::{ModelName, Vendor},
};
use serde_json::value::RawValue;

use super::{availability, definition, deploying};
use crate::{
    auth::Caller,
    error::ApiError,
    extract::{Fault, Members, Payload, read},
    schema::{
        check::{Entries, Findings, check},
        error::{ErrorDetail, HTTPValidationError},
        model::{
            CreateHostedModelRequest, CreateLLMEngineModelRequest, CreateLaunchModelRequest,
            CreateModelRequest, InferenceModel, OnConflict,
        },
    },
    state::AppState,
};

/// Register Model
///
/// A model of a hosted vendor is ready at once. Where the account has a model of the same vendor
/// and name, the request fails, or replaces its configuration, type and metadata with
/// `on_conflict: update`.
#[utoipa::path(
    post,
    path = "/v5/models",
    tag = "Models",
    operation_id = "POST-V5-/v5/models",
    request_body = CreateModelRequest,
    responses(
        (status = 200, description = "Successful Response", body = InferenceModel),
        (status = 409, description = "The name is taken; not to be repeated", body = ErrorDetail),
        (status = 422, description = "Validation Error", body = HTTPValidationError),
    ),
    security(("APIKeyHeader" = [])),
)]
pub(crate) async fn create_model(
    State(state): State<AppState>,
    caller: Caller,
    payload: Payload,
) -> Result<JsonBody<InferenceModel>, ApiError> {
    let new = NewModel::read(&payload, &state, &caller.account).await?;
    let update = new.on_conflict == OnConflict::Update;
    let model = new.into_model(&caller, state.clock.now());
    match state.store.add_model(&model, update).await? {
        Added::New(model) | Added::Updated(model) => {
            state.catalogue.settle_models().await;
            availability::shown_one(&state, model).await.map(JsonBody)
        }
        Added::Conflict(there) if update => Err(deploying(&there)),
        Added::Conflict(there) => Err(ApiError::Conflict(
            format!(
                "the account has a model {}/{} already: {}; change it with on_conflict 'update'",
                there.vendor, there.name, there.id
            )
            .into(),
        )),
    }
}

/// What a creation asks for, whichever of the three bodies it came in.
#[derive(Debug)]
struct NewModel {
    name: String,
    vendor: Vendor,
    model_type: ModelType,
    vendor_configuration: Option<Json>,
    metadata: Option<Json>,
    default_callback_url: Option<String>,
    on_conflict: OnConflict,
}

impl NewModel {
    async fn read(
        payload: &Payload,
        state: &AppState,
        account: &AccountId,
    ) -> Result<Self, ApiError> {
        let guard = &state.guard;
        let members = payload.members(&["model_vendor", "vendor_configuration"])?;
        let (kind, text) = (kind(&members), payload.text()?.to_owned());
        let check = move || {
            let body: &RawValue = serde_json::from_str(&text).map_err(ApiError::internal)?;
            let mut findings = Findings::of_body();
            // Before all else: what is nested too deep cannot be read any further.
            let given = Entries::of(body).and_then(|it| it.given("vendor_configuration"));
            if let Some(Err(fault)) = given.map(crate::rules::not_too_deep) {
                findings.within("vendor_configuration", |inner| inner.add(fault, None));
                return Ok((None, findings));
            }
            let read = match kind {
                Kind::Launch => launch(body, &mut findings),
                Kind::LlmEngine => llm_engine(body, &mut findings),
                Kind::Hosted => hosted(body, &mut findings),
            };
            Ok((read, findings))
        };
        let (read, mut findings) = definition::run(payload.bytes.len(), check).await?;
        let new = read.map(|new| new.finish(guard, &mut findings));
        if let Some(new) = &new {
            let metadata = new.metadata.as_ref();
            definition::check_credential(state, account, new.vendor, metadata, &mut findings)
                .await?;
        }
        findings.finish()?;
        new.ok_or_else(|| ApiError::internal("a model without findings and without a reading"))
    }

    /// The rules that all kinds share.
    fn finish(mut self, guard: &Guard, findings: &mut Findings) -> Self {
        if let Err(reason) = check_name(self.vendor, &self.name) {
            findings.refuse("name", reason);
        }
        let configuration = self.vendor_configuration.as_ref();
        definition::bounds(configuration, self.metadata.as_ref(), findings);
        self.default_callback_url = definition::default_callback(
            self.vendor,
            self.vendor_configuration.as_ref(),
            self.metadata.as_ref(),
            guard,
            findings,
        );
        self
    }

    fn into_model(self, caller: &Caller, now: DateTime<Utc>) -> Model {
        // Nothing is deployed that could still become ready.
        let (status, status_reason) = (ModelStatus::Ready, None);
        Model {
            id: ModelId::new(now),
            account: caller.account.clone(),
            name: self.name,
            vendor: self.vendor,
            model_type: self.model_type,
            vendor_configuration: self.vendor_configuration,
            metadata: self.metadata,
            status,
            status_reason,
            default_callback_url: self.default_callback_url,
            created_at: now,
            created_by_user_id: caller.key.to_string(),
            created_by_identity_type: IdentityType::ServiceAccount,
        }
    }
}

enum Kind {
    Launch,
    LlmEngine,
    Hosted,
}

/// Which body it is: by `model_vendor`, or by the shape of the configuration where that is absent.
fn kind(members: &Members<'_>) -> Kind {
    if let Some(vendor) = members.get("model_vendor") {
        return match read::word(vendor) {
            Ok(Vendor::Launch) => Kind::Launch,
            Ok(Vendor::LlmEngine) => Kind::LlmEngine,
            // A word that is none is refused with the hosted body's other mistakes.
            Ok(_) | Err(_) => Kind::Hosted,
        };
    }
    let configuration = members.get("vendor_configuration").and_then(Entries::of);
    let has = |name| configuration.as_ref().is_some_and(|entries| entries.get(name).is_some());
    if has("model_image") || has("model_infra") {
        Kind::Launch
    } else if has("model") {
        Kind::LlmEngine
    } else {
        Kind::Hosted
    }
}

fn launch(body: &RawValue, findings: &mut Findings) -> Option<NewModel> {
    let (json, request) = check::<CreateLaunchModelRequest>(body, findings)?;
    findings.within("vendor_configuration", |inner| request.vendor_configuration.check(inner));
    Some(NewModel {
        name: request.name,
        vendor: request.model_vendor.into(),
        model_type: request.model_type.into(),
        vendor_configuration: configuration(&json),
        metadata: request.model_metadata,
        default_callback_url: None,
        on_conflict: request.on_conflict,
    })
}

fn llm_engine(body: &RawValue, findings: &mut Findings) -> Option<NewModel> {
    let (json, request) = check::<CreateLLMEngineModelRequest>(body, findings)?;
    findings.within("vendor_configuration", |inner| request.vendor_configuration.check(inner));
    Some(NewModel {
        name: request.name,
        vendor: request.model_vendor.into(),
        model_type: request.model_type.into(),
        vendor_configuration: configuration(&json),
        metadata: request.model_metadata,
        default_callback_url: None,
        on_conflict: request.on_conflict,
    })
}

fn hosted(body: &RawValue, findings: &mut Findings) -> Option<NewModel> {
    let read = check::<CreateHostedModelRequest>(body, findings);
    if let Some(given) = Entries::of(body).as_ref().and_then(|b| b.given("vendor_configuration")) {
        let msg = "Only models of launch and llmengine have a vendor_configuration";
        let fault = Fault::new("extra_forbidden", msg);
        findings.within("vendor_configuration", |inner| inner.add(fault, Some(given)));
    }
    let (_, request) = read?;
    Some(NewModel {
        name: request.name,
        vendor: request.model_vendor.0,
        model_type: request.model_type.0,
        vendor_configuration: None,
        metadata: request.model_metadata,
        default_callback_url: None,
        on_conflict: request.on_conflict,
    })
}

/// The configuration with its defaults, out of the checked body.
fn configuration(body: &Json) -> Option<Json> {
    let entries = Entries::of(body.raw())?;
    entries.get("vendor_configuration").map(|raw| Json::from(raw.to_owned()))
}

/// Whether a model of this vendor can have this name.
pub(super) fn check_name(vendor: Vendor, name: &str) -> Result<(), String> {
    let parsed = format!("{vendor}/{name}").parse::<ModelName>();
    parsed.map(drop).map_err(|reason| reason.to_string())
}
