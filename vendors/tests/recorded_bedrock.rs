//! Replays real exchanges with Bedrock, where a folder of them is at hand:
//! `INFERQ_VENDOR_TRAFFIC=folder cargo test -p inferq-vendors --test recorded_bedrock -- --nocapture`.
//!
//! Each file is one exchange: `{tags, request: {method, url, body}, response: {status, headers,
//! body | body_base64, decoded_frames?, chunk_sizes?}}`. The recordings are not part of this
//! repository. Every stream is replayed twice: in the pieces it came in, and byte by byte.

#[expect(dead_code, reason = "the rest is for OpenAI's adapter")]
mod support;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    fs,
    path::Path,
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::StreamExt as _;
use inferq_common::{
    clock::ManualClock,
    config::VendorConfig,
    error::ErrorClass,
    job::{Json, Route},
    route,
    usage::Usage,
    vendor::Vendor,
};
use inferq_vendors::{
    Adapter, Call, Chunk, VendorError, bedrock, framing::Framing, remote::http::Clients,
};
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
    body_base64: Option<String>,
    decoded_frames: Option<Vec<RecordedFrame>>,
    chunk_sizes: Option<Vec<usize>>,
}

#[derive(Deserialize)]
struct RecordedFrame {
    headers: BTreeMap<String, String>,
    payload: String,
}

/// The class each recorded failure must get, by the file's name up to its number.
const CLASSES: &[(&str, ErrorClass)] = &[
    ("bedrock/018", ErrorClass::InvalidRequest),
    ("bedrock/042", ErrorClass::ContextLength),
    ("bedrock/043", ErrorClass::NotFound),
    ("bedrock/044", ErrorClass::NotFound),
    ("bedrock/045", ErrorClass::NotFound),
    ("bedrock/046", ErrorClass::NotFound),
    ("bedrock/047", ErrorClass::Auth),
    ("bedrock/048", ErrorClass::Auth),
    ("bedrock/049", ErrorClass::Auth),
    ("bedrock/050", ErrorClass::NotFound),
    ("bedrock/051", ErrorClass::RateLimited),
    ("bedrock/052", ErrorClass::RateLimited),
    ("bedrock/053", ErrorClass::RateLimited),
    ("bedrock/054", ErrorClass::RateLimited),
    ("bedrock/055", ErrorClass::Transient),
    ("bedrock/056", ErrorClass::Overloaded),
    ("bedrock/057", ErrorClass::Overloaded),
];

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the folder is no setting of the product")]
#[expect(clippy::print_stdout, reason = "a table for whoever runs it")]
async fn real_exchanges_are_understood() {
    let Ok(folder) = std::env::var("INFERQ_VENDOR_TRAFFIC") else {
        println!("INFERQ_VENDOR_TRAFFIC names no folder of recordings: nothing to replay");
        return;
    };
    let (mut n_passed, mut n_named, mut faults) = (0, 0, String::new());
    let mut n_failed = 0;
    for (name, recording) in recordings(Path::new(&folder)) {
        let call = Replay::of(&recording).expect("every recording is a call");
        n_named += usize::from(call.call.route.is_some());
        let mut outcome = check_frames(&recording.response);
        for by_bytes in [false, true] {
            if outcome.is_ok() {
                outcome = replay(&name, &recording, &call, by_bytes).await;
            }
        }
        match outcome {
            Ok(()) => n_passed += 1,
            Err(fault) => {
                n_failed += 1;
                writeln!(faults, "{name}: {fault}").unwrap();
            }
        }
    }
    println!(
        "bedrock    {n_passed} passed, {n_failed} failed, 0 not applicable; the endpoint of {n_named} \
         had to be named, as their arguments fit more than one"
    );
    assert!(n_passed + n_failed > 0, "no recordings of bedrock in {folder}");
    assert!(faults.is_empty(), "\n{faults}");
}

fn recordings(folder: &Path) -> BTreeMap<String, Recording> {
    let files = fs::read_dir(folder.join("bedrock")).expect("a folder of recordings");
    let read = |path: &Path| {
        let text = fs::read_to_string(path).expect("a readable file");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let files = files.map(|file| file.expect("a readable folder").path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let stem = path.file_stem().expect("a file has a name").to_string_lossy();
            (format!("bedrock/{stem}"), read(&path))
        })
        .collect()
}

/// What is called, read off the recorded address.
struct Replay {
    call: Call,
    route: Route,
    streams: bool,
    /// What stands in for the recorded host and what of the path belongs to it.
    prefix: &'static str,
}

impl Replay {
    fn of(recording: &Recording) -> Option<Self> {
        let RecordedRequest { url, body, method } = &recording.request;
        if method != "POST" {
            return None;
        }
        let args = body.as_deref().filter(|body| body.get().starts_with('{'));
        let args = Json::from(args.map_or_else(empty, ToOwned::to_owned));
        let document: Value = serde_json::from_str(args.as_str()).ok()?;
        let (model, route, streams, prefix) = if let Some(rest) = url.path().strip_prefix("/model/")
        {
            let (id, operation) = rest.split_once('/')?;
            let (route, streams) = match operation {
                "converse" => (Route::Converse, false),
                "converse-stream" => (Route::Converse, true),
                "invoke" => (Route::Invoke, false),
                "invoke-with-response-stream" => (Route::Invoke, true),
                "count-tokens" => (Route::CountTokens, false),
                _ => return None,
            };
            (id.replace("%3A", ":"), route, streams, "")
        } else {
            let (prefix, route) = match url.path() {
                "/v1/chat/completions" => ("/v1", Route::ChatCompletions),
                "/v1/responses" => ("/v1", Route::Responses),
                "/openai/v1/responses" => ("", Route::Responses),
                _ => return None,
            };
            let model = document["model"].as_str()?.to_owned();
            (model, route, document["stream"] == true, prefix)
        };
        let chosen = route::choose(Vendor::Bedrock, &model, args.as_str(), None);
        let named = (chosen != Ok(route)).then_some(route);
        let call = Call { args, model, route: named, ..call("{}") };
        Some(Self { call, route, streams, prefix })
    }
}

fn empty() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).expect("JSON")
}

/// Our decoder finds the frames that another one found, however the bytes are split.
fn check_frames(response: &RecordedResponse) -> Result<(), String> {
    let (Some(body), Some(frames)) = (&response.body_base64, &response.decoded_frames) else {
        return Ok(());
    };
    let body = STANDARD.decode(body).expect("base64");
    for size in [1, 7, 1000, body.len()] {
        let mut decoder = Framing::EventStream.decoder(1 << 20);
        let mut found = VecDeque::new();
        for piece in body.chunks(size) {
            decoder.push(piece, &mut found).map_err(|error| error.to_string())?;
        }
        decoder.finish(&mut found).map_err(|error| error.to_string())?;
        let found: Vec<_> = found
            .into_iter()
            .map(|frame| {
                let headers: BTreeMap<_, _> = frame.headers.into_iter().collect();
                (headers, String::from_utf8_lossy(&frame.data).into_owned())
            })
            .collect();
        let expected: Vec<_> =
            frames.iter().map(|frame| (frame.headers.clone(), frame.payload.clone())).collect();
        same("frames", &found, &expected)?;
    }
    Ok(())
}

/// Sends what was sent and answers what was answered.
async fn replay(
    name: &str,
    recording: &Recording,
    replay: &Replay,
    by_bytes: bool,
) -> Result<(), String> {
    let Recording { request, response } = recording;
    let server = Server::answering(answer(response, by_bytes)).await;
    let adapter = adapter(&format!("http://{}{}", server.address, replay.prefix));
    let outcome = if replay.streams {
        stream(&adapter, &replay.call).await
    } else {
        soon(adapter.call(&replay.call)).await.map(|reply| Answered {
            texts: vec![reply.response.as_str().to_owned()],
            usage: reply.usage,
            request_id: reply.vendor_request_id,
        })
    };
    let requests = server.requests();
    same("number of requests", &requests.len(), &1)?;
    check_request(&requests[0], request, replay)?;
    let ids = ["x-amzn-requestid", "x-request-id"];
    let request_id = ids.iter().find_map(|name| response.headers.get(*name)).cloned();
    let class = CLASSES.iter().find(|(prefix, _)| name.starts_with(prefix));
    match (class, outcome) {
        (None, Ok(answered)) => {
            same("request id", &answered.request_id, &request_id)?;
            let texts = texts(response, replay);
            same("texts", &answered.texts, &texts)?;
            same("usage", &answered.usage, &usage(&texts, &response.headers, replay.route))
        }
        (Some(&(_, class)), Err(error)) => {
            same("class", &error.class(), &class)?;
            same("request id", &error.error.vendor_request_id, &request_id)?;
            let status = Some(response.status).filter(|status| *status != 200);
            same("status", &error.error.vendor_status, &status)?;
            same("wait", &error.retry_after, &None)?;
            let kind = response.headers.get("x-amzn-errortype");
            let kind = kind.map(|kind| kind.split(':').next().unwrap_or_default().to_owned());
            if status.is_some() {
                same("code", &error.error.vendor_code, &kind)?;
            }
            check_message(&error, response)
        }
        (_, Ok(_)) => Err("it succeeded".to_owned()),
        (_, Err(error)) => Err(format!("it failed: {error}")),
    }
}

fn adapter(base_url: &str) -> impl Adapter + use<> {
    let config = VendorConfig {
        base_url: Some(base_url.parse().expect("an address")),
        region: Some("us-east-1".to_owned()),
        access_key_id: Some("AKIDEXAMPLE".into()),
        secret_access_key: Some("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into()),
        ..VendorConfig::default()
    };
    let noon = "2026-11-20T12:00:00Z".parse().expect("an instant");
    bedrock::adapter(&config, &Clients::default(), Arc::new(ManualClock::at(noon)))
        .expect("a good configuration")
}

struct Answered {
    texts: Vec<String>,
    usage: Usage,
    request_id: Option<String>,
}

async fn stream(adapter: &impl Adapter, call: &Call) -> Result<Answered, VendorError> {
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

/// The recorded answer as bytes: a stream in chunks as they came, or byte by byte.
fn answer(response: &RecordedResponse, by_bytes: bool) -> Vec<u8> {
    let body = match &response.body_base64 {
        Some(body) => STANDARD.decode(body).expect("base64"),
        None => response.body.clone().unwrap_or_default().into_bytes(),
    };
    let mut head = format!("HTTP/1.1 {} Recorded\r\nconnection: close\r\n", response.status);
    for (name, value) in &response.headers {
        write!(head, "{name}: {value}\r\n").expect("a text takes all");
    }
    let mut bytes = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
    let mut sizes = response.chunk_sizes.iter().flatten().copied();
    let mut rest = body.as_slice();
    while !rest.is_empty() {
        let size = if by_bytes { 1 } else { sizes.next().unwrap_or(137).clamp(1, rest.len()) };
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
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
    replay: &Replay,
) -> Result<(), String> {
    let signature = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261120/us-east-1/bedrock/aws4_request, \
        SignedHeaders=content-type;host;x-amz-date, Signature=";
    let authorization = request.header("authorization").unwrap_or_default();
    same("authorization", &authorization.starts_with(signature), &true)?;
    same("x-amz-date", &request.header("x-amz-date"), &Some("20261120T120000Z"))?;
    same("content type", &request.header("content-type"), &Some("application/json"))?;
    // A colon may be encoded or not; ours is.
    let path = recorded.url.path().replace(':', "%3A");
    let line = format!("POST {path} HTTP/1.1");
    same("request line", &request.head.lines().next(), &Some(line.as_str()))?;
    let args = replay.call.args.as_str();
    let mut expected: Value = serde_json::from_str(args).expect("a JSON object");
    let members = expected.as_object_mut().expect("a JSON object");
    if !matches!(replay.route, Route::ChatCompletions | Route::Responses) {
        // The model stands in the path.
        let n_own = ["model", "modelId"].iter().filter_map(|name| members.remove(*name)).count();
        if n_own == 0 {
            return same("body", &request.body.as_str(), &args);
        }
    }
    let body: Value = serde_json::from_str(&request.body).map_err(|error| error.to_string())?;
    same("body", &body, &expected)
}

fn check_message(error: &VendorError, response: &RecordedResponse) -> Result<(), String> {
    let body = match &response.decoded_frames {
        Some(frames) => frames.last().map(|frame| frame.payload.clone()),
        None => response.body.clone(),
    };
    let document: Value = serde_json::from_str(&body.unwrap_or_default()).unwrap_or_default();
    let message = document.get("message").or_else(|| document.get("Message"));
    let message = message.and_then(Value::as_str).ok_or("the recording has no message")?;
    let said = message.chars().take(300).collect::<String>();
    if error.to_string().contains(&said) { Ok(()) } else { Err(format!("message: {error}")) }
}

/// What is to be passed on of an answer.
fn texts(response: &RecordedResponse, replay: &Replay) -> Vec<String> {
    let body = response.body.as_deref().unwrap_or_default();
    if !replay.streams {
        return vec![body.trim().to_owned()];
    }
    let Some(frames) = &response.decoded_frames else {
        let data = body.lines().filter_map(|line| line.strip_prefix("data: "));
        return data.filter(|data| *data != "[DONE]").map(str::to_owned).collect();
    };
    let text = |frame: &RecordedFrame| {
        if replay.route == Route::Converse {
            return format!("{{\"{}\":{}}}", frame.headers[":event-type"], frame.payload);
        }
        let payload: Value = serde_json::from_str(&frame.payload).expect("recorded JSON");
        let inner = STANDARD.decode(payload["bytes"].as_str().expect("a text")).expect("base64");
        String::from_utf8(inner).expect("a text")
    };
    frames.iter().map(text).collect()
}

/// The usage that these documents or headers tell, read without the adapter's help.
fn usage(texts: &[String], headers: &BTreeMap<String, String>, route: Route) -> Usage {
    let last: Value = serde_json::from_str(texts.last().expect("an answer")).expect("JSON");
    let metrics = &last["amazon-bedrock-invocationMetrics"];
    let document = match route {
        Route::CountTokens => return Usage::default(),
        Route::Responses if !last["response"].is_null() => &last["response"]["usage"],
        Route::Responses => &last["usage"],
        _ if !metrics.is_null() => metrics,
        _ if !last["metadata"].is_null() => &last["metadata"]["usage"],
        _ => &last["usage"],
    };
    let count = |names: &[&str]| names.iter().find_map(|name| document[name].as_u64());
    let header = |name: &str| {
        let count = headers.get(&format!("x-amzn-bedrock-{name}-token-count"))?;
        count.parse::<u64>().ok()
    };
    if matches!(route, Route::ChatCompletions | Route::Responses) {
        return Usage {
            input_tokens: count(&["input_tokens", "prompt_tokens"]),
            cached_input_tokens: document["input_tokens_details"]["cached_tokens"].as_u64(),
            cache_write_tokens: document["input_tokens_details"]["cache_write_tokens"].as_u64(),
            output_tokens: count(&["output_tokens", "completion_tokens"]),
            reasoning_tokens: document["output_tokens_details"]["reasoning_tokens"].as_u64(),
        };
    }
    let by_headers = route == Route::Invoke && document.get("input_tokens").is_none();
    let by_headers = by_headers && header("input").is_some();
    let told = |name, names: &[&str]| if by_headers { header(name) } else { count(names) };
    let input = told("input", &["input_tokens", "inputTokens", "inputTokenCount"]);
    let read = told(
        "cache-read-input",
        &["cache_read_input_tokens", "cacheReadInputTokens", "cacheReadInputTokenCount"],
    );
    let write = told(
        "cache-write-input",
        &["cache_creation_input_tokens", "cacheWriteInputTokens", "cacheWriteInputTokenCount"],
    );
    Usage {
        input_tokens: input.map(|input| input + read.unwrap_or(0) + write.unwrap_or(0)),
        cached_input_tokens: read,
        cache_write_tokens: write,
        output_tokens: told("output", &["output_tokens", "outputTokens", "outputTokenCount"]),
        reasoning_tokens: None,
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?} is not {expected:?}")) }
}
