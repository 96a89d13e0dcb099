//! Turns arguments into the body of a request and a body of a response into a reply; pure.

use chrono::{DateTime, Utc};
use http::HeaderMap;
use inferq_common::{
    job::Route,
    members::{Member, NotAnObject, each_member},
    usage::Usage,
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

/// The body for a call: `args` as they are spelt, but with the job's model in front in place of
/// theirs.
///
/// A `stream` member of `args` gives way to what the caller asked for: a call that wants the answer
/// whole goes out without `stream: true` and its `stream_options`; one that wants a stream gets
/// `stream: true` and, for chat completions and completions, `stream_options` that ask for usage,
/// unless `args` have their own.
pub(crate) fn request_body(
    args: &str,
    model: &str,
    route: Route,
    mode: Mode,
) -> Result<String, NotAnObject> {
    let (mut streams, mut has_options) = (false, false);
    each_member(args, |member| match member.key.as_ref() {
        "stream" => streams |= !matches!(member.value, "false" | "null"),
        "stream_options" => has_options |= !member.is_null(),
        _ => {}
    })?;
    let mut body = String::with_capacity(args.len() + model.len() + 80);
    body.push_str(r#"{"model":"#);
    body.push_str(&serde_json::to_string(model).expect("a text is always valid JSON"));
    if mode == Mode::Stream {
        body.push_str(r#","stream":true"#);
        if !has_options && matches!(route, Route::ChatCompletions | Route::Completions) {
            body.push_str(r#","stream_options":{"include_usage":true}"#);
        }
    }
    let keep = |member: &Member<'_>| match (member.key.as_ref(), mode) {
        ("model", _) | ("stream", Mode::Stream) => false,
        ("stream", Mode::Whole) => matches!(member.value, "false" | "null"),
        ("stream_options", Mode::Stream) => has_options,
        ("stream_options", Mode::Whole) => !streams,
        _ => true,
    };
    json::push_members(&mut body, args, keep)?;
    Ok(body)
}

/// Reads the body of a 2xx answer.
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
    let found = Found::of(&text).map_err(|_| json::no_object(headers, &text))?;
    let usage = found.usage(route);
    if found.failed {
        let failure = Failure { status: None, headers, body: &text };
        return Err(VendorError { usage, ..classify::error(failure, now) });
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
            "choices" | "data" | "output" => result |= !is_empty(member.value),
            // The Responses API keeps what there was of the output beside the error.
            "status" => failed = member.value == r#""failed""#,
            // Older vLLM has its error at the top level.
            "object" => failed = member.value == r#""error""#,
            _ => {}
        })?;
        Ok(Self { usage, failed: failed || error && !result })
    }

    fn usage(&self, route: Route) -> Usage {
        read_usage(route, self.usage)
    }
}

/// The counts of a `usage` member; none where it is not one.
pub(crate) fn read_usage(route: Route, text: Option<&str>) -> Usage {
    let Some(text) = text.filter(|text| text.len() <= MAX_USAGE_BYTES) else {
        return Usage::default();
    };
    serde_json::from_str::<Value>(text).map(|usage| wire::usage(route, &usage)).unwrap_or_default()
}

fn is_empty(value: &str) -> bool {
    match value.strip_prefix('[') {
        Some(rest) => rest.trim_ascii_start().starts_with(']'),
        None => value == "null",
    }
}

#[cfg(test)]
mod tests;
