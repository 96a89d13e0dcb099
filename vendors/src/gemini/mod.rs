//! Google's Gemini API (AI Studio): its own format, and the OpenAI-compatible one beside it.
//!
//! Vertex AI serves the same format and reads it with the parts of this module.
//!
//! Source: <https://ai.google.dev/api>.

pub(crate) mod classify;
pub(crate) mod compat;
pub(crate) mod convert;
mod interactions;
pub(crate) mod path;
pub(crate) mod stream;
pub(crate) mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use inferq_common::{clock::Clock, config::VendorConfig, job::Route, vendor::Vendor};
use url::Url;

use self::stream::Reader;
use crate::{
    Assemble, Call, assemble,
    auth::{Authorize, Key, or_missing},
    error::{VendorError, invalid},
    framing::Framing,
    json, openai,
    remote::{
        Dialect, Failure, Follow, Mode, Parsed, Remote, Request, base_headers, base_url,
        http::Clients,
    },
};

/// What to do about a missing or refused key.
const KEY_ADVICE: &str = "check GEMINI_API_KEY (or GOOGLE_API_KEY) or vendors.gemini.api_key";
const NO_KEY_ADVICE: &str = "set GEMINI_API_KEY (or GOOGLE_API_KEY) or vendors.gemini.api_key";

/// Speaks to the Gemini API: generate content, embeddings, token counts, interactions, and chat
/// completions and embeddings in OpenAI's format.
///
/// `args` go out and the response comes back byte for byte; only the model's name is the adapter's.
#[derive(Debug)]
pub struct Gemini {
    base_url: Url,
    version: String,
    headers: HeaderMap,
}

/// An adapter for the Gemini API, or for a server that speaks it, as `config` names it.
///
/// # Errors
/// A sentence for an operator: which setting is at fault, or that TLS cannot be set up.
pub fn adapter(
    config: &VendorConfig,
    clients: &Clients,
    clock: Arc<dyn Clock>,
) -> Result<Remote<Gemini>, String> {
    let base_url = base_url(config, wire::BASE_URL)?;
    let http = clients.http(&base_url, config)?;
    let headers = base_headers(config)?;
    let version = version(config, wire::VERSION)?;
    let dialect = Gemini { base_url, version, headers };
    Ok(Remote::new(dialect, http, authorize(config)?, config, clock))
}

/// The configured version of the API, or the default.
pub(crate) fn version(config: &VendorConfig, default: &str) -> Result<String, String> {
    let version = config.api_version.as_deref().map(str::trim).filter(|it| !it.is_empty());
    let version = version.unwrap_or(default);
    if version.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        Ok(version.to_owned())
    } else {
        Err("api_version: must be letters and digits, such as v1 or v1beta".to_owned())
    }
}

fn authorize(config: &VendorConfig) -> Result<Arc<dyn Authorize>, String> {
    let key = config.api_key.as_ref();
    let key = GeminiKey { own: Key::header("x-goog-api-key", key)?, bearer: Key::bearer(key)? };
    Ok(or_missing(key, Vendor::Gemini, config, NO_KEY_ADVICE))
}

/// A key, in the header that the endpoint wants it in.
#[derive(Debug)]
struct GeminiKey {
    own: Key,
    /// For the OpenAI-compatible endpoints.
    bearer: Key,
}

#[async_trait]
impl Authorize for GeminiKey {
    async fn authorize(
        &self,
        request: &mut Request,
        now: DateTime<Utc>,
    ) -> Result<(), VendorError> {
        // Of the native endpoints, the last segment is `MODEL:METHOD`, or `interactions`.
        let mut segments = request.url.path_segments().into_iter().flatten().rev();
        let key = match segments.next() {
            Some("completions" | "embeddings") => &self.bearer,
            _ => &self.own,
        };
        key.authorize(request, now).await
    }

    fn redact(&self, words: &mut String) {
        self.own.redact(words);
    }
}

/// `models/NAME`, as Google names a model where it is not its place that says so.
fn resource(model: &str) -> String {
    if model.starts_with("models/") || model.starts_with("tunedModels/") {
        model.to_owned()
    } else {
        format!("models/{model}")
    }
}

/// What follows the model's name in the path of a native endpoint.
pub(crate) fn method(route: Route, mode: Mode) -> &'static str {
    match (route, mode) {
        (Route::GenerateContent, Mode::Stream) => "streamGenerateContent",
        (Route::EmbedContent, _) => "embedContent",
        (Route::BatchEmbedContents, _) => "batchEmbedContents",
        (Route::CountTokens, _) => "countTokens",
        (Route::Predict, _) => "predict",
        _ => "generateContent",
    }
}

/// Who reads a streamed answer of `streamGenerateContent`: events, or the elements of one list
/// where a server does not know of events; `None` if it is neither.
pub(crate) fn follow(
    headers: &HeaderMap,
    advice: &'static str,
) -> Option<(Framing, Box<dyn Follow>)> {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let is_json = content_type.to_ascii_lowercase().starts_with(b"application/json");
    let framing = if is_json { Framing::Elements } else { Framing::Events };
    (is_json || json::may_be_events(headers))
        .then(|| (framing, Box::new(Reader::new(advice)) as Box<dyn Follow>))
}

fn is_compat(route: Route) -> bool {
    matches!(route, Route::ChatCompletions | Route::Embeddings)
}

impl Dialect for Gemini {
    fn vendor(&self) -> Vendor {
        Vendor::Gemini
    }

    fn request(&self, call: &Call, route: Route, mode: Mode) -> Result<Request, VendorError> {
        let args = call.args.as_str();
        let (url, body) = if route == Route::Interactions {
            let url = path::url(&self.base_url, &self.version, ["interactions"]);
            // As the Responses API it has the model in the body, and no options for streams.
            (url, compat::request_body(args, &call.model, Route::Responses, mode)?)
        } else if is_compat(route) {
            let path = ["openai"].iter().chain(compat::path(route)).copied();
            let url = path::url(&self.base_url, &self.version, path);
            (url, compat::request_body(args, &call.model, route, mode)?)
        } else {
            path::check_name(&call.model)?;
            let resource = resource(&call.model);
            let path = format!("{resource}:{}", method(route, mode));
            let mut url = path::url(&self.base_url, &self.version, path.split('/'));
            path::ask_for_events(&mut url, mode);
            let body = convert::request_body(args, &resource, route)
                .map_err(|error| invalid(format!("args: {error}")))?;
            (url, body)
        };
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
            Route::Interactions => interactions::parse(headers, body, KEY_ADVICE, now),
            _ if is_compat(route) => compat::parse(route, headers, body, KEY_ADVICE, now),
            _ => convert::parse(route, headers, body, KEY_ADVICE, now),
        }
    }

    fn follow(&self, route: Route, headers: &HeaderMap) -> Option<(Framing, Box<dyn Follow>)> {
        match route {
            Route::Interactions => interactions::follow(headers, KEY_ADVICE),
            _ if is_compat(route) => compat::follow(route, headers, KEY_ADVICE),
            _ => follow(headers, KEY_ADVICE),
        }
    }

    fn assemble(&self, route: Route) -> Box<dyn Assemble> {
        match route {
            Route::Interactions => assemble::interactions(),
            _ if is_compat(route) => openai::assemble(route),
            _ => assemble::generate_content(),
        }
    }

    fn failure(&self, failure: Failure<'_>, now: DateTime<Utc>) -> VendorError {
        classify::error(failure, KEY_ADVICE, now)
    }

    fn request_id_headers(&self) -> &'static [&'static str] {
        // The id of a request is in the body: `responseId`.
        &[]
    }
}

#[cfg(test)]
mod tests;
