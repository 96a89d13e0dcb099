//! A mock OpenAI-compatible vendor: answers each chat with the content it got.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use clap::Args;
use futures::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Debug, Clone, Args)]
pub struct VendorArgs {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Waits this long before each answer
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Answers every N-th call with 503; 0: none
    #[arg(long, default_value_t = 0)]
    fail_every: u64,
}

/// Parts of a streamed answer where the request has no member `chunks`.
const DEFAULT_CHUNKS: u32 = 20;

#[derive(Debug)]
struct Mock {
    args: VendorArgs,
    calls: AtomicU64,
}

#[derive(Deserialize)]
struct Chat<'a> {
    #[serde(borrow)]
    messages: Vec<ChatMessage<'a>>,
    #[serde(default)]
    stream: bool,
    /// Parts of a streamed answer.
    chunks: Option<u32>,
    /// Between two parts.
    #[serde(default)]
    chunk_ms: u64,
}

#[derive(Deserialize)]
struct ChatMessage<'a> {
    #[serde(borrow)]
    content: &'a RawValue,
}

pub async fn run(args: VendorArgs) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(args.listen).await?;
    crate::report::print(&format!("listening on {}", listener.local_addr()?));
    let mock = Arc::new(Mock { args, calls: AtomicU64::new(0) });
    let router = Router::new().route("/v1/chat/completions", post(chat)).with_state(mock);
    axum::serve(crate::report::nodelay(listener), router).await?;
    Ok(())
}

async fn chat(State(mock): State<Arc<Mock>>, body: Bytes) -> Response {
    let Ok(chat) = serde_json::from_slice::<Chat<'_>>(&body) else {
        return (StatusCode::BAD_REQUEST, r#"{"error":{"message":"no chat"}}"#).into_response();
    };
    let Some(message) = chat.messages.first() else {
        return (StatusCode::BAD_REQUEST, r#"{"error":{"message":"no messages"}}"#).into_response();
    };
    if mock.args.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(mock.args.delay_ms)).await;
    }
    let number = mock.calls.fetch_add(1, Ordering::Relaxed) + 1;
    if mock.args.fail_every > 0 && number.is_multiple_of(mock.args.fail_every) {
        let error = r#"{"error":{"message":"as asked","type":"server_error"}}"#;
        return (StatusCode::SERVICE_UNAVAILABLE, error).into_response();
    }
    if chat.stream {
        return streamed(&chat, message.content.get());
    }
    let answer = format!(
        r#"{{"id":"chatcmpl-{number}","object":"chat.completion","created":1,"model":"mock","choices":[{{"index":0,"message":{{"role":"assistant","content":{}}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":8,"completion_tokens":8,"total_tokens":16}}}}"#,
        message.content.get()
    );
    ([("content-type", "application/json")], answer).into_response()
}

/// Each part tells its number and when it was sent, so that whoever reads it knows how long it was on
/// its way.
fn streamed(chat: &Chat<'_>, content: &str) -> Response {
    let every = Duration::from_millis(chat.chunk_ms);
    let begun = tokio::time::Instant::now();
    let content = content.to_owned();
    let n_chunks = chat.chunks.unwrap_or(DEFAULT_CHUNKS);
    let parts = stream::iter(0..n_chunks).then(move |n| {
        let content = content.clone();
        async move {
            if !every.is_zero() {
                tokio::time::sleep_until(begun + every * n).await;
            }
            let sent = crate::streams::now_micros();
            Ok::<_, std::convert::Infallible>(format!(
                "data: {{\"object\":\"chat.completion.chunk\",\"n\":{n},\"sent\":{sent},\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{content}}},\"finish_reason\":null}}]}}\n\n"
            ))
        }
    });
    let end = stream::iter([Ok("data: [DONE]\n\n".to_owned())]);
    ([("content-type", "text/event-stream")], Body::from_stream(parts.chain(end))).into_response()
}
