//! Azure OpenAI and Microsoft Foundry: OpenAI's format behind four kinds of address, and Claude.
//!
//! Sources: <https://learn.microsoft.com/en-us/azure/ai-foundry/openai/reference>,
//! <https://learn.microsoft.com/en-us/azure/ai-foundry/openai/api-version-lifecycle>.

mod auth;
mod classify;
mod place;

use std::{borrow::Cow, sync::Arc};

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue};
use inferq_common::{clock::Clock, config::VendorConfig, job::Route, vendor::Vendor};
use url::Url;

use self::place::Place;
use crate::{
    Assemble, Call, anthropic, assemble,
    error::{VendorError, invalid},
    framing::Framing,
    json,
    openai::{self, Flavor},
    remote::{
        Dialect, Failure, Follow, Mode, Parsed, Remote, Request, base_headers, http::Clients,
    },
};

static FLAVOR: Flavor = Flavor {
    vendor: Vendor::Azure,
    base_url: "",
    asks_for_usage: true,
    model: |name| Cow::Borrowed(name),
    usage: openai::wire::usage,
    class: classify::class,
    key_advice: "check AZURE_OPENAI_API_KEY or vendors.azure.api_key, and that the key is of the \
                 resource at vendors.azure.base_url; an identity of Microsoft Entra needs the role \
                 Cognitive Services OpenAI User",
};

/// The version of Anthropic's API that Foundry speaks; `headers` of the settings may name another.
const CLAUDE_VERSION: &str = "2023-06-01";

/// Speaks to the resource of a customer.
///
/// `args` go out and the response comes back byte for byte; only `model`, which is the name of a
/// deployment, and `stream` with its options are the adapter's.
#[derive(Debug)]
pub struct Azure {
    place: Place,
    headers: HeaderMap,
}

/// An adapter for the resource whose endpoint is the `base_url` of `config`; without one every call
/// fails and says so.
///
/// # Errors
/// A sentence for an operator: which setting is at fault, or that TLS cannot be set up.
pub fn adapter(
    config: &VendorConfig,
    clients: &Clients,
    clock: Arc<dyn Clock>,
) -> Result<Remote<Azure>, String> {
    let endpoint = match &config.base_url {
        Some(url) => url.clone(),
        // Nothing is ever sent there.
        None => Url::parse("http://unset.invalid").map_err(|error| error.to_string())?,
    };
    let auth = auth::authorize(config, clients)?;
    let http = clients.http(&endpoint, config)?;
    let place = Place::of(endpoint, config.api.as_deref(), config.api_version.clone())?;
    let dialect = Azure { place, headers: base_headers(config)? };
    Ok(Remote::new(dialect, http, auth, config, clock))
}

fn is_claude(route: Route) -> bool {
    matches!(route, Route::Messages | Route::CountTokens)
}

impl Azure {
    fn claude_body(call: &Call, mode: Mode) -> Result<String, VendorError> {
        let model = anthropic::convert::Model::InBody(&call.model);
        anthropic::convert::request_body(call.args.as_str(), model, mode)
            .map_err(|error| invalid(format!("args: {error}")))
    }

    fn openai_body(&self, call: &Call, route: Route, mode: Mode) -> Result<String, VendorError> {
        let model = Some(call.model.as_str()).filter(|_| self.place.is_model_in_body(route));
        let asks_for_usage = self.place.knows_usage_option(route);
        openai::convert::request_body(call.args.as_str(), model, mode, asks_for_usage)
            .map_err(|error| invalid(format!("args: {error}")))
    }
}

impl Dialect for Azure {
    fn vendor(&self) -> Vendor {
        Vendor::Azure
    }

    fn request(&self, call: &Call, route: Route, mode: Mode) -> Result<Request, VendorError> {
        let url = self.place.url(route, &call.model)?;
        let mut headers = self.headers.clone();
        let body = if is_claude(route) {
            headers.entry("anthropic-version").or_insert(HeaderValue::from_static(CLAUDE_VERSION));
            Self::claude_body(call, mode)?
        } else {
            self.openai_body(call, route, mode)?
        };
        Ok(Request::post(url, headers, mode.accept(), body))
    }

    fn parse(
        &self,
        route: Route,
        headers: &HeaderMap,
        body: Vec<u8>,
        now: DateTime<Utc>,
    ) -> Result<Parsed, VendorError> {
        if is_claude(route) {
            return anthropic::convert::parse(route, headers, body, now);
        }
        openai::convert::parse(&FLAVOR, route, headers, body, now)
    }

    fn follow(&self, route: Route, headers: &HeaderMap) -> Option<(Framing, Box<dyn Follow>)> {
        if is_claude(route) {
            let reader = || Box::new(anthropic::stream::Reader::new()) as Box<dyn Follow>;
            return json::may_be_events(headers).then(|| (Framing::Events, reader()));
        }
        openai::follow(&FLAVOR, route, headers)
    }

    fn assemble(&self, route: Route) -> Box<dyn Assemble> {
        if is_claude(route) { assemble::messages() } else { openai::assemble(route) }
    }

    fn failure(&self, failure: Failure<'_>, now: DateTime<Utc>) -> VendorError {
        classify::error(failure, now)
    }

    fn request_id_headers(&self) -> &'static [&'static str] {
        &["apim-request-id", "x-request-id", "x-ms-request-id", "request-id"]
    }
}
