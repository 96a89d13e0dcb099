//! Google's OpenAI-compatible endpoints: what they share with OpenAI's own.

use chrono::{DateTime, Utc};
use http::HeaderMap;
use inferq_common::job::Route;

use crate::{
    error::{VendorError, invalid},
    framing::Framing,
    json,
    openai::{self, Reader},
    remote::{Follow, Mode, Parsed},
};

/// The segments of an endpoint's path, after what the vendor has in front of it.
pub(crate) fn path(route: Route) -> &'static [&'static str] {
    match route {
        Route::Embeddings => &["embeddings"],
        _ => &["chat", "completions"],
    }
}

/// The body for a call: `args` with this model in front in place of theirs.
///
/// # Errors
/// `InvalidRequest`: `args` are no object.
pub(crate) fn request_body(
    args: &str,
    model: &str,
    route: Route,
    mode: Mode,
) -> Result<String, VendorError> {
    openai::request_body(args, model, route, mode)
        .map_err(|error| invalid(format!("args: {error}")))
}

/// Reads the body of a 2xx answer.
///
/// # Errors
/// What an error inside the answer means; `Protocol` for what is no JSON object.
pub(crate) fn parse(
    route: Route,
    headers: &HeaderMap,
    body: Vec<u8>,
    now: DateTime<Utc>,
) -> Result<Parsed, VendorError> {
    openai::parse(route, headers, body, now)
}

/// Who reads a streamed answer; `None` if it is no stream.
pub(crate) fn follow(route: Route, headers: &HeaderMap) -> Option<(Framing, Box<dyn Follow>)> {
    json::may_be_events(headers)
        .then(|| (Framing::Events, Box::new(Reader::new(route)) as Box<dyn Follow>))
}
