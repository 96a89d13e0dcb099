//! Turns arguments into the body of a request and a body of a response into a reply; pure.

use chrono::{DateTime, Utc};
use http::HeaderMap;
use inferq_common::{
    job::Route,
    members::{Member, NotAnObject, each_member},
};
use serde_json::Value;

use super::{classify, wire};
use crate::{
    error::VendorError,
    json,
    remote::{Failure, Mode, Parsed},
};

/// A `usage` object has a few hundred bytes; a larger one is not read.
const MAX_USAGE_BYTES: usize = 16 * 1024;

/// Where the name of the model stands.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Model<'a> {
    /// In the member `model`, as Anthropic itself and Azure want it.
    InBody(&'a str),
    /// In the address, as Vertex AI and Bedrock want it; the version, which has no header there,
    /// stands in the body instead. `args` may name another version.
    Nowhere {
        anthropic_version: &'a str,
        /// Whether a stream is asked for in the body too: on Vertex AI it is, on Bedrock the
        /// address alone says it and the member is refused, whatever its value.
        stream_member: bool,
    },
}

/// The body for a call: `args` as they are spelt, but with `model`, or the version, in front.
///
/// A `stream` member of `args` gives way to what the caller asked for.
///
/// # Errors
/// `NotAnObject` if `args` are something else.
pub(crate) fn request_body(
    args: &str,
    model: Model<'_>,
    mode: Mode,
) -> Result<String, NotAnObject> {
    request_body_without(&[], args, model, mode)
}

/// The same, with these members of `args` left out.
pub(crate) fn request_body_without(
    refused: &[&str],
    args: &str,
    model: Model<'_>,
    mode: Mode,
) -> Result<String, NotAnObject> {
    let (own_key, stream_member) = match model {
        Model::InBody(_) => ("model", true),
        Model::Nowhere { stream_member, .. } => ("anthropic_version", stream_member),
    };
    let mut body = String::with_capacity(args.len() + 80);
    match model {
        Model::InBody(name) => {
            body.push_str(r#"{"model":"#);
            body.push_str(&quoted(name));
        }
        Model::Nowhere { anthropic_version, .. } => {
            let mut theirs = None;
            each_member(args, |member| {
                if member.key == own_key && !member.is_null() {
                    theirs = Some(member.value);
                }
            })?;
            body.push_str(r#"{"anthropic_version":"#);
            match theirs {
                Some(value) => body.push_str(value),
                None => body.push_str(&quoted(anthropic_version)),
            }
        }
    }
    if mode == Mode::Stream && stream_member {
        body.push_str(r#","stream":true"#);
    }
    let keep = |member: &Member<'_>| match member.key.as_ref() {
        "model" => false,
        "stream" => {
            stream_member && mode == Mode::Whole && matches!(member.value, "false" | "null")
        }
        key => key != own_key && !refused.contains(&key),
    };
    json::push_members(&mut body, args, keep)?;
    Ok(body)
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is always valid JSON")
}

/// Reads the body of a 2xx answer.
///
/// What the counting of tokens counts has not been consumed: such an answer has no usage.
///
/// # Errors
/// What an error inside the answer means; `Transient` where the JSON ends too early; `Protocol`
/// for what is no JSON object.
pub(crate) fn parse(
    route: Route,
    headers: &HeaderMap,
    body: Vec<u8>,
    now: DateTime<Utc>,
) -> Result<Parsed, VendorError> {
    let text = json::text(headers, body)?;
    let (mut usage, mut failed) = (None, false);
    each_member(&text, |member| match member.key.as_ref() {
        "usage" if route != Route::CountTokens => usage = Some(member.value),
        "type" => failed = member.value == r#""error""#,
        _ => {}
    })
    .map_err(|_| json::no_object(headers, &text))?;
    let usage = usage.and_then(read_usage).map(|usage| wire::usage(&usage)).unwrap_or_default();
    if failed {
        let failure = Failure { status: None, headers, body: &text };
        return Err(VendorError { usage, ..classify::error(failure, now) });
    }
    Ok(Parsed { response: json::keep(text)?, usage, request_id: None })
}

/// A `usage` member as a document; `None` where it is none.
pub(super) fn read_usage(text: &str) -> Option<Value> {
    let text = (text.len() <= MAX_USAGE_BYTES).then_some(text)?;
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests;
