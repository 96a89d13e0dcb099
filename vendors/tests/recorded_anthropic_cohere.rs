//! Replays real exchanges with Anthropic and Cohere, where a folder of them is at hand:
//! `INFERQ_VENDOR_TRAFFIC=folder cargo test -p inferq-vendors --test recorded_anthropic_cohere -- --nocapture`.
//!
//! Each file is one exchange, as `recorded.rs` describes. Each is answered twice: in the chunks it
//! came in, and one byte at a time.

#[expect(dead_code, reason = "other tests use the rest of it")]
mod support;

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, sync::Arc, time::Duration};

use futures::StreamExt as _;
use inferq_common::{
    clock::{Clock, ManualClock},
    config::VendorConfig,
    error::ErrorClass,
    job::{Json, Route},
    usage::Usage,
};
use inferq_vendors::{Adapter, Call, Chunk, VendorError, anthropic, cohere, remote::http::Clients};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use self::support::{Request, Server, call, soon};

#[derive(Deserialize)]
struct Recording {
    tags: Vec<String>,
    request: RecordedRequest,
    response: RecordedResponse,
}

#[derive(Deserialize)]
struct RecordedRequest {
    method: String,
    url: url::Url,
    headers: BTreeMap<String, String>,
    body: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct RecordedResponse {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Option<String>,
    chunk_sizes: Option<Vec<usize>>,
}

/// The class each recorded failure must get, by the file's name up to its number, and the wait it
/// asks for, in seconds.
const CLASSES: &[(&str, ErrorClass, Option<u64>)] = &[
    ("anthropic/024", ErrorClass::Overloaded, None),
    ("anthropic/043", ErrorClass::InvalidRequest, None),
    ("anthropic/044", ErrorClass::InvalidRequest, None),
    ("anthropic/045", ErrorClass::InvalidRequest, None),
    ("anthropic/046", ErrorClass::InvalidRequest, None),
    ("anthropic/047", ErrorClass::InvalidRequest, None),
    ("anthropic/048", ErrorClass::Auth, None),
    ("anthropic/051", ErrorClass::NotFound, None),
    ("anthropic/052", ErrorClass::NotFound, None),
    ("anthropic/053", ErrorClass::RateLimited, Some(65)),
    ("anthropic/054", ErrorClass::RateLimited, Some(4)),
    ("anthropic/055", ErrorClass::RateLimited, None),
    ("anthropic/056", ErrorClass::RateLimited, Some(8)),
    // The vendor says that another attempt would not help.
    ("anthropic/057", ErrorClass::InvalidRequest, None),
    ("anthropic/058", ErrorClass::Overloaded, None),
    ("anthropic/059", ErrorClass::Overloaded, None),
    ("anthropic/060", ErrorClass::Overloaded, None),
    // A stream whose last event says that the model gave up.
    ("cohere/018", ErrorClass::Transient, None),
    ("cohere/033", ErrorClass::ContextLength, None),
    ("cohere/034", ErrorClass::Auth, None),
    ("cohere/037", ErrorClass::NotFound, None),
    ("cohere/038", ErrorClass::NotFound, None),
    ("cohere/039", ErrorClass::Transient, None),
    ("cohere/040", ErrorClass::RateLimited, None),
    ("cohere/041", ErrorClass::QuotaExhausted, None),
];

/// The paths that are served, and the route to name for one that is not chosen by itself.
const PATHS: &[(&str, &str, Option<Route>)] = &[
    ("anthropic", "/v1/messages", None),
    ("anthropic", "/v1/messages/count_tokens", Some(Route::CountTokens)),
    ("cohere", "/v2/chat", None),
    ("cohere", "/v2/embed", None),
    ("cohere", "/v2/rerank", None),
];

/// Why an exchange is none that an adapter makes.
fn not_applicable(vendor: &str, request: &RecordedRequest) -> Option<&'static str> {
    let path = request.url.path();
    if PATHS.iter().any(|&(of, served, _)| (of, served) == (vendor, path)) {
        return None;
    }
    Some(match path {
        "/v1/complete" => "the old completions, which the vendor's own clients dropped",
        _ if path.contains("/batches") => "a batch, no call for inference",
        _ if path.contains("/models") => "a list of models, no call for inference",
        _ if vendor == "cohere" => "version 1, which is not served",
        _ => "unknown",
    })
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the folder is no setting of the product")]
#[expect(clippy::print_stdout, reason = "a table for whoever runs it")]
async fn real_exchanges_are_understood() {
    let Ok(folder) = std::env::var("INFERQ_VENDOR_TRAFFIC") else {
        println!("INFERQ_VENDOR_TRAFFIC names no folder of recordings: nothing to replay");
        return;
    };
    let mut faults = String::new();
    for vendor in ["anthropic", "cohere"] {
        let (mut n_passed, mut n_failed, mut others) = (0, 0, Vec::new());
        for (name, recording) in recordings(Path::new(&folder), vendor) {
            if let Some(reason) = not_applicable(vendor, &recording.request) {
                others.push(format!("{name}: {reason}"));
                continue;
            }
            let as_it_came = replay(vendor, &name, &recording, None).await;
            let bytewise = replay(vendor, &name, &recording, Some(1)).await;
            match as_it_came.and(bytewise.map_err(|fault| format!("byte by byte: {fault}"))) {
                Ok(()) => n_passed += 1,
                Err(fault) => {
                    n_failed += 1;
                    writeln!(faults, "{name}: {fault}").unwrap();
                }
            }
        }
        println!("{vendor} {n_passed} passed, {n_failed} failed, {} not applicable", others.len());
        for other in others {
            println!("  not applicable: {other}");
        }
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

fn adapter(vendor: &str, server: &Server, request: &RecordedRequest) -> Arc<dyn Adapter> {
    let mut config = VendorConfig {
        base_url: Some(format!("http://{}", server.address).parse().expect("an address")),
        api_key: Some(SecretString::from("key-number-1")),
        ..VendorConfig::default()
    };
    if let Some(betas) = request.headers.get("anthropic-beta") {
        config.headers.insert("anthropic-beta".to_owned(), betas.clone());
    }
    let noon = "2026-11-20T12:00:00Z".parse().expect("an instant");
    let (clients, clock): (_, Arc<dyn Clock>) =
        (Clients::default(), Arc::new(ManualClock::at(noon)));
    match vendor {
        "anthropic" => Arc::new(anthropic::adapter(&config, &clients, clock).expect("it is good")),
        _ => Arc::new(cohere::adapter(&config, &clients, clock).expect("it is good")),
    }
}

/// Sends what was sent and answers what was answered.
async fn replay(
    vendor: &str,
    name: &str,
    recording: &Recording,
    chunk_bytes: Option<usize>,
) -> Result<(), String> {
    let RecordedResponse { status, headers, .. } = &recording.response;
    let server = Server::answering(answer(&recording.response, chunk_bytes)).await;
    let adapter = adapter(vendor, &server, &recording.request);
    let sent = recording.request.body.as_deref().ok_or("no body")?;
    let path = recording.request.url.path();
    let route = PATHS.iter().find(|(of, served, _)| (*of, *served) == (vendor, path));
    let call = recorded_call(sent, route.and_then(|&(.., route)| route))?;
    let asked = serde_json::from_str::<Value>(sent.get()).expect("JSON");
    let streams = recording.tags.iter().any(|tag| tag == "stream") || asked["stream"] == true;
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
    check_request(vendor, &requests[0], &recording.request, &asked)?;
    let body = recording.response.body.as_deref().unwrap_or_default();
    let is_stream = headers.get("content-type").is_some_and(|it| it.contains("event"));
    let texts = if is_stream { events(body) } else { vec![body.trim().to_owned()] };
    let request_id = request_id(vendor, headers, &texts);
    let class = CLASSES.iter().find(|(prefix, ..)| name.starts_with(prefix));
    match (class, outcome) {
        (None, Ok(answered)) => {
            same("request id", &answered.request_id, &request_id)?;
            same("texts", &answered.texts, &texts)?;
            same("usage", &answered.usage, &usage(vendor, &texts))
        }
        (Some(&(_, class, wait)), Err(error)) => {
            same("class", &error.class(), &class)?;
            same("request id", &error.error.vendor_request_id, &request_id)?;
            same("status", &error.error.vendor_status, &Some(*status).filter(|_| !is_stream))?;
            same("wait", &error.retry_after, &wait.map(Duration::from_secs))?;
            check_message(&error, texts.last().map_or("", String::as_str))
        }
        (_, Ok(_)) => Err("it succeeded".to_owned()),
        (_, Err(error)) => Err(format!("it failed: {error}")),
    }
}

#[derive(Debug)]
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

fn recorded_call(body: &RawValue, route: Option<Route>) -> Result<Call, String> {
    let document: Value = serde_json::from_str(body.get()).expect("JSON");
    let model = document["model"].as_str().ok_or("no model")?.to_owned();
    Ok(Call { args: Json::from(body.to_owned()), model, route, ..call("{}") })
}

/// The recorded answer as bytes: a stream in chunks as they came, or cut at odd places, or in
/// pieces of one size.
fn answer(response: &RecordedResponse, chunk_bytes: Option<usize>) -> Vec<u8> {
    let body = response.body.as_deref().unwrap_or_default().as_bytes();
    let mut head = format!("HTTP/1.1 {} Recorded\r\nconnection: close\r\n", response.status);
    for (name, value) in &response.headers {
        write!(head, "{name}: {value}\r\n").expect("a text takes all");
    }
    let mut bytes = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
    let mut sizes = response.chunk_sizes.iter().flatten().copied();
    let mut rest = body;
    while !rest.is_empty() {
        let size = chunk_bytes.or_else(|| sizes.next()).unwrap_or(37).clamp(1, rest.len());
        let (chunk, after) = rest.split_at(size);
        bytes.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
        rest = after;
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// The method, path and body of the recording, with the vendor's headers. Three freedoms: `?beta=true`
/// is a habit of the vendor's own clients that the API does not ask for; `x-client-name` and
/// `x-stainless-*` name those clients; `accept` says what is wanted.
fn check_request(
    vendor: &str,
    request: &Request,
    recorded: &RecordedRequest,
    asked: &Value,
) -> Result<(), String> {
    let line = format!("{} {} HTTP/1.1", recorded.method, recorded.url.path());
    same("request line", &request.head.lines().next(), &Some(line.as_str()))?;
    let betas = recorded.headers.get("anthropic-beta").map(String::as_str);
    let expected = match vendor {
        "anthropic" => [
            ("x-api-key", Some("key-number-1")),
            ("authorization", None),
            ("anthropic-version", Some("2023-06-01")),
            ("anthropic-beta", betas),
        ],
        _ => [
            ("x-api-key", None),
            ("authorization", Some("Bearer key-number-1")),
            ("anthropic-version", None),
            ("anthropic-beta", None),
        ],
    };
    for (name, value) in expected {
        same(name, &request.header(name), &value)?;
    }
    same("content type", &request.header("content-type"), &Some("application/json"))?;
    let body: Value = serde_json::from_str(&request.body).map_err(|error| error.to_string())?;
    same("body", &body, asked)
}

/// The vendor's own sentence, up to what an error repeats of it, stands in the message.
fn check_message(error: &VendorError, answer: &str) -> Result<(), String> {
    let document: Value = serde_json::from_str(answer).unwrap_or_default();
    let pointers = ["/error/message", "/message", "/delta/error"];
    let said = pointers.iter().find_map(|pointer| document.pointer(pointer)?.as_str());
    let said: String = said.unwrap_or(answer).chars().take(300).collect();
    if error.to_string().contains(&said) { Ok(()) } else { Err(format!("message: {error}")) }
}

/// What stands after `data: ` in a stream whose events have one line each.
fn events(body: &str) -> Vec<String> {
    let data = body.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]").map(str::to_owned).collect()
}

fn documents(texts: &[String]) -> impl DoubleEndedIterator<Item = Value> {
    texts.iter().map(|text| serde_json::from_str(text).unwrap_or_default())
}

fn request_id(
    vendor: &str,
    headers: &BTreeMap<String, String>,
    texts: &[String],
) -> Option<String> {
    let in_body =
        |key: &str| documents(texts).find_map(|document| document[key].as_str().map(str::to_owned));
    match vendor {
        "anthropic" => headers.get("request-id").cloned().or_else(|| in_body("request_id")),
        _ => in_body("id").or_else(|| headers.get("x-debug-trace-id").cloned()),
    }
}

/// What these documents tell was consumed, read without the adapter's help.
fn usage(vendor: &str, texts: &[String]) -> Usage {
    let mut all = serde_json::Map::new();
    for document in documents(texts) {
        let places = ["/message/usage", "/usage", "/delta/usage", "/meta"];
        let found = places.iter().find_map(|place| document.pointer(place)?.as_object().cloned());
        all.extend(found.unwrap_or_default().into_iter().filter(|(_, value)| !value.is_null()));
    }
    let all = Value::Object(all);
    let count = |pointer: &str| all.pointer(pointer).and_then(Value::as_u64);
    if vendor == "anthropic" {
        let (read, write) =
            (count("/cache_read_input_tokens"), count("/cache_creation_input_tokens"));
        let cached = read.unwrap_or(0) + write.unwrap_or(0);
        return Usage {
            input_tokens: count("/input_tokens").map(|input| input + cached),
            cached_input_tokens: read,
            cache_write_tokens: write,
            output_tokens: count("/output_tokens"),
            reasoning_tokens: count("/output_tokens_details/thinking_tokens"),
        };
    }
    let side = |name: &str| {
        let pointers = [format!("/tokens/{name}"), format!("/billed_units/{name}")];
        pointers.iter().find_map(|pointer| count(pointer))
    };
    Usage {
        input_tokens: side("input_tokens"),
        cached_input_tokens: count("/cached_tokens"),
        output_tokens: side("output_tokens"),
        ..Usage::default()
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?} is not {expected:?}")) }
}
