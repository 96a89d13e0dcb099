//! Anthropic's Messages API.
//!
//! What Vertex AI, Bedrock and Azure serve in the same format reads its answers with the parts of
//! this module: `convert::request_body`, `stream::Reader`, `wire::usage` and
//! `classify::error` know nothing of how Anthropic itself is reached.
//!
//! Source: <https://platform.claude.com/docs/en/api/overview>.

pub(crate) mod classify;
pub(crate) mod convert;
pub(crate) mod stream;
pub(crate) mod wire;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue};
use inferq_common::{
    clock::Clock, config::VendorConfig, error::ErrorClass, job::Route, vendor::Vendor,
};
use secrecy::ExposeSecret as _;
use url::Url;

use self::{convert::Model, stream::Reader};
use crate::{
    Assemble, Call, assemble,
    auth::{Authorize, Key, or_missing},
    error::{VendorError, invalid},
    framing::Framing,
    json,
    remote::{
        Dialect, Failure, Follow, Mode, Parsed, Remote, Request, base_headers, base_url, below,
        http::Clients,
    },
};

/// What to do about a missing or refused key.
const KEY_ADVICE: &str = "set ANTHROPIC_API_KEY or vendors.anthropic.api_key";

/// Tokens of a subscription begin like this; they are no API keys and travel as bearer tokens.
const TOKEN_PREFIX: &str = "sk-ant-oat";

/// Speaks to Anthropic: messages, and the counting of their tokens.
///
/// `args` go out and the response comes back byte for byte; only `model` and `stream` are the
/// adapter's, and under a version that refuses them the sampling parameters.
#[derive(Debug)]
pub struct Anthropic {
    base_url: Url,
    headers: HeaderMap,
    /// Members of `args` that the configured version refuses.
    refused: &'static [&'static str],
}

/// An adapter for Anthropic, or for a server that speaks its API, as `config` names it.
///
/// # Errors
/// A sentence for an operator: which setting is at fault, or that TLS cannot be set up.
pub fn adapter(
    config: &VendorConfig,
    clients: &Clients,
    clock: Arc<dyn Clock>,
) -> Result<Remote<Anthropic>, String> {
    let base_url = base_url(config, wire::BASE_URL)?;
    let http = clients.http(&base_url, config)?;
    let mut headers = base_headers(config)?;
    if config.api_version.is_some() || !headers.contains_key(wire::VERSION_HEADER) {
        let version = config.api_version.as_deref().unwrap_or(wire::VERSION);
        let version = HeaderValue::from_str(version)
            .map_err(|_| "api_version: no HTTP header can carry it".to_owned())?;
        headers.insert(wire::VERSION_HEADER, version);
    }
    let refused = wire::refused_members(headers.get(wire::VERSION_HEADER));
    let dialect = Anthropic { base_url, headers, refused };
    Ok(Remote::new(dialect, http, authorize(config)?, config, clock))
}

fn authorize(config: &VendorConfig) -> Result<Arc<dyn Authorize>, String> {
    let key = config.api_key.as_ref();
    let is_token = key.is_some_and(|key| key.expose_secret().trim().starts_with(TOKEN_PREFIX));
    let key = if is_token { Key::bearer(key) } else { Key::header("x-api-key", key) };
    Ok(or_missing(key?, Vendor::Anthropic, config, KEY_ADVICE))
}

impl Dialect for Anthropic {
    fn vendor(&self) -> Vendor {
        Vendor::Anthropic
    }

    fn request(&self, call: &Call, route: Route, mode: Mode) -> Result<Request, VendorError> {
        let model = Model::InBody(&call.model);
        let body = convert::request_body_without(self.refused, call.args.as_str(), model, mode)
            .map_err(|error| invalid(format!("args: {error}")))?;
        let url = below(&self.base_url, wire::path(route));
        Ok(Request::post(url, self.headers.clone(), mode.accept(), body))
    }

    fn parse(
        &self,
        route: Route,
        headers: &HeaderMap,
        body: Vec<u8>,
        now: DateTime<Utc>,
    ) -> Result<Parsed, VendorError> {
        convert::parse(route, headers, body, now)
    }

    fn follow(&self, _: Route, headers: &HeaderMap) -> Option<(Framing, Box<dyn Follow>)> {
        json::may_be_events(headers)
            .then(|| (Framing::Events, Box::new(Reader::new()) as Box<dyn Follow>))
    }

    fn assemble(&self, _: Route) -> Box<dyn Assemble> {
        assemble::messages()
    }

    fn failure(&self, failure: Failure<'_>, now: DateTime<Utc>) -> VendorError {
        let mut error = classify::error(failure, now);
        if error.class() == ErrorClass::Auth {
            error.error.message.push_str("; ");
            error.error.message.push_str(KEY_ADVICE);
        }
        error
    }

    fn request_id_headers(&self) -> &'static [&'static str] {
        &["request-id", "x-request-id"]
    }
}
