//! Predictions in a publisher's own format: Mistral's and AI21's, which is OpenAI's, Claude's, and
//! that of whatever serves at an endpoint; pure.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::HeaderMap;
use inferq_common::{job::Route, members::each_member, usage::Usage};

use super::claude;
use crate::{
    error::{VendorError, invalid},
    framing::{Frame, Framing},
    gemini::compat,
    json,
    remote::{Follow, Mode, Parsed},
};

/// What follows the model's name in the path.
pub(super) fn method(mode: Mode) -> &'static str {
    match mode {
        Mode::Whole => "rawPredict",
        Mode::Stream => "streamRawPredict",
    }
}

/// The body for a publisher with a format of its own. Mistral and others want their model's name in
/// the body too: `args` may say how; otherwise it is the one of the path, without the version after
/// the `@`. A model at an endpoint of its own needs none.
pub(super) fn request_body(
    args: &str,
    model: Option<&str>,
    mode: Mode,
) -> Result<String, VendorError> {
    let no_object = |error| invalid(format!("args: {error}"));
    let (mut own, mut streams) = (None, false);
    each_member(args, |member| match member.key.as_ref() {
        "model" => own = serde_json::from_str::<String>(member.value).ok(),
        "stream" => streams |= !matches!(member.value, "false" | "null"),
        _ => {}
    })
    .map_err(no_object)?;
    let name = own.or_else(|| Some(model?.split('@').next().unwrap_or_default().to_owned()));
    let mut body = String::with_capacity(args.len() + 80);
    body.push('{');
    if let Some(name) = &name {
        let name = serde_json::to_string(name).expect("a text is always valid JSON");
        body.extend([r#""model":"#, name.as_str()]);
    }
    if mode == Mode::Stream {
        body.push_str(if name.is_some() { r#","stream":true"# } else { r#""stream":true"# });
    }
    let is_bare = body.len() == 1;
    json::push_members(&mut body, args, |member| match member.key.as_ref() {
        "model" => false,
        "stream" => mode == Mode::Whole && !streams,
        _ => true,
    })
    .map_err(no_object)?;
    if is_bare && body.starts_with("{,") {
        // A comma stands in front of every member that was kept.
        body.remove(1);
    }
    Ok(body)
}

/// Reads the body of a 2xx answer.
///
/// # Errors
/// What an error inside the answer means; `Protocol` for what is no JSON object.
pub(super) fn parse(
    headers: &HeaderMap,
    body: Vec<u8>,
    advice: &str,
    now: DateTime<Utc>,
) -> Result<Parsed, VendorError> {
    if is_claudes(&body) {
        claude::parse(Route::Messages, headers, body, now)
    } else {
        compat::parse(Route::ChatCompletions, headers, body, advice, now)
    }
}

/// Who reads a streamed answer; `None` if it is no stream.
pub(super) fn follow(
    headers: &HeaderMap,
    advice: &'static str,
) -> Option<(Framing, Box<dyn Follow>)> {
    let (_, claudes) = claude::follow(headers, advice)?;
    let (framing, openais) = compat::follow(Route::ChatCompletions, headers, advice)?;
    Some((framing, Box::new(Raw { reader: openais, claudes: Some(claudes) })))
}

/// Reads a stream of either format; its first event tells which it is.
#[derive(Debug)]
struct Raw {
    reader: Box<dyn Follow>,
    /// Until the first event.
    claudes: Option<Box<dyn Follow>>,
}

impl Follow for Raw {
    fn take(&mut self, frame: Frame, now: DateTime<Utc>) -> Result<Option<Bytes>, VendorError> {
        if !frame.data.trim_ascii().is_empty()
            && let Some(claudes) = self.claudes.take()
            && is_claudes(&frame.data)
        {
            self.reader = claudes;
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

/// Whether an answer, or an event, is Claude's: all of them have a type.
fn is_claudes(body: &[u8]) -> bool {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let (mut has_type, mut has_choices) = (false, false);
    let read = each_member(text, |member| {
        has_type |= member.key == "type" && member.value.starts_with('"');
        has_choices |= member.key == "choices" || member.key == "object";
    });
    read.is_ok() && has_type && !has_choices
}

#[cfg(test)]
mod tests;
