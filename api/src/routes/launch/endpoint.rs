//! What a model endpoint of Launch is here.

use std::sync::Arc;

use inferq_common::{
    id::{AccountId, ModelId, ModelServerId},
    job::{Lane, Priority},
    model::{Model, ModelServer, ModelStatus},
    store::{ModelFilter, PageRequest},
    vendor::{ModelName, Vendor},
};

use crate::{
    auth::Caller,
    error::ApiError,
    routes::execute::Target,
    schema::launch_task::{EndpointStatus, EndpointType, ModelEndpoint},
    state::AppState,
};

/// Of a list without a name, this many models are shown: the newest.
const MAX_LISTED: u32 = 1000;

/// A registered model, what a model server stands for, or a hosted vendor's model.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) model: ModelName,
    pub(super) registered: Option<Arc<Model>>,
    /// The model server's, if it is one.
    pub(super) alias: Option<String>,
}

impl Endpoint {
    /// By the id of a registered model or of a model server, or by `vendor/name`.
    ///
    /// # Errors
    /// 404 for what is unknown and for what is another account's alike.
    pub(super) async fn by_id(
        state: &AppState,
        caller: &Caller,
        id: &str,
    ) -> Result<Self, ApiError> {
        if let Ok(model_id) = id.parse::<ModelId>()
            && let Some(model) =
                state.catalogue.model(&state.store, &caller.account, model_id).await?
        {
            return Ok(Self::of_model(model));
        }
        if let Ok(server_id) = id.parse::<ModelServerId>()
            && let Some(server) = state.store.find_model_server(server_id, &caller.account).await?
        {
            return Self::of_server(state, caller, &server).await;
        }
        let Ok(model) = id.parse::<ModelName>() else {
            return Err(ApiError::NotFound(
                "the account has no model endpoint with this id".into(),
            ));
        };
        let registered =
            state.catalogue.model_by_name(&state.store, &caller.account, &model).await?;
        Ok(Self { model, registered, alias: None })
    }

    /// By the name a list shows it under.
    ///
    /// # Errors
    /// As [`Self::by_id`].
    pub(super) async fn by_name(
        state: &AppState,
        caller: &Caller,
        name: &str,
    ) -> Result<Self, ApiError> {
        let found = named(state, &caller.account, name).await?;
        let first = found.into_iter().next().ok_or_else(unknown_name)?;
        Self::by_id(state, caller, &first.id).await
    }

    fn of_model(model: Arc<Model>) -> Self {
        let name = ModelName { vendor: model.vendor, name: model.name.clone() };
        Self { model: name, registered: Some(model), alias: None }
    }

    async fn of_server(
        state: &AppState,
        caller: &Caller,
        server: &ModelServer,
    ) -> Result<Self, ApiError> {
        let target = Target::of(state, caller, server).await?;
        let alias = server.alias.clone().unwrap_or_else(|| server.id.to_string());
        Ok(Self { model: target.name, registered: target.registered, alias: Some(alias) })
    }
}

pub(super) fn unknown_name() -> ApiError {
    ApiError::NotFound("the account has no model endpoint of this name".into())
}

/// The endpoints of this name: model servers first, since they are the stable fronts, then models,
/// those of the vendor `launch` before others, the newest first. A model of a hosted vendor needs no
/// registration and is its own endpoint under `vendor/name`.
pub(super) async fn named(
    state: &AppState,
    account: &AccountId,
    name: &str,
) -> Result<Vec<ModelEndpoint>, ApiError> {
    // A database may refuse the very question.
    if name.chars().any(char::is_control) {
        return Ok(Vec::new());
    }
    let mut endpoints = Vec::new();
    let server = state.catalogue.server_by_alias(&state.store, account, name).await?;
    if let Some(server) = server {
        endpoints.push(of_server(state, account, &server).await?);
    }
    // One without an alias is listed under its id.
    if let Ok(id) = name.parse::<ModelServerId>()
        && let Some(server) = state.store.find_model_server(id, account).await?
        && server.alias.is_none()
    {
        endpoints.push(of_server(state, account, &server).await?);
    }
    let filter = ModelFilter { name: Some(name.to_owned()), vendor: None };
    let mut models = state.store.list_models(account, &filter, &newest()).await?.items;
    models.sort_by_key(|model| model.vendor != Vendor::Launch);
    endpoints.extend(models.iter().map(of_model));
    if let (true, Ok(model)) = (endpoints.is_empty(), name.parse::<ModelName>()) {
        let registered = state.catalogue.model_by_name(&state.store, account, &model).await?;
        endpoints.push(registered.map_or_else(|| of_hosted(&model), |model| of_model(&model)));
    }
    Ok(endpoints)
}

/// The account's model servers, and its newest models.
pub(super) async fn all(
    state: &AppState,
    account: &AccountId,
) -> Result<Vec<ModelEndpoint>, ApiError> {
    let mut endpoints = Vec::new();
    for server in state.store.list_model_servers(account).await? {
        endpoints.push(of_server(state, account, &server).await?);
    }
    let filter = ModelFilter { name: None, vendor: None };
    let models = state.store.list_models(account, &filter, &newest()).await?.items;
    endpoints.extend(models.iter().map(of_model));
    Ok(endpoints)
}

fn newest() -> PageRequest<ModelId> {
    PageRequest { after: None, before: None, limit: MAX_LISTED, ascending: false }
}

fn of_model(model: &Model) -> ModelEndpoint {
    let name = ModelName { vendor: model.vendor, name: model.name.clone() };
    ModelEndpoint {
        name: model.name.clone(),
        endpoint_type: kind(model),
        status: status(model.status),
        metadata: model.metadata.clone(),
        default_callback_url: model.default_callback_url.clone(),
        created_by: Some(model.created_by_user_id.clone()),
        created_at: Some(model.created_at),
        ..bare(model.id.to_string(), &name)
    }
}

/// What a model server runs may be gone; it is listed all the same, as what cannot be called.
async fn of_server(
    state: &AppState,
    account: &AccountId,
    server: &ModelServer,
) -> Result<ModelEndpoint, ApiError> {
    let deployment = &server.model_deployment_id;
    let (registered, model) = if let Ok(id) = deployment.parse::<ModelId>() {
        (state.catalogue.model(&state.store, account, id).await?, None)
    } else if let Ok(name) = deployment.parse::<ModelName>() {
        (state.catalogue.model_by_name(&state.store, account, &name).await?, Some(name))
    } else {
        (None, None)
    };
    let mut endpoint = match (registered, model) {
        (Some(model), _) if model.account == *account => of_model(&model),
        // Of another account's public model nothing is shown but that it is there.
        (Some(model), _) => ModelEndpoint {
            metadata: None,
            default_callback_url: None,
            created_by: None,
            ..of_model(&model)
        },
        (None, Some(name)) => bare(String::new(), &name),
        (None, None) => ModelEndpoint {
            bundle_name: deployment.clone(),
            status: EndpointStatus::UpdateFailed,
            ..bare(String::new(), &ModelName { vendor: Vendor::Launch, name: deployment.clone() })
        },
    };
    endpoint.id = server.id.to_string();
    // What it is listed under finds it: other names need not be unique.
    endpoint.name = server.alias.clone().unwrap_or_else(|| server.id.to_string());
    endpoint.created_at = Some(server.created_at);
    Ok(endpoint)
}

fn of_hosted(model: &ModelName) -> ModelEndpoint {
    bare(model.to_string(), model)
}

/// An endpoint of which no more is known than the model.
fn bare(id: String, model: &ModelName) -> ModelEndpoint {
    let lane = Lane { vendor: model.vendor, priority: Priority::Normal };
    ModelEndpoint {
        id,
        name: model.to_string(),
        endpoint_type: EndpointType::Async,
        destination: lane.to_string(),
        bundle_name: model.to_string(),
        status: EndpointStatus::Ready,
        metadata: None,
        default_callback_url: None,
        created_by: None,
        created_at: None,
    }
}

/// What a Launch model was registered as; all others are best given tasks.
fn kind(model: &Model) -> EndpointType {
    #[derive(serde::Deserialize)]
    struct Configuration {
        model_infra: Infra,
    }
    #[derive(serde::Deserialize)]
    struct Infra {
        endpoint_type: Option<EndpointType>,
    }
    if model.vendor != Vendor::Launch {
        return EndpointType::Async;
    }
    model
        .vendor_configuration
        .as_ref()
        .and_then(|text| serde_json::from_str::<Configuration>(text.as_str()).ok())
        .and_then(|configuration| configuration.model_infra.endpoint_type)
        .unwrap_or(EndpointType::Sync)
}

fn status(status: ModelStatus) -> EndpointStatus {
    match status {
        ModelStatus::Ready => EndpointStatus::Ready,
        ModelStatus::Deploying => EndpointStatus::UpdateInProgress,
        ModelStatus::Failed | ModelStatus::DeploymentTimeout => EndpointStatus::UpdateFailed,
    }
}
