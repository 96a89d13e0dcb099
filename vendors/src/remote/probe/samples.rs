//! Typical exchanges with each vendor, written for benchmarks and tests.

use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue as Value, Message};
use inferq_common::{
    clock::{Clock as _, SystemClock},
    id::JobId,
    job::Json,
    vendor::Vendor,
};
use serde_json::json;

use crate::{Call, Share};

/// What a question and an answer say: with what stands around them, about 2 KB.
const SENTENCE: &str =
    "The quick brown fox jumps over the \\\"lazy\\\" dog, über Stock und Stein. ";
const N_SENTENCES: usize = 25;

/// A chat of 2 KB with one vendor, whole and streamed.
#[derive(Debug, Clone)]
pub struct Sample {
    pub vendor: Vendor,
    pub model: &'static str,
    args: String,
    /// The body of a 2xx answer.
    pub response: Vec<u8>,
    /// Of the streamed answer.
    pub stream_type: &'static str,
    /// The chunks of a streamed answer, framed as they come over the wire.
    pub stream: Vec<Vec<u8>>,
}

impl Sample {
    /// With a streamed answer of about so many chunks.
    pub fn of(vendor: Vendor, n_chunks: usize) -> Self {
        let (model, args, response) = match vendor {
            Vendor::OpenAi | Vendor::ModelZoo => ("gpt-5", chat(), completion()),
            Vendor::Azure => ("my-deployment", chat(), completion()),
            Vendor::Xai => ("grok-4", chat(), completion()),
            Vendor::FireworksAi => {
                ("accounts/fireworks/models/llama-v3p1-8b-instruct", chat(), completion())
            }
            Vendor::LlmEngine => ("llama-3-8b-instruct", chat(), completion()),
            Vendor::Anthropic => ("claude-sonnet-4-5", claude_chat(), claude_message()),
            Vendor::Cohere => ("command-a-03-2025", chat(), cohere_message()),
            Vendor::Gemini | Vendor::VertexAi => {
                ("gemini-2.5-flash", gemini_chat(), gemini_content())
            }
            Vendor::Bedrock => ("us.amazon.nova-lite-v1:0", converse_chat(), converse_message()),
            Vendor::Launch => ("end_0123456789", chat(), task(&text(N_SENTENCES))),
        };
        let stream_type = match vendor {
            Vendor::Bedrock => "application/vnd.amazon.eventstream",
            _ => "text/event-stream",
        };
        let stream = stream(vendor, n_chunks);
        Self { vendor, model, args, response: response.into_bytes(), stream_type, stream }
    }

    /// # Panics
    /// If a sample is no JSON.
    pub fn call(&self) -> Call {
        Call {
            job_id: JobId::new(SystemClock.now()),
            attempt: 1,
            model: self.model.to_owned(),
            args: Json::parse(self.args.as_str()).expect("the samples are JSON"),
            route: None,
            timeout: Duration::from_secs(60),
            memory: Share::default(),
        }
    }

    /// The head of the streamed answer.
    pub fn stream_headers(&self) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(self.stream_type))])
    }
}

/// The inside of a JSON text.
fn text(n_sentences: usize) -> String {
    SENTENCE.repeat(n_sentences)
}

fn chat() -> String {
    format!(
        r#"{{"model":"another","messages":[{{"role":"system","content":"You are terse."}},{{"role":"user","content":"{}"}}],"temperature":0.7,"max_tokens":256,"seed":12345678901234567890}}"#,
        text(N_SENTENCES)
    )
}

fn claude_chat() -> String {
    format!(
        r#"{{"system":"You are terse.","messages":[{{"role":"user","content":[{{"type":"text","text":"{}"}}]}}],"temperature":0.7,"max_tokens":256}}"#,
        text(N_SENTENCES)
    )
}

fn gemini_chat() -> String {
    format!(
        r#"{{"systemInstruction":{{"parts":[{{"text":"You are terse."}}]}},"contents":[{{"role":"user","parts":[{{"text":"{}"}}]}}],"generationConfig":{{"temperature":0.7,"maxOutputTokens":256}}}}"#,
        text(N_SENTENCES)
    )
}

fn converse_chat() -> String {
    format!(
        r#"{{"system":[{{"text":"You are terse."}}],"messages":[{{"role":"user","content":[{{"text":"{}"}}]}}],"inferenceConfig":{{"temperature":0.7,"maxTokens":256}}}}"#,
        text(N_SENTENCES)
    )
}

const OPENAI_USAGE: &str = r#"{"prompt_tokens":420,"completion_tokens":210,"total_tokens":630,"prompt_tokens_details":{"cached_tokens":128},"completion_tokens_details":{"reasoning_tokens":64}}"#;

fn completion() -> String {
    format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1795176000,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{}","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],"usage":{OPENAI_USAGE}}}"#,
        text(N_SENTENCES)
    )
}

fn claude_message() -> String {
    format!(
        r#"{{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{{"type":"text","text":"{}"}}],"stop_reason":"end_turn","stop_sequence":null,"usage":{{"input_tokens":292,"cache_creation_input_tokens":0,"cache_read_input_tokens":128,"output_tokens":210}}}}"#,
        text(N_SENTENCES)
    )
}

fn cohere_message() -> String {
    format!(
        r#"{{"id":"c-1","message":{{"role":"assistant","content":[{{"type":"text","text":"{}"}}]}},"finish_reason":"COMPLETE","usage":{{"billed_units":{{"input_tokens":400,"output_tokens":210}},"tokens":{{"input_tokens":420,"output_tokens":210}}}}}}"#,
        text(N_SENTENCES)
    )
}

fn gemini_content() -> String {
    format!(
        r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{}"}}],"role":"model"}},"finishReason":"STOP","index":0}}],"usageMetadata":{{"promptTokenCount":420,"candidatesTokenCount":210,"totalTokenCount":630,"thoughtsTokenCount":64}},"modelVersion":"m","responseId":"r-1"}}"#,
        text(N_SENTENCES)
    )
}

fn converse_message() -> String {
    format!(
        r#"{{"metrics":{{"latencyMs":400}},"output":{{"message":{{"content":[{{"text":"{}"}}],"role":"assistant"}}}},"stopReason":"end_turn","usage":{{"inputTokens":420,"outputTokens":210,"totalTokens":630}}}}"#,
        text(N_SENTENCES)
    )
}

/// What an endpoint of Launch answers: it puts its result into a text.
fn task(said: &str) -> String {
    let result = format!(r#"{{"output":"{said}","index":0}}"#);
    json!({"status": "SUCCESS", "result": {"result": result}, "traceback": null, "status_code": 200})
        .to_string()
}

fn sse(data: &str) -> Vec<u8> {
    format!("data: {data}\n\n").into_bytes()
}

/// Vendors that name their events in front of them.
fn named(kind: &str, data: &str) -> Vec<u8> {
    format!("event: {kind}\ndata: {data}\n\n").into_bytes()
}

fn message(kind: &'static str, payload: &str) -> Vec<u8> {
    let header = |name, value: &'static str| Header::new(name, Value::String(value.into()));
    let message = Message::new(payload.to_owned().into_bytes())
        .add_header(header(":event-type", kind))
        .add_header(header(":content-type", "application/json"))
        .add_header(header(":message-type", "event"));
    let mut bytes = Vec::new();
    write_message_to(&message, &mut bytes).expect("a message of headers and a payload");
    bytes
}

fn stream(vendor: Vendor, n: usize) -> Vec<Vec<u8>> {
    match vendor {
        Vendor::Anthropic => claude_stream(n),
        Vendor::Cohere => cohere_stream(n),
        Vendor::Gemini | Vendor::VertexAi => gemini_stream(n),
        Vendor::Bedrock => converse_stream(n),
        Vendor::Launch => (0..n).map(|n| sse(&task(&format!("word {n}")))).collect(),
        _ => openai_stream(n),
    }
}

fn openai_stream(n: usize) -> Vec<Vec<u8>> {
    let chunk = |delta: &str, reason: &str| {
        sse(&format!(
            r#"{{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1795176000,"model":"m","system_fingerprint":"fp_1","choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{reason}}}],"usage":null}}"#
        ))
    };
    let mut stream = vec![chunk(r#"{"role":"assistant","content":""}"#, "null")];
    stream.extend((0..n).map(|n| chunk(&format!(r#"{{"content":" word {n}"}}"#), "null")));
    stream.push(chunk("{}", r#""stop""#));
    stream.push(sse(&format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1795176000,"model":"m","choices":[],"usage":{OPENAI_USAGE}}}"#
    )));
    stream.push(sse("[DONE]"));
    stream
}

fn claude_stream(n: usize) -> Vec<Vec<u8>> {
    let mut stream = vec![
        named(
            "message_start",
            r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"usage":{"input_tokens":420,"output_tokens":1}}}"#,
        ),
        named(
            "content_block_start",
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        ),
    ];
    stream.extend((0..n).map(|n| {
        let data = format!(
            r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":" word {n}"}}}}"#
        );
        named("content_block_delta", &data)
    }));
    stream.extend([
        named("content_block_stop", r#"{"type":"content_block_stop","index":0}"#),
        named(
            "message_delta",
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":210}}"#,
        ),
        named("message_stop", r#"{"type":"message_stop"}"#),
    ]);
    stream
}

fn cohere_stream(n: usize) -> Vec<Vec<u8>> {
    let mut stream = vec![named(
        "message-start",
        r#"{"id":"c-1","type":"message-start","delta":{"message":{"role":"assistant","content":[],"tool_plan":"","tool_calls":[],"citations":[]}}}"#,
    )];
    stream.extend((0..n).map(|n| {
        let data = format!(
            r#"{{"type":"content-delta","index":0,"delta":{{"message":{{"content":{{"text":" word {n}"}}}}}}}}"#
        );
        named("content-delta", &data)
    }));
    stream.push(named(
        "message-end",
        r#"{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"billed_units":{"input_tokens":400,"output_tokens":210},"tokens":{"input_tokens":420,"output_tokens":210}}}}"#,
    ));
    stream.push(sse("[DONE]"));
    stream
}

fn gemini_stream(n: usize) -> Vec<Vec<u8>> {
    let part = |n: usize, reason: &str| {
        let data = format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":" word {n}"}}],"role":"model"}},{reason}"index":0}}],"usageMetadata":{{"promptTokenCount":420,"candidatesTokenCount":{n},"totalTokenCount":630}},"modelVersion":"m","responseId":"r-1"}}"#
        );
        format!("data: {data}\r\n\r\n").into_bytes()
    };
    let mut stream: Vec<_> = (0..n).map(|n| part(n, "")).collect();
    stream.push(part(n, r#""finishReason":"STOP","#));
    stream
}

fn converse_stream(n: usize) -> Vec<Vec<u8>> {
    let mut stream = vec![message("messageStart", r#"{"p":"abcdefgh","role":"assistant"}"#)];
    stream.extend((0..n).map(|n| {
        let data = format!(
            r#"{{"contentBlockIndex":0,"delta":{{"text":" word {n}"}},"p":"abcdefghijklmnop"}}"#
        );
        message("contentBlockDelta", &data)
    }));
    stream.extend([
        message("contentBlockStop", r#"{"contentBlockIndex":0,"p":"abc"}"#),
        message("messageStop", r#"{"p":"abc","stopReason":"end_turn"}"#),
        message(
            "metadata",
            r#"{"metrics":{"latencyMs":400},"usage":{"inputTokens":420,"outputTokens":210,"totalTokens":630}}"#,
        ),
    ]);
    stream
}
