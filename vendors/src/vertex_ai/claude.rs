//! Claude on Vertex AI: Anthropic's format, errors in Anthropic's or in Google's shape.

use chrono::{DateTime, Utc};
use http::HeaderMap;
use inferq_common::{job::Route, members::each_member};

use crate::{
    anthropic::{
        convert::{self, Model},
        stream::Reader,
    },
    error::{VendorError, invalid},
    framing::Framing,
    gemini::compat,
    json,
    remote::{Follow, Mode, Parsed},
};

/// What the header `anthropic-version` says elsewhere; `args` may name another.
const VERSION: &str = "vertex-2023-10-16";

/// The name under which the tokens of any model are counted.
pub(super) const COUNT_TOKENS: &str = "count-tokens";

/// The body of a message: `args` without `model`, with a version.
///
/// # Errors
/// `InvalidRequest`: `args` are no object.
pub(super) fn message(args: &str, mode: Mode) -> Result<String, VendorError> {
    let model = Model::Nowhere { anthropic_version: VERSION, stream_member: true };
    convert::request_body(args, model, mode).map_err(|error| invalid(format!("args: {error}")))
}

/// The body for counting tokens, the one place where the model stands in the body.
///
/// # Errors
/// `InvalidRequest`: `args` are no object.
pub(super) fn counted(args: &str, model: &str) -> Result<String, VendorError> {
    let mut has_version = false;
    let is_version = |key: &str, is_null: bool| key == "anthropic_version" && !is_null;
    each_member(args, |member| has_version |= is_version(&member.key, member.is_null()))
        .map_err(|error| invalid(format!("args: {error}")))?;
    let body = convert::request_body(args, Model::InBody(model), Mode::Whole)
        .map_err(|error| invalid(format!("args: {error}")))?;
    if has_version {
        return Ok(body);
    }
    // The model's name is in front, so that a comma belongs between the two.
    Ok(format!(r#"{{"anthropic_version":"{VERSION}",{}"#, &body[1..]))
}

/// Reads the body of a 2xx answer.
///
/// # Errors
/// What an error inside the answer means; `Protocol` for what is no JSON object.
pub(super) fn parse(
    route: Route,
    headers: &HeaderMap,
    body: Vec<u8>,
    now: DateTime<Utc>,
) -> Result<Parsed, VendorError> {
    convert::parse(route, headers, body, now)
}

/// Who reads a streamed answer; `None` if it is no stream.
pub(super) fn follow(
    headers: &HeaderMap,
    advice: &'static str,
) -> Option<(Framing, Box<dyn Follow>)> {
    json::may_be_events(headers)
        .then(|| (Framing::Events, compat::guarded(Box::new(Reader::new()), advice)))
}

#[cfg(test)]
mod tests;
