//! Replays real exchanges with xAI, Fireworks and Azure, where a folder of them is at hand:
//! `INFERQ_VENDOR_TRAFFIC=folder cargo test -p inferq-vendors --test recorded_compatible -- --nocapture`.
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
    job::Json,
    usage::Usage,
};
use inferq_vendors::{
    Adapter, Call, Chunk, VendorError, azure, fireworks_ai, remote::http::Clients, xai,
};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

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

/// The class each recorded failure must get, by the file's name up to its number, and the wait it
/// asks for, in seconds.
const CLASSES: &[(&str, ErrorClass, Option<u64>)] = &[
    ("xai/033", ErrorClass::InvalidRequest, None),
    ("xai/034", ErrorClass::Auth, None),
    ("xai/035", ErrorClass::NotFound, None),
    ("xai/036", ErrorClass::Overloaded, None),
    ("xai/037", ErrorClass::RateLimited, None),
    ("xai/038", ErrorClass::Overloaded, None),
    ("fireworks_ai/011", ErrorClass::InvalidRequest, None),
    ("fireworks_ai/012", ErrorClass::Auth, None),
    ("fireworks_ai/013", ErrorClass::NotFound, None),
    ("fireworks_ai/014", ErrorClass::RateLimited, None),
    ("fireworks_ai/015", ErrorClass::Overloaded, None),
    ("azure/036", ErrorClass::Blocked, None),
    ("azure/037", ErrorClass::Auth, None),
    ("azure/038", ErrorClass::NotFound, None),
    ("azure/039", ErrorClass::NotFound, None),
    ("azure/040", ErrorClass::Transient, None),
    ("azure/041", ErrorClass::InvalidRequest, None),
    ("azure/042", ErrorClass::InvalidRequest, None),
    ("azure/043", ErrorClass::RateLimited, Some(1)),
    ("azure/044", ErrorClass::RateLimited, Some(38)),
    ("azure/045", ErrorClass::Transient, None),
];

/// Went to a wrong address, by mistake of the recorded client: only the answer is replayed.
const WRONG_ADDRESS: &str = "azure/038";

/// What ends the path of a call for inference.
const ENDPOINTS: &[&str] =
    &["/chat/completions", "/completions", "/embeddings", "/responses", "/anthropic/v1/messages"];

const REQUEST_IDS: &[&str] = &["apim-request-id", "x-request-id", "x-ms-request-id", "request-id"];

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the folder is no setting of the product")]
#[expect(clippy::print_stdout, reason = "a table for whoever runs it")]
async fn real_exchanges_are_understood() {
    let Ok(folder) = std::env::var("INFERQ_VENDOR_TRAFFIC") else {
        println!("INFERQ_VENDOR_TRAFFIC names no folder of recordings: nothing to replay");
        return;
    };
    let mut faults = String::new();
    for vendor in ["xai", "fireworks_ai", "azure"] {
        let (mut n_passed, mut n_failed, mut others) = (0, 0, Vec::new());
        for (name, recording) in recordings(Path::new(&folder), vendor) {
            let Some(target) = Target::of(&name, &recording.request) else {
                let request = &recording.request;
                others.push(format!("{name} ({} {})", request.method, request.url.path()));
                continue;
            };
            let whole = replay(&name, &recording, &target, None).await;
            let bytewise = replay(&name, &recording, &target, Some(1)).await;
            match whole.and(bytewise.map_err(|fault| format!("byte by byte: {fault}"))) {
                Ok(()) => n_passed += 1,
                Err(fault) => {
                    n_failed += 1;
                    writeln!(faults, "{name}: {fault}").unwrap();
                }
            }
        }
        let n_others = others.len();
        println!("{vendor:<13} {n_passed} passed, {n_failed} failed, {n_others} not applicable");
        for other in others {
            println!("{:<13} not a call for inference: {other}", "");
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

/// How the adapter has to be set up, and what must come out.
struct Target {
    vendor: &'static str,
    /// The path that `base_url` stands for.
    prefix: String,
    api: Option<&'static str>,
    api_version: Option<String>,
    model: String,
    is_model_in_path: bool,
    /// Path and query; the recorder of some streams dropped the query.
    expected: Option<String>,
    streams: bool,
}

impl Target {
    fn of(name: &str, request: &RecordedRequest) -> Option<Self> {
        let path = request.url.path().replace("//", "/");
        let endpoint = ENDPOINTS.iter().find(|end| path.ends_with(**end))?;
        let body: Value = serde_json::from_str(request.body.as_deref()?.get()).ok()?;
        let vendor = *["xai", "fireworks_ai", "azure"].iter().find(|it| name.starts_with(**it))?;
        let version = request.url.query_pairs().find(|(key, _)| key == "api-version");
        let deployment = path
            .split_once("/openai/deployments/")
            .and_then(|(_, rest)| Some(rest.split_once('/')?.0.to_owned()));
        let own = match vendor {
            "azure" if path.contains("/anthropic/") => "/anthropic/v1/messages".len(),
            "azure" if name.starts_with(WRONG_ADDRESS) => path.len(),
            "azure" => path.len() - path.find("/openai").or(path.find("/models"))?,
            _ => endpoint.len(),
        };
        let api = match vendor {
            "azure" if deployment.is_some() || path == "/openai/responses" => Some("classic"),
            "azure" if path.starts_with("/models/") => Some("inference"),
            _ => None,
        };
        let query = request.url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let expected = (!name.starts_with(WRONG_ADDRESS)).then(|| format!("{path}{query}"));
        let model = body["model"].as_str().unwrap_or("some-model").to_owned();
        Some(Self {
            vendor,
            prefix: path[..path.len() - own].to_owned(),
            api,
            api_version: version.map(|(_, version)| version.into_owned()),
            is_model_in_path: deployment.is_some(),
            model: deployment.unwrap_or(model),
            expected,
            streams: body["stream"] == true,
        })
    }

    fn adapter(&self, server: &Server) -> Arc<dyn Adapter> {
        let base_url = format!("http://{}{}", server.address, self.prefix);
        let config = VendorConfig {
            base_url: Some(base_url.parse().expect("an address")),
            api_key: Some(SecretString::from("key-1")),
            api: self.api.map(str::to_owned),
            api_version: self.api_version.clone(),
            ..VendorConfig::default()
        };
        let noon = "2026-11-20T12:00:00Z".parse().expect("an instant");
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(noon));
        let clients = Clients::default();
        match self.vendor {
            "xai" => Arc::new(xai::adapter(&config, &clients, clock).expect("good settings")),
            "azure" => Arc::new(azure::adapter(&config, &clients, clock).expect("good settings")),
            _ => Arc::new(fireworks_ai::adapter(&config, &clients, clock).expect("good settings")),
        }
    }
}

/// Sends what was sent and answers what was answered, in chunks of `n_bytes` or as recorded.
async fn replay(
    name: &str,
    recording: &Recording,
    target: &Target,
    n_bytes: Option<usize>,
) -> Result<(), String> {
    let RecordedResponse { status, headers, .. } = &recording.response;
    let server = Server::answering(answer(&recording.response, n_bytes)).await;
    let adapter = target.adapter(&server);
    let sent = recording.request.body.as_deref().expect("a body").to_owned();
    let call = Call { args: Json::from(sent.clone()), model: target.model.clone(), ..call("{}") };
    let outcome = if target.streams {
        stream(&*adapter, &call).await
    } else {
        soon(adapter.call(&call)).await.map(|reply| Answered {
            texts: vec![reply.response.as_str().to_owned()],
            usage: reply.usage,
            request_id: reply.vendor_request_id,
        })
    };
    let requests = server.requests();
    same("number of requests", &requests.len(), &1)?;
    check_request(&requests[0], &sent, target)?;
    let body = recording.response.body.as_deref().unwrap_or_default();
    let ids: &[&str] = if target.vendor == "azure" { REQUEST_IDS } else { &["x-request-id"] };
    let request_id = ids.iter().find_map(|id| headers.get(*id).cloned());
    let class = CLASSES.iter().find(|(prefix, ..)| name.starts_with(prefix));
    match (class, outcome) {
        (None, Ok(answered)) => {
            same("request id", &answered.request_id, &request_id)?;
            let texts = if target.streams { events(body) } else { vec![body.trim().to_owned()] };
            same("texts", &answered.texts, &texts)?;
            same("usage", &answered.usage, &usage(&texts, target.vendor))
        }
        (Some(&(_, class, wait)), Err(error)) => {
            same("class", &error.class(), &class)?;
            same("request id", &error.error.vendor_request_id, &request_id)?;
            same("status", &error.error.vendor_status, &Some(*status))?;
            same("wait", &error.retry_after, &wait.map(Duration::from_secs))?;
            check_message(&error, body)
        }
        (_, Ok(_)) => Err("it succeeded".to_owned()),
        (_, Err(error)) => Err(format!("it failed: {error}")),
    }
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

/// The recorded answer as bytes: a stream in chunks as they came, or cut at odd places.
fn answer(response: &RecordedResponse, n_bytes: Option<usize>) -> Vec<u8> {
    let body = response.body.as_deref().unwrap_or_default().as_bytes();
    let mut head = format!("HTTP/1.1 {} Recorded\r\nconnection: close\r\n", response.status);
    for (name, value) in &response.headers {
        write!(head, "{name}: {value}\r\n").expect("a text takes all");
    }
    let mut bytes = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
    let mut sizes = response.chunk_sizes.iter().flatten().copied();
    let mut rest = body;
    while !rest.is_empty() {
        let size = n_bytes.or_else(|| sizes.next()).unwrap_or(37).clamp(1, rest.len());
        let (chunk, after) = rest.split_at(size);
        bytes.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
        rest = after;
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// The freedoms: a deployment that stands in the path is not repeated in the body; a stream of xAI
/// or Azure asks for its usage where the recorded one did not.
fn check_request(request: &Request, sent: &RawValue, target: &Target) -> Result<(), String> {
    let credential = match target.vendor {
        "azure" if target.expected.as_deref().is_some_and(|it| it.contains("/anthropic/")) => {
            same("version", &request.header("anthropic-version"), &Some("2023-06-01"))?;
            ("x-api-key", "key-1")
        }
        "azure" => ("api-key", "key-1"),
        _ => ("authorization", "Bearer key-1"),
    };
    same("credential", &request.header(credential.0), &Some(credential.1))?;
    same("content type", &request.header("content-type"), &Some("application/json"))?;
    if let Some(expected) = &target.expected {
        let line = request.head.lines().next().unwrap_or_default();
        let mut found = line.strip_prefix("POST ").and_then(|it| it.strip_suffix(" HTTP/1.1"));
        if !expected.contains('?') && target.api.is_some() {
            found = found.and_then(|found| Some(found.split_once('?')?.0));
        }
        same("path", &found, &Some(expected.as_str()))?;
    }
    let mut expected: Value = serde_json::from_str(sent.get()).expect("a JSON object");
    if target.is_model_in_path {
        expected.as_object_mut().expect("a JSON object").remove("model");
    }
    let is_chat = expected.get("messages").is_some() && credential.0 != "x-api-key";
    if target.streams && is_chat && target.vendor != "fireworks_ai" {
        let members = expected.as_object_mut().expect("a JSON object");
        members.entry("stream_options").or_insert(json!({"include_usage": true}));
    }
    let body: Value = serde_json::from_str(&request.body).map_err(|error| error.to_string())?;
    same("body", &body, &expected)
}

fn check_message(error: &VendorError, body: &str) -> Result<(), String> {
    let document: Value = serde_json::from_str(body).unwrap_or_default();
    let message = document.pointer("/error/message").or(document.get("error"));
    let said = message.and_then(Value::as_str).unwrap_or(body);
    let said: Vec<_> = said.split_whitespace().collect();
    let said: String = said.join(" ").chars().take(300).collect();
    let found = error.to_string();
    if !said.is_empty() && found.contains(&said) && !found.contains("key-1") {
        Ok(())
    } else {
        Err(format!("message: {found}"))
    }
}

/// What stands after `data:` in a stream whose events have one line each.
fn events(body: &str) -> Vec<String> {
    let data = body.lines().filter_map(|line| line.strip_prefix("data:"));
    data.map(str::trim).filter(|data| *data != "[DONE]").map(str::to_owned).collect()
}

/// The last usage that these documents tell, read without the adapter's help: xAI's output is what
/// the total leaves beside the prompt, and Claude's input is the sum of its parts.
fn usage(texts: &[String], vendor: &str) -> Usage {
    let mut last = json!({});
    for text in texts {
        let document: Value = serde_json::from_str(text).expect("recorded JSON");
        for holder in [&document, &document["response"], &document["message"]] {
            let Some(usage) = holder.get("usage").and_then(Value::as_object) else { continue };
            // Claude's later counts leave out what has not changed.
            let last = last.as_object_mut().expect("an object");
            last.extend(usage.clone());
        }
    }
    let count = |name: &str| last[name].as_u64();
    let details = |side: &str, name: &str| last[format!("{side}_details")][name].as_u64();
    if last.get("cache_read_input_tokens").is_some() {
        let (read, written) = ("cache_read_input_tokens", "cache_creation_input_tokens");
        let sum = ["input_tokens", read, written].iter().filter_map(|name| count(name)).sum();
        return Usage {
            input_tokens: Some(sum),
            cached_input_tokens: count(read),
            cache_write_tokens: count(written),
            output_tokens: count("output_tokens"),
            reasoning_tokens: None,
        };
    }
    let (input, output) = if last.get("input_tokens").is_some() {
        ("input_tokens", "output_tokens")
    } else {
        ("prompt_tokens", "completion_tokens")
    };
    let rest = || count("total_tokens")?.checked_sub(count(input)?);
    Usage {
        input_tokens: count(input),
        cached_input_tokens: details(input, "cached_tokens"),
        cache_write_tokens: details(input, "cache_write_tokens"),
        output_tokens: if vendor == "xai" { rest() } else { count(output) },
        reasoning_tokens: details(output, "reasoning_tokens"),
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?} is not {expected:?}")) }
}
