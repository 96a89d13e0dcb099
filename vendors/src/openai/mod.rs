//! OpenAI, and every server that speaks its HTTP API.
//!
//! Source: <https://platform.openai.com/docs/api-reference>.

pub(crate) mod classify;
pub(crate) mod convert;
pub(crate) mod flavor;
pub(crate) mod stream;
pub(crate) mod wire;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue};
use inferq_common::{clock::Clock, config::VendorConfig, job::Route, vendor::Vendor};
use url::Url;

pub(crate) use self::{
    flavor::{Flavor, MODEL_ZOO, OPENAI},
    stream::Reader,
};
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

/// Speaks to an OpenAI-compatible server: chat completions, completions, embeddings, responses, and
/// rerank where the vendor has it.
///
/// `args` go out and the response comes back byte for byte; only `model`, and `stream` with its
/// options, are the adapter's.
#[derive(Debug)]
pub struct OpenAi {
    flavor: &'static Flavor,
    base_url: Url,
    headers: HeaderMap,
}

/// An adapter for the server that `config` names, OpenAI's own by default.
///
/// # Errors
/// A sentence for an operator: which setting is at fault, or that TLS cannot be set up.
pub fn adapter(
    config: &VendorConfig,
    clients: &Clients,
    clock: Arc<dyn Clock>,
) -> Result<Remote<OpenAi>, String> {
    compatible(&OPENAI, config, clients, clock)
}

/// An adapter for a vendor that speaks this format and takes a key as a bearer token. With neither
/// key nor address, every call to a vendor that needs a key fails and says where it comes from.
///
/// # Errors
/// As [`adapter`].
pub(crate) fn compatible(
    flavor: &'static Flavor,
    config: &VendorConfig,
    clients: &Clients,
    clock: Arc<dyn Clock>,
) -> Result<Remote<OpenAi>, String> {
    let base_url = base_url(config, flavor.base_url)?;
    let key = Key::bearer(config.api_key.as_ref())?;
    let auth: Arc<dyn Authorize> = match flavor.key_advice {
        "" => Arc::new(key),
        advice => or_missing(key, flavor.vendor, config, advice),
    };
    let http = clients.http(&base_url, config)?;
    let mut headers = base_headers(config)?;
    for (name, value) in
        [("openai-organization", &config.organization), ("openai-project", &config.project)]
    {
        if let Some(value) = value {
            let value = HeaderValue::from_str(value)
                .map_err(|_| format!("{name}: no HTTP header can carry it"))?;
            headers.insert(name, value);
        }
    }
    Ok(Remote::new(OpenAi { flavor, base_url, headers }, http, auth, config, clock))
}

impl Dialect for OpenAi {
    fn vendor(&self) -> Vendor {
        self.flavor.vendor
    }

    fn request(&self, call: &Call, route: Route, mode: Mode) -> Result<Request, VendorError> {
        let model = (self.flavor.model)(&call.model);
        let asks_for_usage = self.flavor.asks_for_usage && wire::has_usage_option(route);
        let body = convert::request_body(call.args.as_str(), Some(&model), mode, asks_for_usage)
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
        convert::parse(self.flavor, route, headers, body, now)
    }

    fn follow(&self, route: Route, headers: &HeaderMap) -> Option<(Framing, Box<dyn Follow>)> {
        follow(self.flavor, route, headers)
    }

    fn assemble(&self, route: Route) -> Box<dyn Assemble> {
        assemble(route)
    }

    fn failure(&self, failure: Failure<'_>, now: DateTime<Utc>) -> VendorError {
        classify::error(self.flavor, failure, now)
    }
}

/// Who reads a streamed answer, if it is one.
pub(crate) fn follow(
    flavor: &'static Flavor,
    route: Route,
    headers: &HeaderMap,
) -> Option<(Framing, Box<dyn Follow>)> {
    let reader = || Box::new(Reader::new(flavor, route)) as Box<dyn Follow>;
    json::may_be_events(headers).then(|| (Framing::Events, reader()))
}

/// What makes one answer of a streamed one.
pub(crate) fn assemble(route: Route) -> Box<dyn Assemble> {
    match route {
        Route::Responses => assemble::responses(),
        _ => assemble::openai(),
    }
}
