//! xAI and Fireworks, which speak OpenAI's format.

use inferq_common::{error::ErrorClass, usage::Usage};
use serde_json::{Value, json};

use super::{
    Body, Expected, Failing, Failure, KEY, Plan, Recording, Success, Target, bearer, document,
    excerpt, openai_usage, settings,
};

const XAI_FAILURES: &[Failing] = &[
    ("033", ErrorClass::InvalidRequest, None),
    ("034", ErrorClass::Auth, None),
    ("035", ErrorClass::NotFound, None),
    ("036", ErrorClass::Overloaded, None),
    ("037", ErrorClass::RateLimited, None),
    ("038", ErrorClass::Overloaded, None),
];

const FIREWORKS_FAILURES: &[Failing] = &[
    ("011", ErrorClass::InvalidRequest, None),
    ("012", ErrorClass::Auth, None),
    ("013", ErrorClass::NotFound, None),
    ("014", ErrorClass::RateLimited, None),
    ("015", ErrorClass::Overloaded, None),
];

/// What ends the path of a call for inference.
const ENDPOINTS: &[&str] = &["/chat/completions", "/completions", "/embeddings", "/responses"];

/// A freedom: a stream of chat asks for its usage where the recorded one did not. xAI's output is
/// what the total leaves beside the prompt.
pub(super) fn xai(recording: &Recording) -> Result<Plan, &'static str> {
    let mut plan = plan(recording, XAI_FAILURES)?;
    if let Body::Json(body) = &mut plan.request.body
        && plan.streams
        && body.get("messages").is_some()
    {
        let members = body.as_object_mut().expect("a JSON object");
        members.entry("stream_options").or_insert(json!({"include_usage": true}));
    }
    if let Ok(Success { texts, usage }) = &mut plan.answer {
        *usage = Usage { output_tokens: rest_of_total(texts), ..*usage };
    }
    Ok(plan)
}

pub(super) fn fireworks(recording: &Recording) -> Result<Plan, &'static str> {
    plan(recording, FIREWORKS_FAILURES)
}

fn plan(recording: &Recording, failures: &[Failing]) -> Result<Plan, &'static str> {
    let path = recording.request.url.path();
    let end = ENDPOINTS.iter().find(|end| path.ends_with(**end));
    let end = end.ok_or("a batch or a list, no call for inference")?;
    let args = recording.args().ok_or("no body")?;
    let sent = document(args.as_str());
    let streams = sent["stream"] == true;
    let texts = recording.texts(streams);
    Ok(Plan {
        settings: settings([("api_key", Some(KEY))]),
        prefix: path[..path.len() - end.len()].to_owned(),
        model: sent["model"].as_str().unwrap_or("some-model").to_owned(),
        args,
        route: None,
        streams,
        request: Expected {
            target: Target::Is(path.to_owned()),
            headers: bearer(),
            body: Body::Json(sent),
        },
        request_id: recording.header("x-request-id"),
        answer: match recording.failure(failures) {
            Some(failure) => Err(Failure { said: said(recording.body()), ..failure }),
            None => Ok(Success { usage: openai_usage(&texts), texts }),
        },
    })
}

/// What an error in one of OpenAI's shapes, or in none, says.
pub(super) fn said(body: &str) -> String {
    let document = document(body);
    let message = document.pointer("/error/message").or(document.get("error"));
    excerpt(message.and_then(Value::as_str).unwrap_or(body))
}

fn rest_of_total(texts: &[String]) -> Option<u64> {
    let usage_of = |text: &String| {
        let document = document(text);
        let usage = document.get("response").unwrap_or(&document)["usage"].clone();
        (!usage.is_null()).then_some(usage)
    };
    let usage = texts.iter().rev().find_map(usage_of)?;
    let input = usage.get("input_tokens").or(usage.get("prompt_tokens"))?.as_u64()?;
    usage["total_tokens"].as_u64()?.checked_sub(input)
}
