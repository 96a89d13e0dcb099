//! LLM Engine: its own completions, and its OpenAI-shaped surface.
//!
//! Source: <https://llm-engine.scale.com/api/python_client/>.

mod classify;
mod stream;
mod wire;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use http::HeaderMap;
use inferq_common::{
    clock::Clock, config::VendorConfig, job::Route, members::each_member, vendor::Vendor,
};
use url::Url;

use crate::{
    Assemble, Call, assemble,
    auth::{Key, or_missing},
    error::{VendorError, invalid},
    framing::Framing,
    json, openai,
    remote::{
        Dialect, Failure, Follow, Mode, Parsed, Remote, Request, base_headers, base_url, below,
        http::Clients,
    },
};

/// Speaks to an LLM Engine server; the model's name is the name of a model endpoint.
#[derive(Debug)]
pub struct LlmEngine {
    base_url: Url,
    headers: HeaderMap,
}

/// An adapter for the server that `config` names, Scale's hosted one by default.
///
/// # Errors
/// A sentence for an operator: which setting is at fault, or that TLS cannot be set up.
pub fn adapter(
    config: &VendorConfig,
    clients: &Clients,
    clock: Arc<dyn Clock>,
) -> Result<Remote<LlmEngine>, String> {
    let base_url = base_url(config, wire::BASE_URL)?;
    let key = Key::basic(config.api_key.as_ref())?;
    let auth = or_missing(key, Vendor::LlmEngine, config, wire::NO_KEY);
    let http = clients.http(&base_url, config)?;
    let dialect = LlmEngine { base_url, headers: base_headers(config)? };
    Ok(Remote::new(dialect, http, auth, config, clock))
}

impl Dialect for LlmEngine {
    fn vendor(&self) -> Vendor {
        Vendor::LlmEngine
    }

    fn request(&self, call: &Call, route: Route, mode: Mode) -> Result<Request, VendorError> {
        let mut url = below(&self.base_url, wire::path(route, mode));
        let args = call.args.as_str();
        let body = if route == Route::CompletionsSync {
            url.query_pairs_mut().append_pair("model_endpoint_name", &call.model);
            json::pick_members(args, |member| !matches!(member.key.as_ref(), "model" | "stream"))
        } else {
            let asks_for_usage = openai::wire::has_usage_option(route);
            openai::convert::request_body(args, Some(&call.model), mode, asks_for_usage)
        };
        let body = body.map_err(|error| invalid(format!("args: {error}")))?;
        Ok(Request::post(url, self.headers.clone(), mode.accept(), body))
    }

    fn parse(
        &self,
        route: Route,
        headers: &HeaderMap,
        body: Vec<u8>,
        now: DateTime<Utc>,
    ) -> Result<Parsed, VendorError> {
        if route != Route::CompletionsSync {
            return openai::convert::parse(&openai::OPENAI, route, headers, body, now);
        }
        let text = json::text(headers, body)?;
        let (mut output, mut request_id) = (None, None);
        each_member(&text, |member| match member.key.as_ref() {
            "output" if !member.is_null() => output = Some(member.value),
            "request_id" => request_id = serde_json::from_str(member.value).unwrap_or_default(),
            _ => {}
        })
        .map_err(|_| json::no_object(headers, &text))?;
        let Some(output) = output else {
            return Err(classify::error(Failure { status: None, headers, body: &text }, now));
        };
        let usage = wire::usage(output);
        Ok(Parsed { usage, request_id, response: json::keep(text)? })
    }

    fn follow(&self, route: Route, headers: &HeaderMap) -> Option<(Framing, Box<dyn Follow>)> {
        json::may_be_events(headers)
            .then(|| (Framing::Events, Box::new(stream::Reader::new(route)) as Box<dyn Follow>))
    }

    fn assemble(&self, route: Route) -> Box<dyn Assemble> {
        match route {
            Route::CompletionsSync => assemble::llmengine(),
            _ => openai::assemble(route),
        }
    }

    fn failure(&self, failure: Failure<'_>, now: DateTime<Utc>) -> VendorError {
        classify::error(failure, now)
    }
}
