//! Recorded exchanges with real vendors, and what inferq must make of each.
//!
//! A folder holds one folder for each vendor; each of its files is one exchange: `{request: {method,
//! url, headers, body}, response: {status, headers, body | body_base64, chunk_sizes?,
//! decoded_frames?}}`. The recordings are not part of this repository.

mod anthropic;
mod azure;
mod bedrock;
mod cohere;
mod compatible;
mod google;
mod openai;
pub mod replay;
mod server;

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use inferq_common::{
    error::ErrorClass,
    job::{Json, Route},
    usage::Usage,
    vendor::Vendor,
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

#[derive(Debug, Deserialize)]
pub struct Recording {
    /// `vendor/number-kind-…`: the name of its file.
    #[serde(skip)]
    pub name: String,
    pub request: RecordedRequest,
    pub response: RecordedResponse,
}

#[derive(Debug, Deserialize)]
pub struct RecordedRequest {
    pub method: String,
    pub url: url::Url,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    pub body: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
pub struct RecordedResponse {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Option<String>,
    pub body_base64: Option<String>,
    pub decoded_frames: Option<Vec<RecordedFrame>>,
    pub chunk_sizes: Option<Vec<usize>>,
}

/// A frame of AWS's binary streams, as an independent decoder read it.
#[derive(Debug, Deserialize)]
pub struct RecordedFrame {
    pub headers: BTreeMap<String, String>,
    pub payload: String,
}

impl Recording {
    /// The recordings of one vendor, by name.
    pub fn of_vendor(folder: &Path) -> Vec<Self> {
        let vendor = folder.file_name().expect("a folder has a name").to_string_lossy();
        let files = fs::read_dir(folder).expect("a readable folder");
        let paths = files.map(|file| file.expect("a readable folder").path());
        let mut paths: Vec<_> =
            paths.filter(|path| path.extension().is_some_and(|it| it == "json")).collect();
        paths.sort();
        let read = |path: &Path| {
            let text = fs::read_to_string(path).expect("a readable file");
            let recording: Self = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let stem = path.file_stem().expect("a file has a name").to_string_lossy();
            Self { name: format!("{vendor}/{stem}"), ..recording }
        };
        paths.iter().map(|path| read(path)).collect()
    }

    /// The body that was sent, if it is an object; every call for inference sends one.
    fn args(&self) -> Option<Json> {
        let body = self.request.body.as_deref()?;
        body.get().starts_with('{').then(|| Json::from(body.to_owned()))
    }

    fn header(&self, name: &str) -> Option<String> {
        self.response.headers.get(name).cloned()
    }

    /// What a vendor refuses has the same class whatever was asked for: the answer to what is no call
    /// for inference is replayed to one.
    fn has_failed(&self) -> bool {
        self.response.status >= 400
    }

    fn is_event_stream(&self) -> bool {
        self.header("content-type").is_some_and(|it| it.contains("event"))
    }

    /// The text that was answered.
    fn body(&self) -> &str {
        self.response.body.as_deref().unwrap_or_default()
    }

    fn bytes(&self) -> Vec<u8> {
        match &self.response.body_base64 {
            Some(body) => STANDARD.decode(body).expect("base64"),
            None => self.body().as_bytes().to_owned(),
        }
    }

    /// What stands after `data:` in a stream whose events have one line each.
    fn events(&self) -> Vec<String> {
        let data = self.body().lines().filter_map(|line| line.strip_prefix("data:"));
        data.map(str::trim).filter(|data| *data != "[DONE]").map(str::to_owned).collect()
    }

    /// The events of a stream, else the whole body alone.
    fn texts(&self, streams: bool) -> Vec<String> {
        if streams { self.events() } else { vec![self.body().trim().to_owned()] }
    }

    /// The class and wait in `failures` for the number of this recording.
    fn failure(&self, failures: &[Failing]) -> Option<Failure> {
        let (_, name) = self.name.split_once('/').expect("the vendor comes first");
        let &(_, class, wait) = failures.iter().find(|(number, ..)| name.starts_with(number))?;
        let wait = wait.map(Duration::from_secs);
        Some(Failure { class, wait, said: String::new(), code: None })
    }
}

/// A recorded failure: the number of the file, its class, and the seconds it asks to wait.
type Failing = (&'static str, ErrorClass, Option<u64>);

/// How one recording is replayed, and what must come of it.
#[derive(Debug)]
pub struct Plan {
    /// Keys under `vendors.<vendor>`, but for `base_url`.
    pub settings: BTreeMap<String, String>,
    /// The path that `base_url` stands for.
    pub prefix: String,
    pub model: String,
    pub args: Json,
    /// Named only where `args` alone do not tell it.
    pub route: Option<Route>,
    pub streams: bool,
    pub request: Expected,
    pub request_id: Option<String>,
    pub answer: Result<Success, Failure>,
}

/// What must go out to the vendor.
#[derive(Debug)]
pub struct Expected {
    pub target: Target,
    /// `None`: it must be absent. A `*` stands for anything.
    pub headers: Vec<(&'static str, Option<String>)>,
    pub body: Body,
}

#[derive(Debug)]
pub enum Target {
    /// Path and query.
    Is(String),
    /// The recorder dropped the query.
    Path(String),
    /// Went to a wrong address by mistake of the recorded client, or was no call for inference: only
    /// the answer is replayed.
    Unknown,
}

#[derive(Debug)]
pub enum Body {
    Json(Value),
    /// Byte for byte.
    Text(String),
    /// The recording has none.
    Unknown,
}

#[derive(Debug)]
pub struct Success {
    /// The chunks of a stream, else the response alone.
    pub texts: Vec<String>,
    pub usage: Usage,
}

#[derive(Debug)]
pub struct Failure {
    pub class: ErrorClass,
    pub wait: Option<Duration>,
    /// The vendor's own sentence, which the message must hold.
    pub said: String,
    /// The vendor's code, where it is compared.
    pub code: Option<String>,
}

/// The plan for a recording, or why inferq makes no such call.
pub fn plan(vendor: Vendor, recording: &Recording) -> Result<Plan, &'static str> {
    match vendor {
        Vendor::OpenAi => openai::plan(recording),
        Vendor::ModelZoo => openai::zoo(recording),
        Vendor::Anthropic => anthropic::plan(recording),
        Vendor::Cohere => cohere::plan(recording),
        Vendor::Xai => compatible::xai(recording),
        Vendor::FireworksAi => compatible::fireworks(recording),
        Vendor::Azure => azure::plan(recording),
        Vendor::Gemini => google::gemini(recording),
        Vendor::VertexAi => google::vertex(recording),
        Vendor::Bedrock => bedrock::plan(recording),
        Vendor::Launch | Vendor::LlmEngine => Err("there are no recordings of this vendor"),
    }
}

/// The one key of every plan.
const KEY: &str = "key-number-1";

/// Stands for what a recording does not have: a recorder dropped it, or it was no call for inference.
fn no_messages() -> Json {
    Json::parse(r#"{"model":"some-model","messages":[]}"#).expect("JSON")
}

fn settings<const N: usize>(pairs: [(&str, Option<&str>); N]) -> BTreeMap<String, String> {
    let set =
        pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())));
    set.collect()
}

fn bearer() -> Vec<(&'static str, Option<String>)> {
    vec![("authorization", Some(format!("Bearer {KEY}")))]
}

fn document(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// What a vendor said as errors repeat it: on one line, and its beginning only.
fn excerpt(said: &str) -> String {
    let words: Vec<&str> = said.split_whitespace().collect();
    words.join(" ").chars().take(300).collect()
}

/// The last usage that documents in OpenAI's formats tell, read without the adapter's help.
fn openai_usage(texts: &[String]) -> Usage {
    let of = |text: &String| {
        let document = document(text);
        let usage = document.get("response").unwrap_or(&document)["usage"].clone();
        (!usage.is_null()).then_some(usage)
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

/// The usage that Claude's documents tell: later counts leave out what has not changed, and the
/// input is the sum of its parts.
fn claudes_usage(texts: &[String]) -> Usage {
    let mut all = serde_json::Map::new();
    for text in texts {
        let document = document(text);
        let found = ["/message/usage", "/usage"].iter().find_map(|at| document.pointer(at));
        let members = found.and_then(Value::as_object).cloned().unwrap_or_default();
        all.extend(members.into_iter().filter(|(_, value)| !value.is_null()));
    }
    let all = Value::Object(all);
    let count = |name: &str| all[name].as_u64();
    let (read, written) = (count("cache_read_input_tokens"), count("cache_creation_input_tokens"));
    let cached = read.unwrap_or(0) + written.unwrap_or(0);
    Usage {
        input_tokens: count("input_tokens").map(|input| input + cached),
        cached_input_tokens: read,
        cache_write_tokens: written,
        output_tokens: count("output_tokens"),
        reasoning_tokens: all["output_tokens_details"]["thinking_tokens"].as_u64(),
    }
}
