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
    /// Parts of a streamed answer
    #[arg(long, default_value_t = 20)]
    chunks: u32,
    /// Waits this long between two parts
    #[arg(long, default_value_t = 0)]
    chunk_ms: u64,
}

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
        return streamed(&mock.args, message.content.get());
    }
    let answer = format!(
        r#"{{"id":"chatcmpl-{number}","object":"chat.completion","created":1,"model":"mock","choices":[{{"index":0,"message":{{"role":"assistant","content":{}}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":8,"completion_tokens":8,"total_tokens":16}}}}"#,
        message.content.get()
    );
    ([("content-type", "application/json")], answer).into_response()
}

fn streamed(args: &VendorArgs, content: &str) -> Response {
    let wait = Duration::from_millis(args.chunk_ms);
    let content = content.to_owned();
    let parts = stream::iter(0..args.chunks).then(move |_| {
        let chunk = format!(
            "data: {{\"object\":\"chat.completion.chunk\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{content}}},\"finish_reason\":null}}]}}\n\n"
        );
        async move {
            tokio::time::sleep(wait).await;
            Ok::<_, std::convert::Infallible>(chunk)
        }
    });
    let end = stream::iter([Ok("data: [DONE]\n\n".to_owned())]);
    ([("content-type", "text/event-stream")], Body::from_stream(parts.chain(end))).into_response()
}
