//! The OpenAI adapter against a well-behaved server: what goes out and what comes back.

#[path = "support/mock.rs"]
mod mock;

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use inferq_common::{
    clock::{ManualClock, SystemClock},
    config::VendorConfig,
    error::ErrorClass,
    job::Route,
    usage::Usage,
};
use inferq_vendors::{
    Adapter as _, Call, Chunk,
    openai::{self, OpenAi},
    remote::{Remote, http::Clients},
};
use secrecy::SecretString;
use wiremock::ResponseTemplate;

use self::mock::{call, json, server};

fn adapter(base_url: &str, api_key: Option<&str>) -> Remote<OpenAi> {
    let config = VendorConfig {
        base_url: Some(base_url.parse().expect("an address")),
        api_key: api_key.map(SecretString::from),
        ..VendorConfig::default()
    };
    let noon = "2026-11-20T12:00:00Z".parse().expect("an instant");
    openai::adapter(&config, &Clients::default(), Arc::new(ManualClock::at(noon)))
        .expect("a good configuration")
}

#[tokio::test]
async fn a_chat_completion_goes_out_and_comes_back_untouched() {
    let body = r#"{"id":"c1","choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":5,"completion_tokens":2},"x":1.50,"big":12345678901234567890123}"#;
    let answer = json(200, body).insert_header("x-request-id", "req_1");
    let server = server("/v1/chat/completions", answer).await;
    let adapter = adapter(&format!("{}/v1", server.uri()), Some("sk-test\n"));
    let args =
        r#"{"messages": [{"role":"user","content":"hi"}], "temperature": 0.10, "model":"x"}"#;
    let reply = adapter.call(&call("gpt-5", args)).await.unwrap();
    assert_eq!(reply.response.as_str(), body);
    assert_eq!(reply.vendor_request_id.as_deref(), Some("req_1"));
    let usage = Usage { input_tokens: Some(5), output_tokens: Some(2), ..Usage::default() };
    assert_eq!(reply.usage, usage);

    let requests = server.received_requests().await.unwrap();
    let sent = &requests[0];
    assert_eq!(
        String::from_utf8_lossy(&sent.body),
        r#"{"model":"gpt-5","messages": [{"role":"user","content":"hi"}], "temperature": 0.10}"#
    );
    let header = |name| sent.headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(header("authorization"), Some("Bearer sk-test"));
    assert_eq!(header("content-type"), Some("application/json"));
    assert_eq!(header("accept"), Some("application/json"));
    let agent = concat!("inferq/", env!("CARGO_PKG_VERSION"));
    assert_eq!(header("user-agent"), Some(agent));
    let mut names: Vec<_> = sent.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    let expected = [
        "accept",
        "accept-encoding",
        "authorization",
        "content-length",
        "content-type",
        "host",
        "user-agent",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn without_a_key_no_authorization_is_sent() {
    for key in [None, Some(""), Some(" ")] {
        let server = server("/v1/completions", json(200, "{}")).await;
        let adapter = adapter(&format!("{}/v1/", server.uri()), key);
        adapter.call(&call("m", r#"{"prompt":"a"}"#)).await.unwrap();
        let requests = server.received_requests().await.unwrap();
        assert!(!requests[0].headers.contains_key("authorization"));
    }
}

#[tokio::test]
async fn each_route_has_its_path() {
    for (args, route, at) in [
        (r#"{"messages":[]}"#, None, "/chat/completions"),
        (r#"{"prompt":"a"}"#, None, "/completions"),
        (r#"{"input":"a","dimensions":2}"#, None, "/embeddings"),
        (r#"{"input":"a"}"#, None, "/responses"),
        (r#"{"input":"a"}"#, Some(Route::Embeddings), "/embeddings"),
        (r#"{"anything":1}"#, Some(Route::ChatCompletions), "/chat/completions"),
    ] {
        let server = server(&format!("/fixed/prefix{at}"), json(200, "{}")).await;
        let adapter = adapter(&format!("{}/fixed/prefix?tenant=7", server.uri()), None);
        let call = Call { route, ..call("m", args) };
        assert!(adapter.call(&call).await.is_ok(), "{args}");
        assert_eq!(server.received_requests().await.unwrap()[0].url.query(), Some("tenant=7"));
    }
}

#[tokio::test]
async fn arguments_that_fit_no_route_are_not_sent() {
    let server = server("/v1/responses", json(200, "{}")).await;
    let adapter = adapter(&format!("{}/v1", server.uri()), None);
    for args in [r#"{"text":"hi"}"#, "[]", "\"messages\""] {
        let error = adapter.call(&call("m", args)).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::InvalidRequest);
        assert!(error.to_string().starts_with("args "), "{error}");
    }
    let embeddings = call("m", r#"{"input":"a","dimensions":2}"#);
    let error = adapter.stream(&embeddings).await.map(|_| ()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::InvalidRequest);
    assert_eq!(error.to_string(), "openai: 'embeddings' cannot be streamed");
    assert!(server.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_failure_carries_all_that_the_vendor_said() {
    let body = r#"{"error":{"message":"Rate limit reached. Please try again in 9s.",
        "type":"requests","param":null,"code":"rate_limit_exceeded"}}"#;
    let answer = json(429, body)
        .insert_header("x-request-id", "req_2")
        .insert_header("retry-after", "Fri, 20 Nov 2026 12:00:20 GMT");
    let server = server("/v1/chat/completions", answer).await;
    let adapter = adapter(&format!("{}/v1", server.uri()), None);
    let error = adapter.call(&call("m", r#"{"messages":[]}"#)).await.unwrap_err();
    assert_eq!(error.retry_after, Some(Duration::from_secs(20)));
    let error = error.error;
    assert_eq!(error.class, ErrorClass::RateLimited);
    assert_eq!(error.vendor_status, Some(429));
    assert_eq!(error.vendor_code.as_deref(), Some("rate_limit_exceeded"));
    assert_eq!(error.vendor_request_id.as_deref(), Some("req_2"));
    let message = "the vendor answered 429: Rate limit reached. Please try again in 9s.";
    assert_eq!(error.message, message);
}

#[tokio::test]
async fn a_key_is_never_repeated() {
    let body = r#"{"error":{"message":"Incorrect API key provided: sk-secret-1.","code":"invalid_api_key"}}"#;
    let server = server("/v1/chat/completions", json(401, body)).await;
    let adapter = adapter(&format!("{}/v1", server.uri()), Some("sk-secret-1"));
    let error = adapter.call(&call("m", r#"{"messages":[]}"#)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Auth);
    assert_eq!(error.to_string(), "the vendor answered 401: Incorrect API key provided: ***.");
    assert!(!format!("{adapter:?}{error:?}").contains("sk-secret-1"));
}

#[test]
fn a_key_that_no_header_can_carry_is_refused() {
    let config = VendorConfig {
        base_url: Some("http://127.0.0.1:1".parse().unwrap()),
        api_key: Some(SecretString::from("a\nb")),
        ..VendorConfig::default()
    };
    let error = openai::adapter(&config, &Clients::default(), Arc::new(SystemClock)).unwrap_err();
    assert_eq!(error, "api_key: holds characters that no HTTP header can carry");
}

#[tokio::test]
async fn a_stream_is_handed_on_event_by_event() {
    let first = r#"{"choices":[{"delta":{"content":"é"},"finish_reason":null}],"usage":null}"#;
    let stop = r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":null}"#;
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
    let body = format!(
        ": hi\n\ndata: {first}\r\n\r\ndata: {stop}\n\nevent: x\ndata: {usage}\n\ndata: [DONE]\n\n"
    );
    let answer = ResponseTemplate::new(200)
        .set_body_raw(body, "text/event-stream; charset=utf-8")
        .insert_header("x-request-id", "req_3");
    let server = server("/v1/chat/completions", answer).await;
    let adapter = adapter(&format!("{}/v1", server.uri()), None);
    let chunks = adapter.stream(&call("m", r#"{"messages":[]}"#)).await.unwrap();
    let chunks: Vec<_> = chunks.map(Result::unwrap).collect().await;
    let data = |text: &str| Chunk::Data(text.to_owned().into());
    let end = Chunk::End {
        usage: Usage { input_tokens: Some(5), output_tokens: Some(2), ..Usage::default() },
        vendor_request_id: Some("req_3".to_owned()),
    };
    assert_eq!(chunks, [data(first), data(stop), data(usage), end]);

    let requests = server.received_requests().await.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&requests[0].body),
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#
    );
    assert_eq!(requests[0].headers["accept"], "text/event-stream");
}

#[tokio::test]
async fn a_stream_that_fails_midway_hands_on_what_came() {
    let delta = r#"{"type":"response.output_text.delta","delta":"a"}"#;
    let error = r#"{"type":"error","code":"server_error","message":"sorry","param":null}"#;
    let body = format!("event: a\ndata: {delta}\n\nevent: error\ndata: {error}\n\n");
    let answer = ResponseTemplate::new(200)
        .set_body_raw(body, "text/event-stream")
        .insert_header("x-request-id", "req_4");
    let server = server("/v1/responses", answer).await;
    let adapter = adapter(&format!("{}/v1", server.uri()), None);
    let mut chunks = adapter.stream(&call("m", r#"{"input":"a"}"#)).await.unwrap();
    assert_eq!(chunks.next().await, Some(Ok(Chunk::Data(delta.into()))));
    let error = chunks.next().await.unwrap().unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
    assert_eq!(error.to_string(), "the vendor broke the stream off: sorry");
    assert_eq!(error.error.vendor_request_id.as_deref(), Some("req_4"));
    assert!(chunks.next().await.is_none());
}
