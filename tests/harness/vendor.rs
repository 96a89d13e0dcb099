//! An OpenAI-compatible vendor that does what the request's content tells it, and remembers.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use futures::stream;
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
    /// Parts of a streamed answer; what each holds is [`part`].
    #[serde(default)]
    parts: u32,
    /// Between two of them.
    #[serde(default)]
    part_ms: u64,
    /// Bytes of each, at least.
    #[serde(default)]
    part_bytes: usize,
    /// Closes the connection before the part of this number.
    cut_before: Option<u32>,
}

/// The text in part `n` of the streamed answer to the request of this name.
pub fn part(name: &str, n: u32, bytes: usize) -> String {
    format!("{name}-{n} {}", "x".repeat(bytes))
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

    pub fn address(&self) -> SocketAddr {
        self.address
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
    if body["stream"] == true {
        return streamed(behaviour, watch);
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

/// Answers part by part. A reader that leaves in the midst of it has abandoned the call.
fn streamed(behaviour: Behaviour, watch: Watch) -> Response {
    let parts = stream::unfold((0, Some(watch)), move |(n, watch)| {
        let behaviour = behaviour.clone();
        async move {
            let watch = watch?;
            if n > 0 {
                tokio::time::sleep(Duration::from_millis(behaviour.part_ms)).await;
            }
            if behaviour.cut_before == Some(n) {
                watch.answered(200);
                return Some((Err(std::io::Error::other("cut as asked")), (n, None)));
            }
            let choice =
                |delta, reason| json!({"index": 0, "delta": delta, "finish_reason": reason});
            let mut chunk = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "n": n});
            if n < behaviour.parts {
                let text = part(&behaviour.name, n, behaviour.part_bytes);
                chunk["choices"] = json!([choice(json!({"content": text}), Value::Null)]);
                return Some((Ok(format!("data: {chunk}\n\n")), (n + 1, Some(watch))));
            }
            watch.answered(200);
            chunk["choices"] = json!([choice(json!({}), "stop".into())]);
            chunk["usage"] =
                json!({"prompt_tokens": 7, "completion_tokens": n, "total_tokens": n + 7});
            Some((Ok(format!("data: {chunk}\n\ndata: [DONE]\n\n")), (n, None)))
        }
    });
    ([("content-type", "text/event-stream")], Body::from_stream(parts)).into_response()
}
