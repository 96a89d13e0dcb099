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
    anthropic::{self, convert::Model},
    error::VendorError,
    json,
    openai::{self, OPENAI},
    remote::{Failure, Mode, Parsed},
};

/// A `usage` object has a few hundred bytes; a larger one is not read.
const MAX_USAGE_BYTES: usize = 16 * 1024;
/// What Bedrock wants in the body of a Claude model's request; no other value has been needed since.
const ANTHROPIC_VERSION: &str = "bedrock-2023-05-31";

/// The body for a call: `args` as they are spelt.
///
/// The model stands in the path, hence `model` and `modelId` are taken out; so is `stream`, which is
/// another path, wherever the model's vendor does not know it or the answer is wanted whole. A Claude
/// model's request without `anthropic_version` gets it. The endpoints in OpenAI's format get the
/// body that OpenAI would get.
///
/// # Errors
/// `NotAnObject`.
pub(super) fn request_body(
    args: &str,
    id: &str,
    route: Route,
    mode: Mode,
) -> Result<String, NotAnObject> {
    if wire::is_openai(route) {
        let asks = openai::wire::has_usage_option(route);
        return openai::convert::request_body(args, Some(id), mode, asks);
    }
    let asked = Asked::of(args)?;
    let is_claude = id.contains("anthropic.") || asked.has_version;
    if route == Route::Invoke && is_claude && !asked.has_version && asked.has_messages {
        let model = Model::Nowhere { anthropic_version: ANTHROPIC_VERSION, stream_member: false };
        return anthropic::convert::request_body_without(&["modelId"], args, model, mode);
    }
    let keep = |member: &Member<'_>| match member.key.as_ref() {
        "stream" if route == Route::Invoke && !is_claude => {
            mode == Mode::Stream || !is_on(member.value)
        }
        "stream_options" if route == Route::Invoke && !is_claude => {
            mode == Mode::Stream || !asked.streams
        }
        "model" | "modelId" | "stream" => false,
        _ => true,
    };
    if !asked.has_own {
        return Ok(args.to_owned());
    }
    let mut body = String::with_capacity(args.len());
    body.push('{');
    json::push_members(&mut body, args, keep)?;
    if body.as_bytes().get(1) == Some(&b',') {
        body.remove(1);
    }
    Ok(body)
}

/// What of the arguments is the adapter's to change.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one fact about the arguments")]
struct Asked {
    /// A member that may have to be taken out.
    has_own: bool,
    has_messages: bool,
    has_version: bool,
    streams: bool,
}

impl Asked {
    fn of(args: &str) -> Result<Self, NotAnObject> {
        let mut asked = Self::default();
        each_member(args, |member| match member.key.as_ref() {
            "model" | "modelId" | "stream_options" => asked.has_own = true,
            "stream" => {
                asked.has_own = true;
                asked.streams |= is_on(member.value);
            }
            "messages" => asked.has_messages = true,
            "anthropic_version" => asked.has_version = true,
            _ => {}
        })?;
        Ok(asked)
    }
}

fn is_on(stream: &str) -> bool {
    !matches!(stream, "false" | "null")
}

/// Reads the body of a 2xx answer.
///
/// # Errors
/// What an error inside the answer means; `Transient` where the JSON ends too early; `Protocol` for
/// what is no JSON object. A model's own body may be a list as well.
pub(super) fn parse(
    route: Route,
    headers: &HeaderMap,
    body: Vec<u8>,
    now: DateTime<Utc>,
) -> Result<Parsed, VendorError> {
    if wire::is_openai(route) {
        return openai::convert::parse(&OPENAI, route, headers, body, now);
    }
    let text = json::text(headers, body)?;
    let found = match Found::of(&text) {
        Ok(found) => found,
        Err(NotAnObject) if route == Route::Invoke && text.trim_start().starts_with('[') => {
            let usage = wire::header_usage(headers);
            let unread = json::no_object(headers, &text);
            let response = json::keep(text).map_err(|_| unread)?;
            return Ok(Parsed { response, usage, request_id: None });
        }
        Err(NotAnObject) => return Err(json::no_object(headers, &text)),
    };
    let usage = found.usage(route, headers);
    if found.failed() {
        let failure = Failure { status: None, headers, body: &text };
        return Err(VendorError { usage, ..classify::error(failure, now) });
    }
    Ok(Parsed { response: json::keep(text)?, usage, request_id: None })
}

/// What matters of the top level of an answer.
#[derive(Default)]
struct Found<'a> {
    usage: Option<&'a str>,
    /// Of Titan's embeddings, which have no `usage`.
    input_tokens: Option<u64>,
    /// It names the kind of an exception, or says of itself that it is an error.
    is_error: bool,
    has_error: bool,
    has_message: bool,
    n_members: usize,
}

impl<'a> Found<'a> {
    fn of(text: &'a str) -> Result<Self, NotAnObject> {
        let mut found = Self::default();
        each_member(text, |member| {
            found.n_members += 1;
            match member.key.as_ref() {
                "usage" => found.usage = Some(member.value),
                "inputTextTokenCount" => found.input_tokens = member.value.parse().ok(),
                "__type" => found.is_error = true,
                "type" => found.is_error |= member.value == r#""error""#,
                "error" => found.has_error = member.value.starts_with('{'),
                "message" | "Message" => found.has_message = member.value.starts_with('"'),
                _ => {}
            }
        })?;
        Ok(found)
    }

    /// An error has no result beside it.
    fn failed(&self) -> bool {
        self.is_error || self.n_members == 1 && (self.has_error || self.has_message)
    }

    fn usage(&self, route: Route, headers: &HeaderMap) -> Usage {
        let told = self.usage.filter(|text| text.len() <= MAX_USAGE_BYTES);
        let told: Value = told.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        if route == Route::Converse {
            return wire::usage(&told);
        }
        if route == Route::CountTokens {
            // It consumes nothing: the count is the answer.
            return Usage::default();
        }
        if told.get("input_tokens").is_some() {
            return wire::anthropic_usage(&told);
        }
        let by_headers = wire::header_usage(headers);
        if !by_headers.is_empty() {
            return by_headers;
        }
        if told.get("prompt_tokens").is_some() {
            return openai::wire::usage(Route::ChatCompletions, &told);
        }
        let of_amazon = wire::usage(&told);
        Usage { input_tokens: of_amazon.input_tokens.or(self.input_tokens), ..of_amazon }
    }
}

#[cfg(test)]
mod tests;
