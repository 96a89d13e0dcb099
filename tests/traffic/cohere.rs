//! Cohere.

use inferq_common::{error::ErrorClass, usage::Usage};
use serde_json::Value;

use super::{
    Body, Expected, Failing, Failure, KEY, Plan, Recording, Success, Target, bearer, document,
    no_messages, settings,
};

const FAILURES: &[Failing] = &[
    // A stream whose last event says that the model gave up.
    ("018", ErrorClass::Transient, None),
    ("033", ErrorClass::ContextLength, None),
    ("034", ErrorClass::Auth, None),
    ("035", ErrorClass::Auth, None),
    ("036", ErrorClass::NotFound, None),
    ("037", ErrorClass::NotFound, None),
    ("038", ErrorClass::NotFound, None),
    ("039", ErrorClass::Transient, None),
    ("040", ErrorClass::RateLimited, None),
    ("041", ErrorClass::QuotaExhausted, None),
];

const PATHS: &[&str] = &["/v2/chat", "/v2/embed", "/v2/rerank"];

pub(super) fn plan(recording: &Recording) -> Result<Plan, &'static str> {
    let path = recording.request.url.path();
    let is_call = PATHS.contains(&path);
    if !is_call && !recording.has_failed() {
        let is_list = path.contains("/models");
        return Err(if is_list {
            "a list of models, no call for inference"
        } else {
            "version 1, which is not served"
        });
    }
    let args = if is_call { recording.args().ok_or("no body")? } else { no_messages() };
    let sent = document(args.as_str());
    let streams = sent["stream"] == true;
    let texts = recording.texts(recording.is_event_stream());
    let id = texts.iter().find_map(|text| Some(document(text)["id"].as_str()?.to_owned()));
    let mut headers = bearer();
    headers.push(("x-api-key", None));
    Ok(Plan {
        settings: settings([("api_key", Some(KEY))]),
        prefix: String::new(),
        model: sent["model"].as_str().ok_or("no model")?.to_owned(),
        args,
        route: None,
        streams,
        request: Expected {
            target: if is_call { Target::Is(path.to_owned()) } else { Target::Unknown },
            headers,
            body: Body::Json(sent),
        },
        request_id: id.or_else(|| recording.header("x-debug-trace-id")),
        answer: match recording.failure(FAILURES) {
            Some(failure) => {
                let last = texts.last().map_or("", String::as_str);
                Err(Failure { said: said(last), ..failure })
            }
            None => Ok(Success { usage: usage(&texts), texts }),
        },
    })
}

fn said(answer: &str) -> String {
    let document = document(answer);
    let message = ["/message", "/delta/error"].iter().find_map(|at| document.pointer(at)?.as_str());
    message.unwrap_or(answer).chars().take(300).collect()
}

fn usage(texts: &[String]) -> Usage {
    let mut all = serde_json::Map::new();
    for text in texts {
        let document = document(text);
        let places = ["/usage", "/delta/usage", "/meta"];
        let found = places.iter().find_map(|place| document.pointer(place)?.as_object().cloned());
        all.extend(found.unwrap_or_default().into_iter().filter(|(_, value)| !value.is_null()));
    }
    let all = Value::Object(all);
    let count = |pointer: &str| all.pointer(pointer).and_then(Value::as_u64);
    let side = |name: &str| {
        count(&format!("/tokens/{name}")).or_else(|| count(&format!("/billed_units/{name}")))
    };
    Usage {
        input_tokens: side("input_tokens"),
        cached_input_tokens: count("/cached_tokens"),
        output_tokens: side("output_tokens"),
        ..Usage::default()
    }
}
