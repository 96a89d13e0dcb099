//! The Anthropic adapter against a well-behaved server: what goes out and what comes back.

#[path = "support/mock.rs"]
mod mock;

use std::sync::Arc;

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
    anthropic::{self, Anthropic},
    remote::{Remote, http::Clients},
};
use secrecy::SecretString;
use wiremock::{MockServer, ResponseTemplate};

use self::mock::{json, server};

fn adapter(server: &MockServer, change: impl FnOnce(&mut VendorConfig)) -> Remote<Anthropic> {
    let mut config = VendorConfig {
        base_url: Some(server.uri().parse().expect("an address")),
        ..VendorConfig::default()
    };
    change(&mut config);
    let noon = "2026-11-20T12:00:00Z".parse().expect("an instant");
    anthropic::adapter(&config, &Clients::default(), Arc::new(ManualClock::at(noon)))
        .expect("a good configuration")
}

fn keyed(server: &MockServer) -> Remote<Anthropic> {
    adapter(server, |config| config.api_key = Some(SecretString::from("sk-ant-secret-1")))
}

fn call(args: &str) -> Call {
    mock::call("claude-x", args)
}

const ASK: &str =
    r#"{"max_tokens": 9, "messages":[{"role":"user","content":"hi"}],"temperature":0.50}"#;

#[tokio::test]
async fn a_message_goes_out_and_comes_back_untouched() {
    let body = r#"{"id":"msg_1","type":"message","content":[{"type":"text","text":"é"}],
        "usage":{"input_tokens":5,"cache_read_input_tokens":1,"output_tokens":2},"x":1.50}"#;
    let answer = json(200, body).insert_header("request-id", "req_1");
    let server = server("/v1/messages", answer).await;
    let reply = keyed(&server).call(&call(ASK)).await.unwrap();
    assert_eq!(reply.response.as_str(), body);
    assert_eq!(reply.vendor_request_id.as_deref(), Some("req_1"));
    assert_eq!((reply.usage.input_tokens, reply.usage.output_tokens), (Some(6), Some(2)));

    let requests = server.received_requests().await.unwrap();
    let sent = &requests[0];
    assert_eq!(
        String::from_utf8_lossy(&sent.body),
        r#"{"model":"claude-x","max_tokens": 9, "messages":[{"role":"user","content":"hi"}],"temperature":0.50}"#
    );
    let mut headers: Vec<_> = sent
        .headers
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "host" | "user-agent" | "accept-encoding"))
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    headers.sort_unstable();
    let expected = [
        ("accept", "application/json"),
        ("anthropic-version", "2023-06-01"),
        ("content-length", "100"),
        ("content-type", "application/json"),
        ("x-api-key", "sk-ant-secret-1"),
    ];
    assert_eq!(headers, expected);
}

#[tokio::test]
async fn tokens_are_counted_where_the_route_says_so() {
    let server = server("/prefix/v1/messages/count_tokens", json(200, r#"{"input_tokens":14}"#));
    let server = server.await;
    let base_url = format!("{}/prefix/", server.uri()).parse().unwrap();
    let adapter = adapter(&server, |config| config.base_url = Some(base_url));
    let count = Call { route: Some(Route::CountTokens), ..call(r#"{"messages":[]}"#) };
    let reply = adapter.call(&count).await.unwrap();
    assert_eq!(reply.response.as_str(), r#"{"input_tokens":14}"#);
    assert_eq!(reply.usage, Usage::default());
    let error = adapter.stream(&count).await.map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "anthropic: 'count_tokens' cannot be streamed");
    assert_eq!(server.received_requests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_configured_version_is_named_and_what_it_refuses_is_left_out() {
    let sampled = r#"{"messages":[],"temperature":1,"top_p":1,"top_k":5,"a":{"top_k":5}}"#;
    let kept =
        r#"{"model":"claude-x","messages":[],"temperature":1,"top_p":1,"top_k":5,"a":{"top_k":5}}"#;
    let stripped = r#"{"model":"claude-x","messages":[],"a":{"top_k":5}}"#;
    for (setting, header, version, body) in [
        (None, None, "2023-06-01", kept),
        (None, Some("2026-10-21"), "2026-10-21", stripped),
        (Some("2026-10-21"), None, "2026-10-21", stripped),
        (Some("2023-06-01"), Some("2026-10-21"), "2023-06-01", kept),
    ] {
        let server = server("/v1/messages", json(200, "{}")).await;
        let adapter = adapter(&server, |config| {
            config.api_version = setting.map(str::to_owned);
            let own = header.map(|value: &str| ("Anthropic-Version".to_owned(), value.into()));
            config.headers.extend(own);
            config.headers.insert("anthropic-beta".to_owned(), "a-1,b-2".into());
        });
        adapter.call(&call(sampled)).await.unwrap();
        let sent = &server.received_requests().await.unwrap()[0];
        assert_eq!(sent.headers["anthropic-version"], version);
        assert_eq!(sent.headers.get_all("anthropic-version").iter().count(), 1);
        assert_eq!(sent.headers["anthropic-beta"], "a-1,b-2");
        assert_eq!(String::from_utf8_lossy(&sent.body), body);
    }
}

#[tokio::test]
async fn a_subscriptions_token_is_a_bearer_token() {
    let server = server("/v1/messages", json(200, "{}")).await;
    let token = SecretString::from("sk-ant-oat01-secret");
    let adapter = adapter(&server, |config| config.api_key = Some(token));
    adapter.call(&call(ASK)).await.unwrap();
    let sent = &server.received_requests().await.unwrap()[0];
    assert_eq!(sent.headers["authorization"], "Bearer sk-ant-oat01-secret");
    assert!(!sent.headers.contains_key("x-api-key"));
    assert!(!format!("{adapter:?}").contains("oat01"));
}

#[tokio::test]
async fn without_key_and_address_nothing_is_sent_and_the_setting_is_named() {
    let system = Arc::new(SystemClock);
    for key in [None, Some(" ")] {
        let config = VendorConfig { api_key: key.map(SecretString::from), ..Default::default() };
        let adapter = anthropic::adapter(&config, &Clients::default(), system.clone()).unwrap();
        let error = adapter.call(&call(ASK)).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Auth);
        assert_eq!(
            error.to_string(),
            "anthropic is not configured: set ANTHROPIC_API_KEY or vendors.anthropic.api_key"
        );
        let streamed = adapter.stream(&call(ASK)).await.map(|_| ()).unwrap_err();
        assert_eq!(streamed, error);
    }
    let server = server("/v1/messages", json(200, "{}")).await;
    adapter(&server, |_| {}).call(&call(ASK)).await.unwrap();
    assert!(!server.received_requests().await.unwrap()[0].headers.contains_key("x-api-key"));
}

#[tokio::test]
async fn a_nonsensical_setting_is_named() {
    let server = MockServer::start().await;
    let config = |change: fn(&mut VendorConfig)| {
        let base_url = Some(server.uri().parse().unwrap());
        let mut config = VendorConfig { base_url, ..VendorConfig::default() };
        change(&mut config);
        anthropic::adapter(&config, &Clients::default(), Arc::new(SystemClock)).unwrap_err()
    };
    let error = config(|config| config.api_version = Some("\u{7}".to_owned()));
    assert_eq!(error, "api_version: no HTTP header can carry it");
    let error = config(|config| config.api_key = Some(SecretString::from("a\nb")));
    assert_eq!(error, "api_key: holds characters that no HTTP header can carry");
}

#[tokio::test]
async fn arguments_that_fit_no_route_are_not_sent() {
    let server = server("/v1/messages", json(200, "{}")).await;
    for args in [r#"{"prompt":"hi"}"#, "[]", r#"{"messages":null}"#] {
        let error = keyed(&server).call(&call(args)).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::InvalidRequest);
        assert!(error.to_string().starts_with("args "), "{error}");
    }
    assert!(server.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_failure_carries_all_that_the_vendor_said_and_never_the_key() {
    let body = r#"{"type":"error","error":{"type":"authentication_error",
        "message":"invalid x-api-key sk-ant-secret-1"},"request_id":"req_body"}"#;
    let server = server("/v1/messages", json(401, body).insert_header("request-id", "req_head"));
    let server = server.await;
    let adapter = keyed(&server);
    let error = adapter.call(&call(ASK)).await.unwrap_err();
    assert!(!format!("{adapter:?}{error:?}").contains("sk-ant-secret-1"));
    let error = error.error;
    assert_eq!((error.class, error.vendor_status), (ErrorClass::Auth, Some(401)));
    assert_eq!(error.vendor_code.as_deref(), Some("authentication_error"));
    assert_eq!(error.vendor_request_id.as_deref(), Some("req_head"));
    assert_eq!(
        error.message,
        "the vendor answered 401: invalid x-api-key ***; \
         set ANTHROPIC_API_KEY or vendors.anthropic.api_key"
    );
}

#[tokio::test]
async fn a_stream_is_handed_on_event_by_event() {
    let start =
        r#"{"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1}}}"#;
    let ping = r#"{"type": "ping"}"#;
    let delta = r#"{"type":"message_delta","delta":{},"usage":{"output_tokens":7}  }"#;
    let stop = r#"{"type":"message_stop"  }"#;
    let body = format!(
        "event: message_start\ndata: {start}\n\nevent: ping\ndata: {ping}\n\n: note\n\n\
         event: message_delta\r\ndata: {delta}\r\n\r\nevent: message_stop\ndata: {stop}\n\n"
    );
    let answer = ResponseTemplate::new(200)
        .set_body_raw(body, "text/event-stream; charset=utf-8")
        .insert_header("request-id", "req_3");
    let server = server("/v1/messages", answer).await;
    let chunks = keyed(&server).stream(&call(r#"{"messages":[],"stream":false}"#)).await.unwrap();
    let chunks: Vec<_> = chunks.map(Result::unwrap).collect().await;
    let data = |text: &str| Chunk::Data(text.to_owned().into());
    let usage = Usage { input_tokens: Some(3), output_tokens: Some(7), ..Usage::default() };
    let end = Chunk::End { usage, vendor_request_id: Some("req_3".to_owned()) };
    assert_eq!(chunks, [data(start), data(ping), data(delta), data(stop), end]);

    let sent = &server.received_requests().await.unwrap()[0];
    assert_eq!(
        String::from_utf8_lossy(&sent.body),
        r#"{"model":"claude-x","stream":true,"messages":[]}"#
    );
    assert_eq!(sent.headers["accept"], "text/event-stream");
}

#[tokio::test]
async fn a_stream_that_fails_midway_hands_on_what_came() {
    let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":3}}}"#;
    let error = r#"{"type":"error","error":{"details":null,"type":"overloaded_error","message":"Overloaded"}}"#;
    let failed = format!("data: {start}\n\nevent: error\ndata: {error}\n\n");
    let cut = format!("data: {start}\n\n");
    for (body, class, message) in [
        (failed, ErrorClass::Overloaded, "the vendor broke the stream off: Overloaded"),
        (cut, ErrorClass::Transient, "the vendor's stream ended before the answer was complete"),
    ] {
        let answer = ResponseTemplate::new(200).set_body_raw(body, "text/event-stream");
        let server = server("/v1/messages", answer).await;
        let mut chunks = keyed(&server).stream(&call(ASK)).await.unwrap();
        assert_eq!(chunks.next().await, Some(Ok(Chunk::Data(start.into()))));
        let error = chunks.next().await.unwrap().unwrap_err();
        assert_eq!((error.class(), error.to_string().as_str()), (class, message));
        assert_eq!(error.usage.input_tokens, Some(3));
        assert!(chunks.next().await.is_none());
    }
}
