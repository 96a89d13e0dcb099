//! Google's OpenAI-compatible endpoints: what they share with OpenAI's own, and errors in Google's
//! shape between what is another vendor's; pure.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::HeaderMap;
use inferq_common::{job::Route, members::each_member, usage::Usage};

use super::classify;
use crate::{
    error::{VendorError, invalid},
    framing::{Frame, Framing},
    json,
    openai::{self, OPENAI, Reader},
    remote::{Failure, Follow, Mode, Parsed},
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
    let asks_for_usage = openai::wire::has_usage_option(route);
    openai::convert::request_body(args, Some(model), mode, asks_for_usage)
        .map_err(|error| invalid(format!("args: {error}")))
}

/// Reads the body of a 2xx answer; `advice` as for [`classify::error`].
///
/// # Errors
/// What an error inside the answer means; `Protocol` for what is no JSON object.
pub(crate) fn parse(
    route: Route,
    headers: &HeaderMap,
    body: Vec<u8>,
    advice: &str,
    now: DateTime<Utc>,
) -> Result<Parsed, VendorError> {
    if is_googles_error(&body) {
        let body = String::from_utf8_lossy(&body);
        return Err(classify::error(Failure { status: None, headers, body: &body }, advice, now));
    }
    openai::convert::parse(&OPENAI, route, headers, body, now)
}

/// Who reads a streamed answer; `None` if it is no stream.
pub(crate) fn follow(
    route: Route,
    headers: &HeaderMap,
    advice: &'static str,
) -> Option<(Framing, Box<dyn Follow>)> {
    json::may_be_events(headers)
        .then(|| (Framing::Events, guarded(Box::new(Reader::new(&OPENAI, route)), advice)))
}

/// Reads what `reader` reads, and Google's error where one stands between it.
pub(crate) fn guarded(reader: Box<dyn Follow>, advice: &'static str) -> Box<dyn Follow> {
    Box::new(Guarded { reader, advice })
}

#[derive(Debug)]
struct Guarded {
    reader: Box<dyn Follow>,
    advice: &'static str,
}

impl Follow for Guarded {
    fn take(&mut self, frame: Frame, now: DateTime<Utc>) -> Result<Option<Bytes>, VendorError> {
        if is_googles_error(&frame.data) {
            let document = serde_json::from_slice(&frame.data).unwrap_or_default();
            let error = classify::in_stream(&document, self.advice, now);
            return Err(VendorError { usage: self.usage(), ..error });
        }
        self.reader.take(frame, now)
    }

    fn is_over(&self) -> bool {
        self.reader.is_over()
    }

    fn end(&mut self) -> Result<(), VendorError> {
        self.reader.end()
    }

    fn usage(&self) -> Usage {
        self.reader.usage()
    }

    fn request_id(&self) -> Option<String> {
        self.reader.request_id()
    }
}

/// Whether this is an error in Google's shape, perhaps in a list: all that Anthropic says has a
/// `type`, and what OpenAI's format says has `choices` or `data` if it is no error.
pub(crate) fn is_googles_error(body: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(body) else { return false };
    if text.trim_ascii_start().starts_with('[') {
        let list: Vec<&serde_json::value::RawValue> =
            serde_json::from_str(text).unwrap_or_default();
        return matches!(*list, [one] if is_googles_error(one.get().as_bytes()));
    }
    let (mut has_error, mut is_other) = (false, false);
    let read = each_member(text, |member| match member.key.as_ref() {
        "error" => has_error |= member.value.starts_with('{'),
        "type" | "object" | "choices" | "data" => is_other = true,
        _ => {}
    });
    read.is_ok() && has_error && !is_other
}

#[cfg(test)]
mod tests {
    use inferq_common::error::ErrorClass;

    use super::*;

    const ERROR: &str = r#"{"error":{"code":429,"message":"no","status":"RESOURCE_EXHAUSTED"}}"#;

    #[test]
    fn googles_errors_are_told_from_others() {
        for (body, expected) in [
            (ERROR, true),
            (r#"[{"error":{}}]"#, true),
            (r#"{"error":null,"choices":[]}"#, false),
            (r#"{"type":"error","error":{}}"#, false),
            (r#"{"error":{},"choices":[{}]}"#, false),
            ("[[[[", false),
            ("[]", false),
            ("{}", false),
        ] {
            assert_eq!(is_googles_error(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn an_error_in_a_200_or_in_a_stream_has_its_class() {
        let noon = "2026-11-20T12:00:00Z".parse().unwrap();
        let (route, headers) = (Route::ChatCompletions, HeaderMap::new());
        for body in [ERROR.to_owned(), format!("[{ERROR}]")] {
            let error = parse(route, &headers, body.clone().into(), "check it", noon).unwrap_err();
            assert_eq!(error.class(), ErrorClass::RateLimited);
            let (_, mut reader) = follow(route, &headers, "check it").unwrap();
            let error = reader.take(Frame::from(Bytes::from(body)), noon).unwrap_err();
            assert_eq!(error.class(), ErrorClass::RateLimited);
        }
    }
}
