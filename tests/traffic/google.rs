//! The Gemini API and Vertex AI.

use inferq_common::{error::ErrorClass, job::Route, usage::Usage};
use serde_json::{Value, value::RawValue};

use super::{
    Body, Expected, Failing, Failure, KEY, Plan, Recording, Success, Target, claudes_usage,
    document, excerpt, settings,
};

const GEMINI_FAILURES: &[Failing] = &[
    ("041", ErrorClass::Auth, None),
    ("042", ErrorClass::InvalidRequest, None),
    ("043", ErrorClass::Auth, None),
    ("044", ErrorClass::Auth, None),
    ("045", ErrorClass::InvalidRequest, None),
    ("046", ErrorClass::Auth, None),
    ("047", ErrorClass::NotFound, None),
    ("048", ErrorClass::NotFound, None),
    ("049", ErrorClass::NotFound, None),
    ("050", ErrorClass::RateLimited, Some(48)),
    // A quota per day is among those it names: the three seconds beside it are for another one.
    ("051", ErrorClass::QuotaExhausted, None),
    ("052", ErrorClass::RateLimited, None),
    ("053", ErrorClass::RateLimited, None),
    ("054", ErrorClass::Transient, None),
    ("055", ErrorClass::Transient, None),
    ("056", ErrorClass::Overloaded, None),
];

const VERTEX_FAILURES: &[Failing] = &[
    ("032", ErrorClass::ContextLength, None),
    ("033", ErrorClass::InvalidRequest, None),
    ("034", ErrorClass::InvalidRequest, None),
    ("035", ErrorClass::Auth, None),
    ("036", ErrorClass::Auth, None),
    ("037", ErrorClass::Auth, None),
    ("038", ErrorClass::NotFound, None),
    ("039", ErrorClass::NotFound, None),
    ("040", ErrorClass::NotFound, None),
    ("041", ErrorClass::RateLimited, None),
];

pub(super) fn gemini(recording: &Recording) -> Result<Plan, &'static str> {
    plan(recording, GEMINI_FAILURES)
}

pub(super) fn vertex(recording: &Recording) -> Result<Plan, &'static str> {
    plan(recording, VERTEX_FAILURES)
}

/// What the path of a recording says.
struct At<'a> {
    version: &'a str,
    /// Project and location.
    place: Option<(&'a str, &'a str)>,
    publisher: Option<&'a str>,
    /// As it is spelt in the path; `None` where the body names it.
    model: Option<&'a str>,
    method: &'a str,
}

impl<'a> At<'a> {
    fn of(path: &'a str) -> Self {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let after = |name: &str| {
            let at = parts.iter().position(|part| *part == name)?;
            parts.get(at + 1).copied()
        };
        let named = after("models").and_then(|last| last.split_once(':'));
        Self {
            version: parts[0],
            place: after("projects").zip(after("locations")),
            publisher: after("publishers"),
            model: named.map(|(model, _)| model),
            method: match (named, parts.last()) {
                (Some((_, method)), _) => method,
                (None, Some(&"interactions")) => "interactions",
                (None, _) => "chat",
            },
        }
    }

    fn model(&self, sent: &Value) -> Option<String> {
        match (self.model, self.publisher) {
            (None, _) => Some(sent["model"].as_str()?.to_owned()),
            (Some(model), None | Some("google")) => Some(model.replace("%20", " ")),
            (Some(model), Some(publisher)) => {
                Some(format!("publishers/{publisher}/models/{model}"))
            }
        }
    }
}

/// The freedoms: streams are always asked for as events (`alt=sse`), other queries are left out, and
/// so is a `model` in the body of a native endpoint, since it stands in the path.
fn plan(recording: &Recording, failures: &[Failing]) -> Result<Plan, &'static str> {
    if recording.request.method != "POST" {
        return Err("asks for models, operations or batches");
    }
    let path = recording.request.url.path();
    let at = At::of(path);
    let args = recording.args().ok_or("no body")?;
    let sent = document(args.as_str());
    let streams = at.method.starts_with("stream") || at.model.is_none() && sent["stream"] == true;
    // A project is called with a token, which nothing here can issue: the address alone is enough
    // for a server that stands in.
    let key = at.place.is_none().then_some(KEY);
    let query = if at.method == "streamGenerateContent" { "?alt=sse" } else { "" };
    let texts = if streams { parts(recording) } else { recording.texts(false) };
    Ok(Plan {
        settings: settings([
            ("api_key", key),
            ("api_version", Some(at.version)),
            ("project", at.place.map(|(project, _)| project)),
            ("location", at.place.map(|(_, location)| location)),
        ]),
        prefix: String::new(),
        model: at.model(&sent).ok_or("no model")?,
        args,
        // Content is counted as it is generated from: the route alone tells the two apart.
        route: (at.method == "countTokens").then_some(Route::CountTokens),
        streams,
        request: Expected {
            target: Target::Is(format!("{path}{query}")),
            headers: vec![("x-goog-api-key", key.map(str::to_owned)), ("authorization", None)],
            body: Body::Json(body(sent, at.model.is_some())),
        },
        request_id: request_id(recording, &texts),
        answer: match recording.failure(failures) {
            Some(failure) => Err(Failure { said: said(recording.body()), ..failure }),
            None => Ok(Success { usage: usage(&at, &texts), texts }),
        },
    })
}

fn body(mut sent: Value, is_model_in_path: bool) -> Value {
    if is_model_in_path {
        sent.as_object_mut().expect("a JSON object").remove("model");
    }
    sent
}

/// The parts of a stream: of events what stands after `data: `, of a list its elements.
fn parts(recording: &Recording) -> Vec<String> {
    if recording.body().starts_with('[') {
        let elements: Vec<&RawValue> = serde_json::from_str(recording.body()).expect("a JSON list");
        return elements.iter().map(|element| element.get().to_owned()).collect();
    }
    recording.events()
}

fn said(body: &str) -> String {
    let document = document(body);
    let document = document.get(0).unwrap_or(&document);
    excerpt(document.pointer("/error/message").and_then(Value::as_str).unwrap_or_default())
}

/// Failures have none: their bodies are of another shape.
fn request_id(recording: &Recording, texts: &[String]) -> Option<String> {
    let in_header = recording.header("request-id");
    in_header.or_else(|| {
        let last = document(texts.last()?);
        let interaction = last.get("interaction").unwrap_or(&last);
        let id = if interaction["object"] == "interaction" {
            &interaction["id"]
        } else {
            &last["responseId"]
        };
        id.as_str().map(str::to_owned)
    })
}

/// The usage that these documents tell, read without the adapter's help.
fn usage(at: &At<'_>, texts: &[String]) -> Usage {
    let documents: Vec<Value> = texts.iter().map(|text| document(text)).collect();
    match (at.publisher, at.method) {
        (Some("anthropic"), _) => claudes_usage(texts),
        (_, "interactions") => interactions_usage(&documents),
        (_, "predict") => {
            let predictions = documents[0]["predictions"].as_array().expect("a list");
            let count = |it: &Value| it.pointer("/embeddings/statistics/token_count")?.as_u64();
            let input = predictions.iter().filter_map(count).sum();
            Usage { input_tokens: Some(input), ..Usage::default() }
        }
        _ => googles_usage(&documents),
    }
}

fn googles_usage(documents: &[Value]) -> Usage {
    let usage = documents.iter().rev().find_map(|it| it.get("usageMetadata"));
    let Some(usage) = usage else { return Usage::default() };
    let sum = |names: [&str; 2]| {
        let counts: Vec<u64> = names.iter().filter_map(|name| usage[name].as_u64()).collect();
        (!counts.is_empty()).then(|| counts.iter().sum())
    };
    Usage {
        input_tokens: sum(["promptTokenCount", "toolUsePromptTokenCount"]),
        cached_input_tokens: usage["cachedContentTokenCount"].as_u64(),
        cache_write_tokens: None,
        output_tokens: sum(["candidatesTokenCount", "thoughtsTokenCount"]),
        reasoning_tokens: usage["thoughtsTokenCount"].as_u64(),
    }
}

fn interactions_usage(documents: &[Value]) -> Usage {
    let last = documents.last().expect("an answer");
    let usage = &last.get("interaction").unwrap_or(last)["usage"];
    let count = |name: &str| usage[name].as_u64();
    let sum = |one: &str, other: &str| Some(count(one)? + count(other)?);
    Usage {
        input_tokens: sum("total_input_tokens", "total_tool_use_tokens"),
        cached_input_tokens: count("total_cached_tokens"),
        cache_write_tokens: None,
        output_tokens: sum("total_output_tokens", "total_thought_tokens"),
        reasoning_tokens: count("total_thought_tokens"),
    }
}
