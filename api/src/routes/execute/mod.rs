//! Jobs by the alias of a model server (v4).

mod request;
#[cfg(test)]
mod tests;

use axum::{Router, extract::State, response::Response, routing::post};
use http::HeaderMap;
use inferq_common::{
    job::Operation,
    model::{Model, ModelServer},
    vendor::ModelName,
};

use self::request::Request;
use crate::{
    answer,
    auth::Caller,
    credential,
    error::ApiError,
    extract::{Payload, Segment},
    registered, rules,
    state::AppState,
    submit::Order,
    terms::Terms,
};

/// The routes of this resource.
pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/v4/serving/a/{alias}/execute", post(execute))
}

/// Runs what the alias stands for.
async fn execute(
    State(state): State<AppState>,
    caller: Caller,
    Segment(alias): Segment<String>,
    headers: HeaderMap,
    payload: Payload,
) -> Result<Response, ApiError> {
    let unknown = || ApiError::NotFound("no model server has this alias".into());
    if alias.chars().any(char::is_control) {
        return Err(unknown());
    }
    let server = state
        .catalogue
        .server_by_alias(&state.store, &caller.account, &alias)
        .await?
        .ok_or_else(unknown)?;
    let path = format!("/v4/serving/a/{alias}/execute");
    execute_server(&state, caller, &path, &headers, payload, &server).await
}

/// Runs what a model server stands for at present; `path` is the request's, for its idempotency key.
///
/// # Errors
/// 422 for what is wrong with the request, 404 if the server's model is gone.
pub async fn execute_server(
    state: &AppState,
    caller: Caller,
    path: &str,
    headers: &HeaderMap,
    payload: Payload,
    server: &ModelServer,
) -> Result<Response, ApiError> {
    let target = Target::of(state, &caller, server).await?;
    let model = target.registered.as_deref();
    let route = model.and_then(Model::route);
    let request = Request::read(state, path, headers, payload, (&target.name, route)).await?;
    let terms = Terms {
        callback: request.callback_url.is_some(),
        cancel_on_disconnect: request.cancel_on_disconnect,
        ..Terms::of(headers)
    };
    let loc = || vec!["path".into(), "alias".into()];
    let credential = credential::of_model(state, &caller.account, model, loc).await?;
    // Who has opened a model to others is not told what they get.
    let own = model.filter(|model| model.account == caller.account);
    let mut order = Order {
        operation: Operation::Execute,
        account: caller.account,
        alias: Some(server.alias.clone().unwrap_or_else(|| server.id.to_string())),
        model: target.name,
        model_id: model.map(|model| model.id),
        args: request.args,
        limits: request.limits,
        route,
        credential,
        priority: request.priority,
        stream: request.stream,
        callback_url: request
            .callback_url
            .or_else(|| own.and_then(|model| model.default_callback_url.clone())),
        metadata: None,
        run_at: None,
        expires_at: None,
        retry_of: None,
        idempotency: request.idempotency,
        trace: request.trace,
        share: request.share,
    };
    if let Some(model) = model {
        registered::complete(state, &mut order, model, request.given, &["body".into()]).await?;
    }
    answer::place(state, order, terms).await
}

/// What a model server runs.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: ModelName,
    pub(crate) registered: Option<std::sync::Arc<Model>>,
}

impl Target {
    /// # Errors
    /// 404 if the server's model is gone, 409 if it cannot be called.
    pub(crate) async fn of(
        state: &AppState,
        caller: &Caller,
        server: &ModelServer,
    ) -> Result<Self, ApiError> {
        let mut target = Self::named(state, caller, &server.model_deployment_id).await?;
        if target.is_none() {
            // The server may have been switched since it was read, and its old model deleted.
            let now = state.store.find_model_server(server.id, &caller.account).await?;
            let other = now.filter(|now| now.model_deployment_id != server.model_deployment_id);
            if let Some(now) = other {
                target = Self::named(state, caller, &now.model_deployment_id).await?;
            }
        }
        let gone = || ApiError::NotFound("the model behind this model server is gone".into());
        let target = target.ok_or_else(gone)?;
        if let Some(model) = &target.registered {
            rules::ready(model)?;
        }
        Ok(target)
    }

    /// A deployment is a registered model's id, or `vendor/name`. `None`: it is gone.
    async fn named(
        state: &AppState,
        caller: &Caller,
        deployment: &str,
    ) -> Result<Option<Self>, ApiError> {
        if let Ok(id) = deployment.parse() {
            let found = state.catalogue.model(&state.store, &caller.account, id).await?;
            return Ok(found.map(|model| {
                let name = ModelName { vendor: model.vendor, name: model.name.clone() };
                Self { name, registered: Some(model) }
            }));
        }
        let Ok(name) = deployment.parse::<ModelName>() else { return Ok(None) };
        let registered =
            state.catalogue.model_by_name(&state.store, &caller.account, &name).await?;
        Ok(Some(Self { name, registered }))
    }
}
