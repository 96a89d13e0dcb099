//! Turns arguments into the body of a request and a body of a response into a reply; pure.

use chrono::{DateTime, Utc};
use http::{HeaderMap, header::CONTENT_TYPE};
use inferq_common::{
    error::ErrorClass,
    job::{Json, Route},
    members::{Member, NotAnObject, each_member},
    usage::Usage,
};
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{classify::Failure, wire};
use crate::error::{VendorError, excerpt, shorten};

/// Deeper documents are refused: what clients, and Postgres, can read has an end.
const MAX_DEPTH: usize = 128;
/// A `usage` object has a few hundred bytes; a larger one is not read.
const MAX_USAGE_BYTES: usize = 16 * 1024;

/// Whether the answer is wanted whole or in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Whole,
    Stream,
}

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
    push_members(&mut body, args, keep)?;
    Ok(body)
}

/// Adds the members of `object` that are to be kept, byte for byte and each with a comma in front,
/// and closes the object.
fn push_members(
    body: &mut String,
    object: &str,
    keep: impl Fn(&Member<'_>) -> bool,
) -> Result<(), NotAnObject> {
    let offset = |part: &str| part.as_ptr().addr() - object.as_ptr().addr();
    // Where the text after the previous member begins, and whether that member was kept.
    let mut previous: Option<(usize, bool)> = None;
    each_member(object, |member| {
        let start = offset(member.raw_key);
        let end = offset(member.value) + member.value.len();
        let kept = keep(&member);
        let gap = previous.map_or(0, |(end, _)| end)..start;
        // Between two members stand a comma and white space, before the first one the brace.
        let (before, after) = object[gap].split_once([',', '{']).unwrap_or_default();
        if previous.is_some_and(|(_, kept)| kept) {
            body.push_str(before);
        }
        if kept {
            body.push(',');
            body.push_str(after);
            body.push_str(&object[start..end]);
        }
        previous = Some((end, kept));
    })?;
    match previous {
        Some((end, true)) => body.push_str(object[end..].trim_end()),
        _ => body.push('}'),
    }
    Ok(())
}

/// The result of a 2xx answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Parsed {
    pub response: Json,
    pub usage: Usage,
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
    let text = String::from_utf8(body).map_err(|error| {
        not_json(headers, &String::from_utf8_lossy(error.as_bytes()), "it is not UTF-8")
    })?;
    let found = Found::of(&text).map_err(|_| no_object(headers, &text))?;
    if depth(&text) > MAX_DEPTH {
        return Err(not_json(headers, &text, "it is nested too deeply"));
    }
    let usage = found.usage(route);
    if found.failed {
        let failure = Failure { status: None, headers, body: &text };
        return Err(VendorError { usage, ..failure.into_error(now) });
    }
    let response = Json::parse(text)
        .map_err(|error| VendorError::new(ErrorClass::Internal, error.to_string()))?;
    Ok(Parsed { response, usage })
}

/// Says what is wrong with an answer that is not one JSON object.
fn no_object(headers: &HeaderMap, text: &str) -> VendorError {
    if text.trim_ascii().is_empty() {
        let message = format!("the vendor answered with nothing{}", typed(headers));
        return VendorError::new(ErrorClass::Protocol, message);
    }
    match serde_json::from_str::<IgnoredAny>(text) {
        Err(error) if error.is_eof() && text.trim_ascii_start().starts_with(['{', '[']) => {
            let message = "the vendor's answer ends in the middle of its JSON";
            VendorError::new(ErrorClass::Transient, message)
        }
        Err(_) => not_json(headers, text, "it is not JSON"),
        Ok(_) => not_json(headers, text, "it is not a JSON object"),
    }
}

/// Whether an answer can be a stream of events. One that names no type is given the chance.
pub(crate) fn may_be_events(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_none_or(|value| value.as_bytes().to_ascii_lowercase().starts_with(b"text/event-stream"))
}

/// The error of a 2xx answer that came whole where a stream was asked for.
pub(crate) fn whole_for_stream(
    route: Route,
    headers: &HeaderMap,
    body: Vec<u8>,
    now: DateTime<Utc>,
) -> VendorError {
    match parse(route, headers, body, now) {
        Err(error) => error,
        Ok(Parsed { response, usage }) => {
            let why = "it is whole, not a stream";
            VendorError { usage, ..not_json(headers, response.as_str(), why) }
        }
    }
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

/// How deep the objects and lists of a JSON document are nested.
pub(crate) fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => skip_text(&mut bytes),
            _ => {}
        }
    }
    deepest
}

/// Moves behind the quote that ends a text.
fn skip_text(bytes: &mut std::str::Bytes<'_>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => _ = bytes.next(),
            _ => {}
        }
    }
}

/// ` (content type text/html)`, or nothing where the type is not told.
fn typed(headers: &HeaderMap) -> String {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.map_or_else(String::new, |value| format!(" (content type {})", excerpt(value)))
}

fn not_json(headers: &HeaderMap, body: &str, why: &str) -> VendorError {
    let typed = typed(headers);
    let message = format!("cannot use the vendor's answer{typed}: {why}: {}", shorten(body, 200));
    VendorError::new(ErrorClass::Protocol, message)
}

#[cfg(test)]
mod tests;
