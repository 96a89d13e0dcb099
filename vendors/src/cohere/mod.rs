//! Cohere, version 2 of its API, and what it offers in OpenAI's format.
//!
//! Sources: <https://docs.cohere.com/reference/about>,
//! <https://docs.cohere.com/docs/compatibility-api>.

mod classify;
mod convert;
mod stream;
mod wire;

use std::{borrow::Cow, sync::Arc};

use chrono::{DateTime, Utc};
use http::HeaderMap;
use inferq_common::{clock::Clock, config::VendorConfig, job::Route, vendor::Vendor};
use url::Url;

use self::stream::Reader;
use crate::{
    Assemble, Call, assemble,
    auth::{Key, or_missing},
    error::{VendorError, invalid},
    framing::Framing,
    json,
    openai::{self, Flavor},
    remote::{
        Dialect, Failure, Follow, Mode, Parsed, Remote, Request, base_headers, base_url, below,
        http::Clients,
    },
};

const BASE_URL: &str = "https://api.cohere.com";

/// What to do about a missing or refused key.
const KEY_ADVICE: &str = "set COHERE_API_KEY or vendors.cohere.api_key";

/// Cohere's ways with OpenAI's format, on the one route that speaks it.
static FLAVOR: Flavor = Flavor {
    vendor: Vendor::Cohere,
    base_url: BASE_URL,
    // It refuses `stream_options`.
    asks_for_usage: false,
    model: |name| Cow::Borrowed(name),
    usage: openai::wire::usage,
    class: |status, wire| {
        classify::named(status, wire.kind.as_deref(), wire.message.as_deref().unwrap_or_default())
    },
    key_advice: KEY_ADVICE,
};

/// Speaks to Cohere: chat, embed, rerank, and chat completions in OpenAI's format.
///
/// `args` go out and the response comes back byte for byte; only `model` and `stream` are the
/// adapter's.
#[derive(Debug)]
pub struct Cohere {
    base_url: Url,
    headers: HeaderMap,
}

/// An adapter for Cohere, or for what stands in for it at the address in `config`.
///
/// # Errors
/// A sentence for an operator: which setting is at fault, or that TLS cannot be set up.
pub fn adapter(
    config: &VendorConfig,
    clients: &Clients,
    clock: Arc<dyn Clock>,
) -> Result<Remote<Cohere>, String> {
    let base_url = base_url(config, BASE_URL)?;
    let key = Key::bearer(config.api_key.as_ref())?;
    let auth = or_missing(key, Vendor::Cohere, config, KEY_ADVICE);
    let http = clients.http(&base_url, config)?;
    let dialect = Cohere { base_url, headers: base_headers(config)? };
    Ok(Remote::new(dialect, http, auth, config, clock))
}

impl Dialect for Cohere {
    fn vendor(&self) -> Vendor {
        Vendor::Cohere
    }

    fn request(&self, call: &Call, route: Route, mode: Mode) -> Result<Request, VendorError> {
        let (args, model) = (call.args.as_str(), Some(call.model.as_str()));
        let body = openai::convert::request_body(args, model, mode, false)
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
        match route {
            Route::ChatCompletions => openai::convert::parse(&FLAVOR, route, headers, body, now),
            _ => convert::parse(headers, body, now),
        }
    }

    fn follow(&self, route: Route, headers: &HeaderMap) -> Option<(Framing, Box<dyn Follow>)> {
        if route == Route::ChatCompletions {
            return openai::follow(&FLAVOR, route, headers);
        }
        json::may_be_events(headers)
            .then(|| (Framing::Events, Box::new(Reader::new(headers)) as Box<dyn Follow>))
    }

    fn assemble(&self, route: Route) -> Box<dyn Assemble> {
        match route {
            Route::ChatCompletions => openai::assemble(route),
            _ => assemble::cohere(),
        }
    }

    fn failure(&self, failure: Failure<'_>, now: DateTime<Utc>) -> VendorError {
        classify::error(failure, now)
    }

    /// None: the id that its support asks for stands in the body, and `wire::trace_id` is second
    /// to it.
    fn request_id_headers(&self) -> &'static [&'static str] {
        &[]
    }
}
