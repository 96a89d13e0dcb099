//! An OpenAI-compatible vendor that does what the request's content tells it, and remembers.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// What a request's content asks for. Each member is optional.
#[derive(Debug, Clone, Deserialize)]
struct Behaviour {
    name: String,
    /// Waits before it answers.
    #[serde(default)]
    delay_ms: u64,
    /// Fails this many calls of this name first.
    #[serde(default)]
    fail_times: usize,
    /// With this status (default 503).
    status: Option<u16>,
    /// And this `retry-after` header.
    retry_after: Option<String>,
    /// Answers 429 at once while it has more calls than this in hand.
    at_most: Option<usize>,
}

/// One call, as the vendor saw it.
#[derive(Debug, Clone)]
pub struct Call {
    pub name: String,
    pub began: Instant,
    /// When the caller closed the socket before the answer.
    pub abandoned: Option<Instant>,
    pub answered: Option<u16>,
}

#[derive(Debug, Clone, Default)]
struct Seen(Arc<Mutex<Vec<Call>>>);

pub struct Vendor {
    address: SocketAddr,
    seen: Seen,
    server: tokio::task::JoinHandle<()>,
}

impl Vendor {
    pub async fn start() -> Self {
        let seen = Seen::default();
        let router =
            Router::new().route("/v1/chat/completions", post(chat)).with_state(seen.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async move { axum::serve(listener, router).await.unwrap() };
        #[expect(clippy::disallowed_methods, reason = "the vendor owns it and aborts it")]
        let server = tokio::spawn(server);
        Self { address, seen, server }
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The calls of this name so far.
    pub fn calls(&self, name: &str) -> Vec<Call> {
        self.seen.0.lock().unwrap().iter().filter(|call| call.name == name).cloned().collect()
    }

    /// How often each name was called.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for call in self.seen.0.lock().unwrap().iter() {
            *counts.entry(call.name.clone()).or_default() += 1;
        }
        counts
    }

    /// The names in the order of their first calls.
    pub fn order(&self) -> Vec<String> {
        self.seen.0.lock().unwrap().iter().map(|call| call.name.clone()).collect()
    }
}

impl Drop for Vendor {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Notes the moment a call is dropped unanswered.
struct Watch {
    seen: Seen,
    index: usize,
}

impl Watch {
    fn answered(self, status: u16) {
        self.seen.0.lock().unwrap()[self.index].answered = Some(status);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let call = &mut self.seen.0.lock().unwrap()[self.index];
        if call.answered.is_none() {
            call.abandoned = Some(Instant::now());
        }
    }
}

async fn chat(State(seen): State<Seen>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    if headers.get("authorization").is_none_or(|key| key != "Bearer vendor-key") {
        return (StatusCode::UNAUTHORIZED, Json(json!({"error": {"message": "wrong key"}})))
            .into_response();
    }
    let content = body["messages"][0]["content"].as_str().unwrap_or_default();
    let behaviour: Behaviour = serde_json::from_str(content).unwrap();
    let (watch, earlier, is_full) = {
        let mut calls = seen.0.lock().unwrap();
        let is_in_hand = |call: &&Call| call.answered.is_none() && call.abandoned.is_none();
        let n_in_hand = calls.iter().filter(is_in_hand).count();
        let is_full = behaviour.at_most.is_some_and(|at_most| n_in_hand >= at_most);
        let earlier = calls.iter().filter(|call| call.name == behaviour.name).count();
        calls.push(Call {
            name: behaviour.name.clone(),
            began: Instant::now(),
            abandoned: None,
            answered: None,
        });
        (Watch { seen: seen.clone(), index: calls.len() - 1 }, earlier, is_full)
    };
    if is_full {
        watch.answered(429);
        let error = json!({"error": {"message": "slow down", "code": "rate_limit_exceeded"}});
        return (StatusCode::TOO_MANY_REQUESTS, Json(error)).into_response();
    }
    tokio::time::sleep(Duration::from_millis(behaviour.delay_ms)).await;
    if earlier < behaviour.fail_times {
        let status = StatusCode::from_u16(behaviour.status.unwrap_or(503)).unwrap();
        watch.answered(status.as_u16());
        let error = json!({"error": {"message": "as asked", "type": "server_error", "code": null}});
        let mut response = (status, Json(error)).into_response();
        if let Some(wait) = &behaviour.retry_after {
            response.headers_mut().insert("retry-after", wait.parse().unwrap());
        }
        return response;
    }
    watch.answered(200);
    Json(json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": format!("hello {}", behaviour.name)},
            "finish_reason": "stop",
        }],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    }))
    .into_response()
}
