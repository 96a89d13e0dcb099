//! OpenAI, and every server that speaks its HTTP API.
//!
//! Source: <https://platform.openai.com/docs/api-reference>.

mod classify;
mod convert;
mod stream;
mod wire;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use http::{
    HeaderMap, HeaderValue, Method,
    header::{ACCEPT, CONTENT_TYPE},
};
use inferq_common::{clock::Clock, config::VendorConfig, job::Route, vendor::Vendor};
use url::Url;

pub(crate) use self::stream::Reader;
pub(crate) use self::{
    classify::error as failure,
    convert::{parse, request_body},
};
use crate::{
    Call,
    auth::Key,
    error::{VendorError, invalid},
    framing::Framing,
    json,
    remote::{
        Dialect, Failure, Follow, Mode, Parsed, Remote, Request, base_headers, base_url,
        http::Clients,
    },
};

/// Speaks to an OpenAI-compatible server: chat completions, completions, embeddings, responses.
///
/// `args` go out and the response comes back byte for byte; only `model`, and `stream` with its
/// options, are the adapter's.
#[derive(Debug)]
pub struct OpenAi {
    /// OpenAI, or who else serves models in its format.
    vendor: Vendor,
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
    compatible(Vendor::OpenAi, config, clients, clock)
}

/// An adapter for a server of `vendor` that speaks OpenAI's format.
///
/// # Errors
/// As [`adapter`].
pub(crate) fn compatible(
    vendor: Vendor,
    config: &VendorConfig,
    clients: &Clients,
    clock: Arc<dyn Clock>,
) -> Result<Remote<OpenAi>, String> {
    let base_url = base_url(config, wire::BASE_URL)?;
    let auth = Arc::new(Key::bearer(config.api_key.as_ref())?);
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
    Ok(Remote::new(OpenAi { vendor, base_url, headers }, http, auth, config, clock))
}

impl Dialect for OpenAi {
    fn vendor(&self) -> Vendor {
        self.vendor
    }

    fn request(&self, call: &Call, route: Route, mode: Mode) -> Result<Request, VendorError> {
        let body = convert::request_body(call.args.as_str(), &call.model, route, mode)
            .map_err(|error| invalid(format!("args: {error}")))?;
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, mode.accept());
        let mut url = self.base_url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(wire::path(route));
        }
        Ok(Request { method: Method::POST, url, headers, body: body.into() })
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

    fn follow(&self, route: Route, headers: &HeaderMap) -> Option<(Framing, Box<dyn Follow>)> {
        json::may_be_events(headers)
            .then(|| (Framing::Events, Box::new(Reader::new(route)) as Box<dyn Follow>))
    }

    fn can_stream(&self, route: Route) -> bool {
        route != Route::Embeddings
    }

    fn failure(&self, failure: Failure<'_>, now: DateTime<Utc>) -> VendorError {
        classify::error(failure, now)
    }
}
