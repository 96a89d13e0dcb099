//! Replays real exchanges with OpenAI and with self-hosted servers, where a folder of them is at
//! hand: `INFERQ_VENDOR_TRAFFIC=folder cargo test -p inferq-vendors --test recorded -- --nocapture`.
//!
//! Each file is one exchange: `{tags, request: {method, url, body}, response: {status, headers,
//! body, chunk_sizes?}}`. The recordings are not part of this repository.

mod support;

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, time::Duration};

use futures::StreamExt as _;
use inferq_common::{error::ErrorClass, job::Json, usage::Usage};
use inferq_vendors::{Adapter as _, Call, Chunk, VendorError};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

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
    ("openai/036", ErrorClass::Transient),
    ("openai/037", ErrorClass::Transient),
    ("openai/044", ErrorClass::InvalidRequest),
    ("openai/045", ErrorClass::InvalidRequest),
    ("openai/046", ErrorClass::InvalidRequest),
    ("openai/047", ErrorClass::InvalidRequest),
    ("openai/048", ErrorClass::NotFound),
    ("openai/050", ErrorClass::Auth),
    ("openai/051", ErrorClass::Auth),
    ("openai/052", ErrorClass::Auth),
    ("openai/053", ErrorClass::Auth),
    ("openai/054", ErrorClass::NotFound),
    ("openai/055", ErrorClass::NotFound),
    ("openai/056", ErrorClass::NotFound),
    ("openai/057", ErrorClass::RateLimited),
    ("openai/058", ErrorClass::QuotaExhausted),
    ("openai/059", ErrorClass::InvalidRequest),
    ("openai/060", ErrorClass::QuotaExhausted),
    ("openai/061", ErrorClass::Transient),
    ("openai/062", ErrorClass::Transient),
    ("openai/063", ErrorClass::Overloaded),
    ("openai/064", ErrorClass::Overloaded),
    ("model_zoo/014", ErrorClass::InvalidRequest),
    ("model_zoo/015", ErrorClass::ContextLength),
    ("model_zoo/016", ErrorClass::InvalidRequest),
    ("model_zoo/017", ErrorClass::Auth),
    ("model_zoo/018", ErrorClass::InvalidRequest),
    ("model_zoo/019", ErrorClass::InvalidRequest),
    ("model_zoo/020", ErrorClass::InvalidRequest),
];

const PATHS: &[&str] =
    &["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"];

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the folder is no setting of the product")]
#[expect(clippy::print_stdout, reason = "a table for whoever runs it")]
async fn real_exchanges_are_understood() {
    let Ok(folder) = std::env::var("INFERQ_VENDOR_TRAFFIC") else {
        println!("INFERQ_VENDOR_TRAFFIC names no folder of recordings: nothing to replay");
        return;
    };
    let mut faults = String::new();
    for vendor in ["openai", "model_zoo"] {
        let (mut n_passed, mut n_failed, mut n_others) = (0, 0, 0);
        for (name, recording) in recordings(Path::new(&folder), vendor) {
            if !is_call(&recording.request) {
                n_others += 1;
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
        println!("{vendor:<10} {n_passed} passed, {n_failed} failed, {n_others} not applicable");
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

fn is_call(request: &RecordedRequest) -> bool {
    request.method == "POST" && PATHS.contains(&request.url.path())
}

/// Sends what was sent and answers what was answered.
async fn replay(name: &str, recording: &Recording) -> Result<(), String> {
    let RecordedResponse { status, headers, .. } = &recording.response;
    let server = Server::answering(answer(&recording.response)).await;
    let adapter = server.adapter(|config| config.api_key = Some(SecretString::from("key-1")));
    let sent = recording.request.body.as_deref().filter(|body| body.get().starts_with('{'));
    let call = recorded_call(sent);
    let streams = recording.tags.iter().any(|tag| tag == "stream");
    let outcome = if streams {
        stream(&adapter, &call).await
    } else {
        soon(adapter.call(&call)).await.map(|reply| Answered {
            texts: vec![reply.response.as_str().to_owned()],
            usage: reply.usage,
            request_id: reply.vendor_request_id,
        })
    };
    let requests = server.requests();
    same("number of requests", &requests.len(), &1)?;
    check_request(&requests[0], &recording.request, sent, streams)?;
    let body = recording.response.body.as_deref().unwrap_or_default();
    let request_id = headers.get("x-request-id").cloned();
    let class = CLASSES.iter().find(|(prefix, _)| name.starts_with(prefix));
    match (class, outcome) {
        (None, Ok(answered)) => {
            same("request id", &answered.request_id, &request_id)?;
            let texts = if streams { events(body) } else { vec![body.trim().to_owned()] };
            same("texts", &answered.texts, &texts)?;
            same("usage", &answered.usage, &usage(&texts))
        }
        (Some(&(_, class)), Err(error)) => {
            same("class", &error.class(), &class)?;
            same("request id", &error.error.vendor_request_id, &request_id)?;
            same("status", &error.error.vendor_status, &Some(*status).filter(|_| !streams))?;
            check_error(&error, headers, body)
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

async fn stream(
    adapter: &impl inferq_vendors::Adapter,
    call: &Call,
) -> Result<Answered, VendorError> {
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

fn recorded_call(body: Option<&RawValue>) -> Call {
    let Some(body) = body else {
        return call(r#"{"messages":[]}"#);
    };
    let model = serde_json::from_str::<Value>(body.get()).expect("a JSON object")["model"].clone();
    Call {
        args: Json::from(body.to_owned()),
        model: model.as_str().expect("a name").to_owned(),
        ..call("{}")
    }
}

/// The recorded answer as bytes: a stream in chunks as they came, or cut at odd places.
fn answer(response: &RecordedResponse) -> Vec<u8> {
    let body = response.body.as_deref().unwrap_or_default().as_bytes();
    let mut head = format!("HTTP/1.1 {} Recorded\r\nconnection: close\r\n", response.status);
    for (name, value) in &response.headers {
        write!(head, "{name}: {value}\r\n").expect("a text takes all");
    }
    let is_stream = response.headers.get("content-type").is_some_and(|it| it.contains("event"));
    if !is_stream {
        return [format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat();
    }
    let mut bytes = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
    let mut sizes = response.chunk_sizes.iter().flatten().copied();
    let mut rest = body;
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(37).clamp(1, rest.len());
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
    sent: Option<&RawValue>,
    streams: bool,
) -> Result<(), String> {
    same("authorization", &request.header("authorization"), &Some("Bearer key-1"))?;
    same("content type", &request.header("content-type"), &Some("application/json"))?;
    let Some(sent) = sent else { return Ok(()) };
    let line = format!("POST {} HTTP/1.1", recorded.url.path());
    same("request line", &request.head.lines().next(), &Some(line.as_str()))?;
    let mut expected: Value = serde_json::from_str(sent.get()).expect("a JSON object");
    if !streams && expected["stream"] == true {
        let members = expected.as_object_mut().expect("a JSON object");
        members.remove("stream");
        members.remove("stream_options");
    }
    let has_options = recorded.url.path() != "/v1/responses";
    if streams && has_options && expected.get("stream_options").is_none() {
        expected["stream_options"] = json!({"include_usage": true});
    }
    let body: Value = serde_json::from_str(&request.body).map_err(|error| error.to_string())?;
    same("body", &body, &expected)
}

fn check_error(
    error: &VendorError,
    headers: &BTreeMap<String, String>,
    body: &str,
) -> Result<(), String> {
    let hint =
        headers.get("retry-after").map(|wait| Duration::from_secs(wait.parse().expect("seconds")));
    same("hint", &error.retry_after, &hint)?;
    let document: Value = serde_json::from_str(body).unwrap_or_default();
    let Some(message) = document.pointer("/error/message").and_then(Value::as_str) else {
        return Ok(());
    };
    let said = message.chars().take(300).collect::<String>();
    if error.to_string().contains(&said) { Ok(()) } else { Err(format!("message: {error}")) }
}

/// What stands after `data: ` in a stream whose events have one line each.
fn events(body: &str) -> Vec<String> {
    let data = body.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]").map(str::to_owned).collect()
}

/// The last usage that these documents tell, read without the adapter's help.
fn usage(texts: &[String]) -> Usage {
    let of = |text: &String| {
        let document: Value = serde_json::from_str(text).expect("recorded JSON");
        let whole = document.get("response").unwrap_or(&document)["usage"].clone();
        (!whole.is_null()).then_some(whole)
    };
    let Some(usage) = texts.iter().rev().find_map(of) else { return Usage::default() };
    let (input, output) = if usage.get("input_tokens").is_some() {
        ("input_tokens", "output_tokens")
    } else {
        ("prompt_tokens", "completion_tokens")
    };
    let details = |side: &str, name: &str| usage[format!("{side}_details")][name].as_u64();
    Usage {
        input_tokens: usage[input].as_u64(),
        cached_input_tokens: details(input, "cached_tokens"),
        cache_write_tokens: details(input, "cache_write_tokens"),
        output_tokens: usage[output].as_u64(),
        reasoning_tokens: details(output, "reasoning_tokens"),
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?} is not {expected:?}")) }
}
