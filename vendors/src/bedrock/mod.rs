//! AWS Bedrock: Converse, InvokeModel, CountTokens, and its endpoints in OpenAI's format.
//!
//! Source: <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html>.

mod auth;
mod classify;
mod convert;
mod place;
mod stream;
mod wire;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue};
use inferq_common::{clock::Clock, config::VendorConfig, job::Route, route, vendor::Vendor};

use self::{auth::Auth, place::Place, stream::Reader};
use crate::{
    Assemble, Call, assemble,
    error::{VendorError, invalid},
    framing::Framing,
    openai::{self, OPENAI},
    remote::{
        Dialect, Failure, Follow, Mode, Parsed, Remote, Request, base_headers, http::Clients,
    },
};

/// Speaks to Bedrock.
///
/// `args` go out and the response comes back byte for byte; only the model, which stands in the path,
/// and `stream`, which is another path, are the adapter's.
#[derive(Debug)]
pub struct Bedrock {
    place: Arc<Place>,
    headers: HeaderMap,
}

/// An adapter for Bedrock in the region that is configured, or for the address that stands in for it.
///
/// Keys, and a region that only a profile names, are looked for with the first call.
///
/// # Errors
/// A sentence for an operator: which setting is at fault, or that TLS cannot be set up.
pub fn adapter(
    config: &VendorConfig,
    clients: &Clients,
    clock: Arc<dyn Clock>,
) -> Result<Remote<Bedrock>, String> {
    let place = Arc::new(Place::of(config)?);
    let auth = Arc::new(Auth::of(config, Arc::clone(&place))?);
    let http = clients.http(place.base_url(), config)?;
    let headers = base_headers(config)?;
    Ok(Remote::new(Bedrock { place, headers }, http, auth, config, clock))
}

impl Dialect for Bedrock {
    fn vendor(&self) -> Vendor {
        Vendor::Bedrock
    }

    fn request(&self, call: &Call, route: Route, mode: Mode) -> Result<Request, VendorError> {
        let (_, id) =
            route::bedrock::model(&call.model).map_err(|error| invalid(error.to_string()))?;
        let url = wire::url(self.place.base_url(), route, id, mode)?;
        let body = convert::request_body(call.args.as_str(), id, route, mode)
            .map_err(|error| invalid(format!("args: {error}")))?;
        Ok(Request::post(url, self.headers.clone(), accept(route, mode), body))
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
        if wire::is_openai(route) {
            return openai::follow(&OPENAI, route, headers);
        }
        wire::may_be_messages(headers)
            .then(|| (Framing::EventStream, Box::new(Reader::new(route)) as Box<dyn Follow>))
    }

    fn assemble(&self, route: Route) -> Box<dyn Assemble> {
        match route {
            Route::Converse => assemble::converse(),
            _ if wire::is_openai(route) => openai::assemble(route),
            _ => assemble::invoke(),
        }
    }

    fn failure(&self, failure: Failure<'_>, now: DateTime<Utc>) -> VendorError {
        classify::error(failure, now)
    }

    fn request_id_headers(&self) -> &'static [&'static str] {
        &["x-amzn-requestid", "x-request-id"]
    }
}

fn accept(route: Route, mode: Mode) -> HeaderValue {
    match mode {
        Mode::Stream if !wire::is_openai(route) => HeaderValue::from_static(wire::EVENT_STREAM),
        mode => mode.accept(),
    }
}
