//! Bedrock.

use std::collections::{BTreeMap, VecDeque};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use inferq_common::{
    error::ErrorClass,
    job::{Json, Route},
    route,
    usage::Usage,
    vendor::Vendor,
};
use inferq_vendors::framing::Framing;
use serde_json::Value;

use super::{
    Body, Expected, Failing, Failure, Plan, RecordedFrame, Recording, Success, Target, document,
    settings,
};

const FAILURES: &[Failing] = &[
    ("018", ErrorClass::InvalidRequest, None),
    ("042", ErrorClass::ContextLength, None),
    ("043", ErrorClass::NotFound, None),
    ("044", ErrorClass::NotFound, None),
    ("045", ErrorClass::NotFound, None),
    ("046", ErrorClass::NotFound, None),
    ("047", ErrorClass::Auth, None),
    ("048", ErrorClass::Auth, None),
    ("049", ErrorClass::Auth, None),
    ("050", ErrorClass::NotFound, None),
    ("051", ErrorClass::RateLimited, None),
    ("052", ErrorClass::RateLimited, None),
    ("053", ErrorClass::RateLimited, None),
    ("054", ErrorClass::RateLimited, None),
    ("055", ErrorClass::Transient, None),
    ("056", ErrorClass::Overloaded, None),
    ("057", ErrorClass::Overloaded, None),
];

const SIGNATURE: &str = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/*/us-east-1/bedrock/aws4_request, \
    SignedHeaders=content-type;host;x-amz-date, Signature=*";

/// Which endpoint was called, as the path says.
struct At {
    model: String,
    route: Route,
    streams: bool,
    prefix: &'static str,
}

impl At {
    fn of(path: &str, sent: &Value) -> Option<Self> {
        let Some(rest) = path.strip_prefix("/model/") else {
            let (prefix, route) = match path {
                "/v1/chat/completions" => ("/v1", Route::ChatCompletions),
                "/v1/responses" => ("/v1", Route::Responses),
                "/openai/v1/responses" => ("", Route::Responses),
                _ => return None,
            };
            let model = sent["model"].as_str()?.to_owned();
            return Some(Self { model, route, streams: sent["stream"] == true, prefix });
        };
        let (id, operation) = rest.split_once('/')?;
        let (route, streams) = match operation {
            "converse" => (Route::Converse, false),
            "converse-stream" => (Route::Converse, true),
            "invoke" => (Route::Invoke, false),
            "invoke-with-response-stream" => (Route::Invoke, true),
            "count-tokens" => (Route::CountTokens, false),
            _ => return None,
        };
        Some(Self { model: id.replace("%3A", ":"), route, streams, prefix: "" })
    }
}

/// The freedoms: a colon in the path may be encoded or not, ours is; a `model` in the body of
/// Bedrock's own endpoints goes, since it stands in the path.
pub(super) fn plan(recording: &Recording) -> Result<Plan, &'static str> {
    if recording.request.method != "POST" {
        return Err("no call for inference");
    }
    let args = recording.args().unwrap_or_else(|| Json::parse("{}").expect("JSON"));
    let sent = document(args.as_str());
    let path = recording.request.url.path();
    let at = At::of(path, &sent).ok_or("no call for inference")?;
    let chosen = route::choose(Vendor::Bedrock, &at.model, args.as_str(), None);
    let texts = texts(recording, &at);
    let ids = ["x-amzn-requestid", "x-request-id"];
    Ok(Plan {
        settings: settings([
            ("region", Some("us-east-1")),
            ("access_key_id", Some("AKIDEXAMPLE")),
            ("secret_access_key", Some("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")),
        ]),
        prefix: at.prefix.to_owned(),
        request: Expected {
            target: Target::Is(path.replace(':', "%3A")),
            headers: vec![
                ("authorization", Some(SIGNATURE.to_owned())),
                ("x-amz-date", Some("*T*Z".to_owned())),
            ],
            body: body(&args, sent, at.route),
        },
        args,
        route: (chosen != Ok(at.route)).then_some(at.route),
        streams: at.streams,
        request_id: ids.iter().find_map(|name| recording.header(name)),
        answer: if let Some(failure) = recording.failure(FAILURES) {
            let code = recording.header("x-amzn-errortype");
            let code = code.and_then(|code| Some(code.split(':').next()?.to_owned()));
            Err(Failure { said: said(recording), code, ..failure })
        } else {
            let usage = usage(&texts, &recording.response.headers, at.route);
            Ok(Success { texts, usage })
        },
        model: at.model,
    })
}

fn body(args: &Json, mut sent: Value, route: Route) -> Body {
    if matches!(route, Route::ChatCompletions | Route::Responses) {
        return Body::Json(sent);
    }
    let members = sent.as_object_mut().expect("a JSON object");
    match ["model", "modelId"].iter().filter_map(|name| members.remove(*name)).count() {
        0 => Body::Text(args.as_str().to_owned()),
        _ => Body::Json(sent),
    }
}

fn said(recording: &Recording) -> String {
    let body = match &recording.response.decoded_frames {
        Some(frames) => frames.last().map_or("", |frame| frame.payload.as_str()),
        None => recording.body(),
    };
    let document = document(body);
    let message = document.get("message").or_else(|| document.get("Message"));
    let message = message.and_then(Value::as_str).expect("every recorded failure has a message");
    message.chars().take(300).collect()
}

/// What is to be passed on of an answer.
fn texts(recording: &Recording, at: &At) -> Vec<String> {
    let frames = recording.response.decoded_frames.as_ref().filter(|_| at.streams);
    let Some(frames) = frames else { return recording.texts(at.streams) };
    let text = |frame: &RecordedFrame| {
        if at.route == Route::Converse {
            return format!("{{\"{}\":{}}}", frame.headers[":event-type"], frame.payload);
        }
        let payload = document(&frame.payload);
        let inner = STANDARD.decode(payload["bytes"].as_str().unwrap_or_default());
        String::from_utf8(inner.expect("base64")).expect("a text")
    };
    let is_event = |frame: &&RecordedFrame| frame.headers.contains_key(":event-type");
    frames.iter().filter(is_event).map(text).collect()
}

/// Our decoder finds the frames that another one found, however the bytes are split.
pub(super) fn check_frames(recording: &Recording) -> Result<(), String> {
    let Some(frames) = &recording.response.decoded_frames else { return Ok(()) };
    let expected: Vec<_> =
        frames.iter().map(|frame| (frame.headers.clone(), frame.payload.clone())).collect();
    let body = recording.bytes();
    for size in [1, 7, 1000, body.len()] {
        let mut decoder = Framing::EventStream.decoder(1 << 20);
        let mut found = VecDeque::new();
        for piece in body.chunks(size) {
            decoder.push(piece, &mut found).map_err(|error| error.to_string())?;
        }
        decoder.finish(&mut found).map_err(|error| error.to_string())?;
        let found: Vec<(BTreeMap<_, _>, _)> = found
            .into_iter()
            .map(|frame| {
                let text = String::from_utf8_lossy(&frame.data).into_owned();
                (frame.headers.into_iter().collect(), text)
            })
            .collect();
        if found != expected {
            return Err(format!("frames in pieces of {size}: {found:?} are not {expected:?}"));
        }
    }
    Ok(())
}

/// The usage that these documents or headers tell, read without the adapter's help.
fn usage(texts: &[String], headers: &BTreeMap<String, String>, route: Route) -> Usage {
    let last = document(texts.last().expect("an answer"));
    let metrics = &last["amazon-bedrock-invocationMetrics"];
    let told = match route {
        Route::CountTokens => return Usage::default(),
        Route::ChatCompletions | Route::Responses => return super::openai_usage(texts),
        _ if !metrics.is_null() => metrics,
        _ if !last["metadata"].is_null() => &last["metadata"]["usage"],
        _ => &last["usage"],
    };
    let count = |names: &[&str]| names.iter().find_map(|name| told[name].as_u64());
    let header = |name: &str| {
        let count = headers.get(&format!("x-amzn-bedrock-{name}-token-count"))?;
        count.parse::<u64>().ok()
    };
    let by_headers = route == Route::Invoke && told.get("input_tokens").is_none();
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
