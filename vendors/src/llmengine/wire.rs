//! What an LLM Engine server says.

use inferq_common::{job::Route, usage::Usage};
use serde::Deserialize;

use crate::remote::Mode;

/// Where the address of Scale's hosted server begins.
pub(super) const BASE_URL: &str = "https://api.spellbook.scale.com/llm-engine";

/// What to do where there is no key.
pub(super) const NO_KEY: &str = "set SCALE_API_KEY or vendors.llmengine.api_key, \
    or vendors.llmengine.base_url for a server of your own";

/// The segments of an endpoint's path, after the base address.
pub(super) fn path(route: Route, mode: Mode) -> &'static [&'static str] {
    match (route, mode) {
        (Route::ChatCompletions, _) => &["v2", "chat", "completions"],
        (Route::Completions, _) => &["v2", "completions"],
        (_, Mode::Whole) => &["v1", "llm", "completions-sync"],
        (_, Mode::Stream) => &["v1", "llm", "completions-stream"],
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Output {
    num_prompt_tokens: Option<u64>,
    num_completion_tokens: Option<u64>,
}

/// What an `output` object says was consumed.
pub(super) fn usage(output: &str) -> Usage {
    let output: Output = serde_json::from_str(output).unwrap_or_default();
    Usage {
        input_tokens: output.num_prompt_tokens,
        output_tokens: output.num_completion_tokens,
        ..Usage::default()
    }
}

/// An event of a stream of its own completions.
#[derive(Deserialize)]
pub(super) struct Event {
    pub request_id: Option<String>,
    pub output: Option<EventOutput>,
    pub error: Option<StreamError>,
}

#[derive(Deserialize)]
pub(super) struct EventOutput {
    #[serde(default)]
    pub finished: bool,
    pub num_prompt_tokens: Option<u64>,
    pub num_completion_tokens: Option<u64>,
}

/// The error inside a stream, the same on both surfaces.
#[derive(Deserialize)]
pub(super) struct StreamError {
    pub status_code: u16,
    #[serde(default)]
    pub content: StreamErrorContent,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct StreamErrorContent {
    pub error: String,
}
