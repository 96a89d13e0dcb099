//! Reads server-sent events as a client does, one after the other.

use futures::{StreamExt as _, stream::BoxStream};
use serde_json::Value;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: Option<u64>,
    /// `message` where the stream names none.
    pub name: String,
    pub data: String,
}

impl Event {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

/// What is left of a stream. Dropped, the connection is closed.
pub struct Events {
    bytes: BoxStream<'static, reqwest::Result<axum::body::Bytes>>,
    text: Vec<u8>,
    /// Why the connection ended before the stream did.
    pub broken: Option<reqwest::Error>,
}

impl Events {
    /// Takes an answer that must be a stream.
    pub async fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let kind = headers.get("content-type").map_or("", |kind| kind.to_str().unwrap());
        let is_stream = status == 200 && kind.starts_with("text/event-stream");
        if !is_stream {
            let text = response.text().await.unwrap();
            panic!("{status} {kind} is no stream: {text}");
        }
        Self { bytes: response.bytes_stream().boxed(), text: Vec::new(), broken: None }
    }

    /// The next event; `None` once the stream has ended or broken.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(length) = self.text.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.text.drain(..length + 2).collect();
                if let Some(event) = event(std::str::from_utf8(&block).unwrap()) {
                    return Some(event);
                }
            }
            match self.bytes.next().await? {
                Ok(bytes) => self.text.extend_from_slice(&bytes),
                Err(error) => {
                    self.broken = Some(error);
                    return None;
                }
            }
        }
    }

    pub async fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

/// The event of a block; `None` for a comment.
fn event(block: &str) -> Option<Event> {
    let (mut id, mut name, mut data) = (None, "message".to_owned(), Vec::new());
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => id = Some(value.parse().unwrap()),
            "event" => value.clone_into(&mut name),
            "data" => data.push(value),
            _ => {}
        }
    }
    (!data.is_empty()).then(|| Event { id, name, data: data.join("\n") })
}
