//! Replays real exchanges with the Gemini API and with Vertex AI, where a folder of them is at hand:
//! `INFERQ_VENDOR_TRAFFIC=folder cargo test -p inferq-vendors --test recorded_google -- --nocapture`.
//!
//! The form of the files is told in `recorded.rs`. What goes out may differ from the recording in
//! this: streams are always asked for as events (`alt=sse`), other queries are left out, and so is
//! a `model` in the body of a native endpoint, since it stands in the path.

#[expect(dead_code, reason = "the adapter in there is another vendor's")]
mod support;

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, sync::Arc, time::Duration};

use futures::StreamExt as _;
use inferq_common::{
    clock::ManualClock,
    config::VendorConfig,
    error::ErrorClass,
    job::{Json, Route},
    usage::Usage,
};
use inferq_vendors::{Adapter, Call, Chunk, VendorError, gemini, remote::http::Clients, vertex_ai};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use self::support::{Request, Server, call, soon};

#[derive(Deserialize)]
struct Recording {
    request: RecordedRequest,
    response: RecordedResponse,
}

#[derive(Deserialize)]
struct RecordedRequest {
    method: String,
    url: url::Url,
    body: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct RecordedResponse {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Option<String>,
    chunk_sizes: Option<Vec<usize>>,
}

/// The class each recorded failure must get, by the file's name up to its number.
const CLASSES: &[(&str, ErrorClass)] = &[
    ("gemini/041", ErrorClass::Auth),
    ("gemini/042", ErrorClass::InvalidRequest),
    ("gemini/043", ErrorClass::Auth),
    ("gemini/044", ErrorClass::Auth),
    ("gemini/045", ErrorClass::InvalidRequest),
    ("gemini/046", ErrorClass::Auth),
    ("gemini/047", ErrorClass::NotFound),
    ("gemini/048", ErrorClass::NotFound),
    ("gemini/049", ErrorClass::NotFound),
    ("gemini/050", ErrorClass::RateLimited),
    // A quota per day is among those it names: the three seconds beside it are for another one.
    ("gemini/051", ErrorClass::QuotaExhausted),
    ("gemini/052", ErrorClass::RateLimited),
    ("gemini/053", ErrorClass::RateLimited),
    ("gemini/054", ErrorClass::Transient),
    ("gemini/055", ErrorClass::Transient),
    ("gemini/056", ErrorClass::Overloaded),
    ("vertex_ai/032", ErrorClass::ContextLength),
    ("vertex_ai/033", ErrorClass::InvalidRequest),
    ("vertex_ai/034", ErrorClass::InvalidRequest),
    ("vertex_ai/035", ErrorClass::Auth),
    ("vertex_ai/036", ErrorClass::Auth),
    ("vertex_ai/037", ErrorClass::Auth),
    ("vertex_ai/038", ErrorClass::NotFound),
    ("vertex_ai/039", ErrorClass::NotFound),
    ("vertex_ai/040", ErrorClass::NotFound),
    ("vertex_ai/041", ErrorClass::RateLimited),
];

/// The wait that a recorded failure asks for.
const WAITS: &[(&str, Duration)] = &[("gemini/050", Duration::from_secs(48))];

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the folder is no setting of the product")]
#[expect(clippy::print_stdout, reason = "a table for whoever runs it")]
async fn real_exchanges_are_understood() {
    let Ok(folder) = std::env::var("INFERQ_VENDOR_TRAFFIC") else {
        println!("INFERQ_VENDOR_TRAFFIC names no folder of recordings: nothing to replay");
        return;
    };
    let mut faults = String::new();
    for vendor in ["gemini", "vertex_ai"] {
        let (mut n_passed, mut n_failed, mut others) = (0, 0, Vec::new());
        for (name, recording) in recordings(Path::new(&folder), vendor) {
            if let Some(reason) = not_applicable(&recording.request) {
                others.push(format!("{name}: {reason}"));
                continue;
            }
            match replay(&name, &recording).await {
                Ok(()) => n_passed += 1,
                Err(fault) => {
                    n_failed += 1;
                    writeln!(faults, "{name}: {fault}").unwrap();
                }
            }
        }
        let n_others = others.len();
        println!("{vendor:<10} {n_passed} passed, {n_failed} failed, {n_others} not applicable");
        println!("{}", others.join("\n"));
        assert!(n_passed + n_failed > 0, "no recordings of {vendor} in {folder}");
    }
    assert!(faults.is_empty(), "\n{faults}");
}

fn recordings(folder: &Path, vendor: &str) -> BTreeMap<String, Recording> {
    let files = fs::read_dir(folder.join(vendor)).expect("a folder of recordings");
    let read = |path: &Path| {
        let text = fs::read_to_string(path).expect("a readable file");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let files = files.map(|file| file.expect("a readable folder").path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let stem = path.file_stem().expect("a file has a name").to_string_lossy();
            (format!("{vendor}/{stem}"), read(&path))
        })
        .collect()
}

fn not_applicable(request: &RecordedRequest) -> Option<&'static str> {
    (request.method != "POST").then_some("asks for models, operations or batches")
}

/// What the path of a recording says.
struct At<'a> {
    version: &'a str,
    /// Project and location.
    place: Option<(&'a str, &'a str)>,
    publisher: Option<&'a str>,
    /// As it is spelt in the path; `None` for chat completions.
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

    fn streams(&self, body: Option<&RawValue>) -> bool {
        let asks = |body: &RawValue| {
            let body: Value = serde_json::from_str(body.get()).expect("a JSON object");
            body["stream"] == true
        };
        self.method.starts_with("stream") || self.model.is_none() && body.is_some_and(asks)
    }
}

/// Sends what was sent and answers what was answered; streams also byte by byte.
async fn replay(name: &str, recording: &Recording) -> Result<(), String> {
    replay_with(name, recording, None).await?;
    let request = &recording.request;
    if At::of(request.url.path()).streams(request.body.as_deref()) {
        replay_with(name, recording, Some(1)).await.map_err(|fault| format!("bytes: {fault}"))?;
    }
    Ok(())
}

async fn replay_with(
    name: &str,
    recording: &Recording,
    chunk: Option<usize>,
) -> Result<(), String> {
    let at = At::of(recording.request.url.path());
    let RecordedResponse { status, headers, .. } = &recording.response;
    let server = Server::answering(answer(&recording.response, chunk)).await;
    let adapter = adapter(name, &at, &server);
    let sent = recording.request.body.as_deref().expect("every call has a body");
    let call = recorded_call(&at, sent);
    let streams = at.streams(Some(sent));
    let outcome = if streams {
        stream(adapter.as_ref(), &call).await
    } else {
        soon(adapter.call(&call)).await.map(|reply| Answered {
            texts: vec![reply.response.as_str().to_owned()],
            usage: reply.usage,
            request_id: reply.vendor_request_id,
        })
    };
    let requests = server.requests();
    same("number of requests", &requests.len(), &1)?;
    check_request(&requests[0], &recording.request, &at, sent)?;
    let body = recording.response.body.as_deref().unwrap_or_default();
    let class = CLASSES.iter().find(|(prefix, _)| name.starts_with(prefix));
    match (class, outcome) {
        (None, Ok(answered)) => {
            let texts = if streams { parts(body) } else { vec![body.trim().to_owned()] };
            same("texts", &answered.texts, &texts)?;
            let header = headers.get("request-id").cloned();
            same("request id", &answered.request_id, &header.or_else(|| response_id(&texts)))?;
            same("usage", &answered.usage, &usage(&at, &texts))
        }
        (Some(&(_, class)), Err(error)) => {
            same("class", &error.class(), &class)?;
            same("status", &error.error.vendor_status, &Some(*status))?;
            let wait = WAITS.iter().find(|(prefix, _)| name.starts_with(prefix));
            same("wait", &error.retry_after, &wait.map(|(_, wait)| *wait))?;
            check_words(&error, body)
        }
        (_, Ok(_)) => Err("it succeeded".to_owned()),
        (_, Err(error)) => Err(format!("it failed: {error}")),
    }
}

fn adapter(name: &str, at: &At<'_>, server: &Server) -> Box<dyn Adapter> {
    let is_vertex = name.starts_with("vertex_ai/");
    let mut config = VendorConfig {
        base_url: Some(format!("http://{}", server.address).parse().expect("an address")),
        api_version: Some(at.version.to_owned()),
        ..VendorConfig::default()
    };
    if !is_vertex || at.place.is_none() {
        config.api_key = Some(SecretString::from("key-1"));
    }
    if let Some((project, location)) = at.place {
        config.project = Some(project.to_owned());
        config.location = Some(location.to_owned());
    }
    let noon = "2026-11-20T12:00:00Z".parse().expect("an instant");
    let (clients, clock) = (Clients::default(), Arc::new(ManualClock::at(noon)));
    if is_vertex {
        Box::new(vertex_ai::adapter(&config, &clients, clock).expect("a good configuration"))
    } else {
        Box::new(gemini::adapter(&config, &clients, clock).expect("a good configuration"))
    }
}

fn recorded_call(at: &At<'_>, body: &RawValue) -> Call {
    let in_body = || {
        let body: Value = serde_json::from_str(body.get()).expect("a JSON object");
        body["model"].as_str().expect("a name").to_owned()
    };
    let model = match (at.model, at.publisher) {
        (None, _) => in_body(),
        (Some(model), None | Some("google")) => model.replace("%20", " "),
        (Some(model), Some(publisher)) => format!("publishers/{publisher}/models/{model}"),
    };
    // Content is counted as it is generated from: the route alone tells the two apart.
    let route = (at.method == "countTokens").then_some(Route::CountTokens);
    Call { args: Json::from(body.to_owned()), model, route, ..call("{}") }
}

struct Answered {
    texts: Vec<String>,
    usage: Usage,
    request_id: Option<String>,
}

async fn stream(adapter: &dyn Adapter, call: &Call) -> Result<Answered, VendorError> {
    let mut chunks = soon(adapter.stream(call)).await?;
    let mut texts = Vec::new();
    while let Some(chunk) = soon(chunks.next()).await {
        match chunk? {
            Chunk::Data(data) => texts.push(String::from_utf8_lossy(&data).into_owned()),
            Chunk::End { usage, vendor_request_id: request_id } => {
                return Ok(Answered { texts, usage, request_id });
            }
        }
    }
    panic!("the stream ended without an end")
}

/// The recorded answer as bytes: in chunks as they came, or of this size, or cut at odd places.
fn answer(response: &RecordedResponse, size: Option<usize>) -> Vec<u8> {
    let body = response.body.as_deref().unwrap_or_default().as_bytes();
    let mut head = format!("HTTP/1.1 {} Recorded\r\nconnection: close\r\n", response.status);
    for (name, value) in &response.headers {
        write!(head, "{name}: {value}\r\n").expect("a text takes all");
    }
    let mut bytes = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
    let mut sizes = response.chunk_sizes.iter().flatten().copied().filter(|_| size.is_none());
    let mut rest = body;
    while !rest.is_empty() {
        let size = sizes.next().or(size).unwrap_or(37).clamp(1, rest.len());
        let (chunk, after) = rest.split_at(size);
        bytes.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
        rest = after;
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

fn check_request(
    request: &Request,
    recorded: &RecordedRequest,
    at: &At<'_>,
    sent: &RawValue,
) -> Result<(), String> {
    let is_vertex = at.publisher.is_some() || at.place.is_some();
    let key = (!is_vertex || at.place.is_none()).then_some("key-1");
    same("key", &request.header("x-goog-api-key"), &key)?;
    same("authorization", &request.header("authorization"), &None)?;
    same("content type", &request.header("content-type"), &Some("application/json"))?;
    let query = if at.method == "streamGenerateContent" { "?alt=sse" } else { "" };
    let line = format!("POST {}{query} HTTP/1.1", recorded.url.path());
    same("request line", &request.head.lines().next(), &Some(line.as_str()))?;
    let mut expected: Value = serde_json::from_str(sent.get()).expect("a JSON object");
    if at.model.is_some() {
        expected.as_object_mut().expect("a JSON object").remove("model");
    }
    let body: Value = serde_json::from_str(&request.body).map_err(|error| error.to_string())?;
    same("body", &body, &expected)
}

fn check_words(error: &VendorError, body: &str) -> Result<(), String> {
    let document: Value = serde_json::from_str(body).unwrap_or_default();
    let document = document.get(0).unwrap_or(&document);
    let message = document.pointer("/error/message").and_then(Value::as_str).unwrap_or_default();
    let words: Vec<&str> = message.split_whitespace().collect();
    let said = words.join(" ").chars().take(300).collect::<String>();
    if error.to_string().contains(&said) { Ok(()) } else { Err(format!("message: {error}")) }
}

/// The parts of a stream: of events what stands after `data: `, of a list its elements.
fn parts(body: &str) -> Vec<String> {
    if body.starts_with('[') {
        let elements: Vec<&RawValue> = serde_json::from_str(body).expect("a JSON list");
        return elements.iter().map(|element| element.get().to_owned()).collect();
    }
    let data = body.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]").map(str::to_owned).collect()
}

fn response_id(texts: &[String]) -> Option<String> {
    let last: Value = serde_json::from_str(texts.last()?).expect("recorded JSON");
    let interaction = last.get("interaction").unwrap_or(&last);
    let id = if interaction["object"] == "interaction" {
        &interaction["id"]
    } else {
        &last["responseId"]
    };
    id.as_str().map(str::to_owned)
}

/// The usage that these documents tell, read without the adapter's help.
fn usage(at: &At<'_>, texts: &[String]) -> Usage {
    let documents: Vec<Value> =
        texts.iter().map(|text| serde_json::from_str(text).expect("recorded JSON")).collect();
    match (at.publisher, at.method) {
        (Some("anthropic"), _) => claudes_usage(&documents),
        (_, "interactions") => interactions_usage(&documents),
        (_, "predict") => {
            let predictions = documents[0]["predictions"].as_array().expect("a list");
            let count = |it: &Value| it.pointer("/embeddings/statistics/token_count")?.as_u64();
            Usage {
                input_tokens: Some(predictions.iter().filter_map(count).sum()),
                ..Usage::default()
            }
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

fn claudes_usage(documents: &[Value]) -> Usage {
    let mut merged = serde_json::Map::new();
    for document in documents {
        let usage = document.get("usage").or_else(|| document.pointer("/message/usage"));
        merged.extend(usage.and_then(Value::as_object).cloned().unwrap_or_default());
    }
    let count = |name: &str| merged.get(name).and_then(Value::as_u64);
    let (read, written) = (count("cache_read_input_tokens"), count("cache_creation_input_tokens"));
    Usage {
        input_tokens: count("input_tokens")
            .map(|own| own + read.unwrap_or(0) + written.unwrap_or(0)),
        cached_input_tokens: read,
        cache_write_tokens: written,
        output_tokens: count("output_tokens"),
        reasoning_tokens: None,
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?} is not {expected:?}")) }
}
