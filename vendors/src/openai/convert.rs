//! Turns arguments into the body of a request and a body of a response into a reply; pure.

use super::{Flavor, classify};
use crate::{
    error::VendorError,
    json,
    remote::{Failure, Mode, Parsed},
};
use chrono::{DateTime, Utc};
use http::HeaderMap;
use inferq_common::{
    job::Route,
    members::{Member, NotAnObject, each_member},
    usage::Usage,
};

/// A `usage` object has a few hundred bytes; a larger one is not read.
const MAX_USAGE_BYTES: usize = 16 * 1024;

/// The body for a call: `args` as they are spelt, but with the job's model in front in place of
/// theirs; with none at all where `model` is `None`, because it stands in the path.
///
/// A `stream` member of `args` gives way to what the caller asked for: a call that wants the answer
/// whole goes out without `stream: true` and its `stream_options`; one that wants a stream gets
/// `stream: true` and, where it is to ask for usage, `stream_options` to that end, unless `args`
/// have their own.
pub(crate) fn request_body(
    args: &str,
    model: Option<&str>,
    mode: Mode,
    asks_for_usage: bool,
) -> Result<String, NotAnObject> {
    let (mut streams, mut has_options) = (false, false);
    each_member(args, |member| match member.key.as_ref() {
        "stream" => streams |= !matches!(member.value, "false" | "null"),
        "stream_options" => has_options |= !member.is_null(),
        _ => {}
    })?;
    let keep = |member: &Member<'_>| match (member.key.as_ref(), mode) {
        ("model", _) | ("stream", Mode::Stream) => false,
        ("stream", Mode::Whole) => matches!(member.value, "false" | "null"),
        ("stream_options", Mode::Stream) => has_options,
        ("stream_options", Mode::Whole) => !streams,
        _ => true,
    };
    let mut own = Vec::new();
    if let Some(model) = model {
        let model = serde_json::to_string(model).expect("a text is always valid JSON");
        own.push(format!(r#""model":{model}"#));
    }
    if mode == Mode::Stream {
        own.push(r#""stream":true"#.to_owned());
        if !has_options && asks_for_usage {
            own.push(r#""stream_options":{"include_usage":true}"#.to_owned());
        }
    }
    if own.is_empty() {
        return json::pick_members(args, keep);
    }
    let own = own.join(",");
    let mut body = String::with_capacity(args.len() + own.len() + 2);
    body.push('{');
    body.push_str(&own);
    json::push_members(&mut body, args, keep)?;
    Ok(body)
}

/// Reads the body of a 2xx answer.
///
/// # Errors
/// What an error inside the answer means; `Transient` where the JSON ends too early; `Protocol`
/// for what is no JSON object.
pub(crate) fn parse(
    flavor: &Flavor,
    route: Route,
    headers: &HeaderMap,
    body: Vec<u8>,
    now: DateTime<Utc>,
) -> Result<Parsed, VendorError> {
    let text = json::text(headers, body)?;
    let found = Found::of(&text).map_err(|_| json::no_object(headers, &text))?;
    let usage = read_usage(flavor, route, found.usage);
    if found.failed {
        let failure = Failure { status: None, headers, body: &text };
        return Err(VendorError { usage, ..classify::error(flavor, failure, now) });
    }
    Ok(Parsed { response: json::keep(text)?, usage, request_id: None })
}

/// What matters of the top level of an answer.
struct Found<'a> {
    usage: Option<&'a str>,
    /// It holds an error, and no result beside it.
    failed: bool,
}

impl<'a> Found<'a> {
    fn of(text: &'a str) -> Result<Self, NotAnObject> {
        let (mut usage, mut error, mut result, mut failed) = (None, false, false, false);
        each_member(text, |member| match member.key.as_ref() {
            "usage" => usage = Some(member.value),
            "error" => error = !matches!(member.value, "null" | "false" | "{}" | "\"\""),
            "choices" | "data" | "output" | "results" => result |= !is_empty(member.value),
            // The Responses API keeps what there was of the output beside the error.
            "status" => failed = member.value == r#""failed""#,
            // Older vLLM has its error at the top level.
            "object" => failed = member.value == r#""error""#,
            _ => {}
        })?;
        Ok(Self { usage, failed: failed || error && !result })
    }
}

/// The counts of a `usage` member; none where it is not one.
pub(super) fn read_usage(flavor: &Flavor, route: Route, text: Option<&str>) -> Usage {
    let Some(text) = text.filter(|text| text.len() <= MAX_USAGE_BYTES) else {
        return Usage::default();
    };
    serde_json::from_str(text).map(|usage| (flavor.usage)(route, &usage)).unwrap_or_default()
}

fn is_empty(value: &str) -> bool {
    match value.strip_prefix('[') {
        Some(rest) => rest.trim_ascii_start().starts_with(']'),
        None => value == "null",
    }
}

#[cfg(test)]
mod tests;
