//! Google Cloud's Vertex AI: Gemini, Claude, Mistral and others, each in its own format or, where
//! there is one, in OpenAI's.
//!
//! Source: <https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference>.

mod claude;
mod raw;
mod target;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use http::HeaderMap;
use inferq_common::{
    clock::Clock, config::VendorConfig, error::ErrorClass, job::Route, vendor::Vendor,
};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use url::Url;

use self::target::{GLOBAL_HOST, Name, Place, Target, is_location, is_project};
use crate::{
    Assemble, Call, anthropic, assemble,
    auth::{
        Authorize, Key,
        google::{self, Ambient, Google},
    },
    error::{VendorError, invalid},
    framing::Framing,
    gemini::{self, classify, compat, convert, path, wire::WireError},
    openai,
    remote::{
        Dialect, Failure, Follow, Mode, Parsed, Remote, Request, base_headers, base_url,
        http::Clients,
    },
};

const VERSION: &str = "v1";

/// What to do about a refused credential.
const ACCESS_ADVICE: &str = "check vendors.vertex_ai.service_account or \
                             GOOGLE_APPLICATION_CREDENTIALS, and that the account has the role \
                             roles/aiplatform.user in the project";
const KEY_ADVICE: &str = "check vendors.vertex_ai.api_key; a key without a project calls Google's \
                          own models only (express mode)";

/// Speaks to Vertex AI: generate content, predict, Claude's messages, raw predictions, and chat
/// completions in OpenAI's format.
///
/// `args` go out and the response comes back byte for byte; only the model's name, `stream` and
/// Claude's version are the adapter's.
#[derive(Debug)]
pub struct VertexAi {
    /// Stands in for Google's host, whatever the location.
    base_url: Option<Url>,
    version: String,
    place: Place,
    headers: HeaderMap,
    advice: &'static str,
}

/// An adapter for Vertex AI as `config` describes it.
///
/// # Errors
/// A sentence for an operator: which setting is at fault, or that TLS cannot be set up.
pub fn adapter(
    config: &VendorConfig,
    clients: &Clients,
    clock: Arc<dyn Clock>,
) -> Result<Remote<VertexAi>, String> {
    // A client is made for TLS or without; which host it will be does not matter.
    let http = clients.http(&base_url(config, GLOBAL_HOST)?, config)?;
    let key = config.api_key.as_ref().filter(|key| !key.expose_secret().trim().is_empty());
    let express = key.is_some() && config.service_account.is_none();
    let (auth, advice): (Arc<dyn Authorize>, _) = match key.filter(|_| express) {
        Some(key) => (Arc::new(Key::header("x-goog-api-key", Some(key))?), KEY_ADVICE),
        None => (google(config, clients)?, ACCESS_ADVICE),
    };
    let dialect = VertexAi {
        base_url: config.base_url.clone(),
        version: gemini::version(config, VERSION)?,
        place: place(config, express)?,
        headers: base_headers(config)?,
        advice,
    };
    Ok(Remote::new(dialect, http, auth, config, clock))
}

/// Tokens from wherever `config` says. What lies around on the machine is for Google alone; a server
/// of someone's own is called without a token unless one is configured.
fn google(config: &VendorConfig, clients: &Clients) -> Result<Arc<dyn Authorize>, String> {
    let host = config.base_url.as_ref().map(|url| url.host_str().unwrap_or_default());
    let is_googles = host.is_none_or(|host| host.ends_with(".googleapis.com"));
    let ambient = if is_googles { Ambient::of_machine() } else { None };
    let google = Google::new(config, clients, ambient)?;
    Ok(if google.has_sources() { Arc::new(google) } else { Arc::new(Key::default()) })
}

fn place(config: &VendorConfig, express: bool) -> Result<Place, String> {
    let given = |value: &Option<String>| {
        value.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let (mut project, location) = (given(&config.project), given(&config.location));
    if project.as_deref().is_some_and(|project| !is_project(project)) {
        return Err("project: must be the id or number of a Google Cloud project".to_owned());
    }
    if location.as_deref().is_some_and(|location| !is_location(location)) {
        return Err("location: must be a location such as us-central1, us or global".to_owned());
    }
    if project.is_none() {
        project = google::project_of(config)?.filter(|project| is_project(project));
    }
    Ok(Place { project, location, express })
}

impl VertexAi {
    fn body(
        &self,
        call: &Call,
        target: &Target<'_>,
        route: Route,
        mode: Mode,
    ) -> Result<(Url, String), VendorError> {
        let args = call.args.as_str();
        let url = |target: &Target<'_>, method: &str| {
            target.url(self.base_url.as_ref(), &self.version, &self.place, method)
        };
        let publisher = match target.name {
            Name::Published { publisher, model } => Some((publisher, model)),
            _ => None,
        };
        match (route, publisher) {
            (Route::ChatCompletions, _) => {
                let (url, model) =
                    target.chat(self.base_url.as_ref(), &self.version, &self.place)?;
                Ok((url, compat::request_body(args, &model, route, mode)?))
            }
            (Route::CountTokens, Some(("anthropic", model))) => {
                let counter = target.published("anthropic", claude::COUNT_TOKENS);
                Ok((url(&counter, "rawPredict")?, claude::counted(args, model)?))
            }
            (Route::Messages, _) | (Route::RawPredict, Some(("anthropic", _))) => {
                Ok((url(target, raw::method(mode))?, claude::message(args, mode)?))
            }
            (Route::RawPredict, _) => {
                let model = publisher.map(|(_, model)| model);
                Ok((url(target, raw::method(mode))?, raw::request_body(args, model, mode)?))
            }
            _ => {
                let mut url = url(target, gemini::method(route, mode))?;
                path::ask_for_events(&mut url, mode);
                let body = convert::request_body(args, &call.model, route)
                    .map_err(|error| invalid(format!("args: {error}")))?;
                Ok((url, body))
            }
        }
    }
}

impl Dialect for VertexAi {
    fn vendor(&self) -> Vendor {
        Vendor::VertexAi
    }

    fn request(&self, call: &Call, route: Route, mode: Mode) -> Result<Request, VendorError> {
        path::check_name(&call.model)?;
        let target = Target::of(&call.model)?;
        let (url, body) = self.body(call, &target, route, mode)?;
        Ok(Request::post(url, self.headers.clone(), mode.accept(), body))
    }

    fn parse(
        &self,
        route: Route,
        headers: &HeaderMap,
        body: Vec<u8>,
        now: DateTime<Utc>,
    ) -> Result<Parsed, VendorError> {
        match route {
            Route::Messages => claude::parse(route, headers, body, now),
            Route::RawPredict => raw::parse(headers, body, self.advice, now),
            Route::ChatCompletions => compat::parse(route, headers, body, self.advice, now),
            _ => convert::parse(route, headers, body, self.advice, now),
        }
    }

    fn follow(&self, route: Route, headers: &HeaderMap) -> Option<(Framing, Box<dyn Follow>)> {
        match route {
            Route::Messages => claude::follow(headers, self.advice),
            Route::RawPredict => raw::follow(headers, self.advice),
            Route::ChatCompletions => compat::follow(route, headers, self.advice),
            _ => gemini::follow(headers, self.advice),
        }
    }

    fn assemble(&self, route: Route) -> Box<dyn Assemble> {
        match route {
            Route::Messages => assemble::messages(),
            Route::RawPredict => assemble::raw_predict(),
            Route::ChatCompletions => openai::assemble(route),
            _ => assemble::generate_content(),
        }
    }

    fn failure(&self, failure: Failure<'_>, now: DateTime<Utc>) -> VendorError {
        let document: Value = serde_json::from_str(failure.body).unwrap_or_default();
        let mut error = if document.get("type").is_some_and(|kind| kind == "error") {
            anthropic::classify::error(failure, now)
        } else if WireError::of(&document).is_none() && document.get("message").is_some() {
            // Mistral's own shape.
            openai::classify::error(&openai::OPENAI, failure, now)
        } else {
            return classify::error(failure, self.advice, now);
        };
        if error.class() == ErrorClass::Auth {
            error.error.message = format!("{}; {}", error.error.message, self.advice);
        }
        error
    }

    fn request_id_headers(&self) -> &'static [&'static str] {
        // Claude's; the id of Google's own models is in the body: `responseId`.
        &["request-id"]
    }
}

#[cfg(test)]
mod tests;
