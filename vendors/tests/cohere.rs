//! The Cohere adapter against a well-behaved server: what goes out and what comes back.

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
    cohere::{self, Cohere},
    remote::{Remote, http::Clients},
};
use secrecy::SecretString;
use wiremock::{MockServer, ResponseTemplate};

use self::mock::{json, server};

fn adapter(server: &MockServer) -> Remote<Cohere> {
    let config = VendorConfig {
        base_url: Some(server.uri().parse().expect("an address")),
        api_key: Some(SecretString::from("co-secret-1")),
        ..VendorConfig::default()
    };
    let noon = "2026-11-20T12:00:00Z".parse().expect("an instant");
    cohere::adapter(&config, &Clients::default(), Arc::new(ManualClock::at(noon)))
        .expect("a good configuration")
}

fn call(args: &str) -> Call {
    mock::call("command-x", args)
}

async fn sent(server: &MockServer) -> String {
    let requests = server.received_requests().await.expect("they are kept");
    String::from_utf8_lossy(&requests[0].body).into_owned()
}

#[tokio::test]
async fn each_route_has_its_path_and_its_usage() {
    let chat = r#"{"id":"c1","finish_reason":"COMPLETE","message":{},
        "usage":{"billed_units":{"input_tokens":7},"tokens":{"input_tokens":5.0,"output_tokens":2}}}"#;
    let embed = r#"{"id":"c1","embeddings":{},"meta":{"billed_units":{"input_tokens":5}}}"#;
    let rerank = r#"{"id":"c1","results":[],"meta":{"billed_units":{"search_units":1}}}"#;
    let openai = r#"{"id":"c1","choices":[{}],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
    let compatible = Some(Route::ChatCompletions);
    for (args, route, at, answer, tokens) in [
        (r#"{"messages": [],"k":1}"#, None, "/v2/chat", chat, (Some(5), Some(2))),
        (r#"{"texts":["a"], "input_type":"x"}"#, None, "/v2/embed", embed, (Some(5), None)),
        (r#"{"query":"a","documents":[]}"#, None, "/v2/rerank", rerank, (None, None)),
        (
            r#"{"messages":[]}"#,
            compatible,
            "/compatibility/v1/chat/completions",
            openai,
            (Some(5), Some(2)),
        ),
    ] {
        let server = server(at, json(200, answer)).await;
        let reply = adapter(&server).call(&Call { route, ..call(args) }).await.unwrap();
        assert_eq!(reply.response.as_str(), answer);
        assert_eq!((reply.usage.input_tokens, reply.usage.output_tokens), tokens, "{at}");
        assert_eq!(sent(&server).await, format!(r#"{{"model":"command-x",{}"#, &args[1..]));
        let request = &server.received_requests().await.unwrap()[0];
        assert_eq!(request.headers["authorization"], "Bearer co-secret-1");
        assert_eq!(request.headers["content-type"], "application/json");
    }
}

#[tokio::test]
async fn arguments_that_tell_no_route_are_not_sent() {
    let server = server("/v2/chat", json(200, "{}")).await;
    for args in [r#"{"message":"v1"}"#, "[]", r#"{"messages":[],"texts":[]}"#] {
        let error = adapter(&server).call(&call(args)).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::InvalidRequest, "{args}");
    }
    for args in [r#"{"texts":[]}"#, r#"{"query":"a","documents":[]}"#] {
        let error = adapter(&server).stream(&call(args)).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().ends_with("cannot be streamed"), "{error}");
    }
    assert!(server.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn without_key_and_address_nothing_is_sent_and_the_setting_is_named() {
    let config = VendorConfig::default();
    let adapter = cohere::adapter(&config, &Clients::default(), Arc::new(SystemClock)).unwrap();
    let error = adapter.call(&call(r#"{"messages":[]}"#)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Auth);
    let advice = "cohere is not configured: set COHERE_API_KEY or vendors.cohere.api_key";
    assert_eq!(error.to_string(), advice);
}

#[tokio::test]
async fn a_failure_carries_all_that_the_vendor_said_and_never_the_key() {
    let body = r#"{"id":"e1","message":"invalid api token co-secret-1"}"#;
    let answer = json(401, body).insert_header("x-debug-trace-id", "trace-1");
    let server = server("/v2/chat", answer).await;
    let error = adapter(&server).call(&call(r#"{"messages":[]}"#)).await.unwrap_err();
    assert!(!format!("{error:?}").contains("co-secret-1"));
    let error = error.error;
    assert_eq!((error.class, error.vendor_status), (ErrorClass::Auth, Some(401)));
    assert_eq!(error.vendor_request_id.as_deref(), Some("e1"));
    assert!(error.message.starts_with("the vendor answered 401: invalid api token ***; set"));
}

#[tokio::test]
async fn a_stream_is_handed_on_event_by_event() {
    let start = r#"{"id":"m1","type":"message-start","delta":{"message":{}}}"#;
    let word = r#"{"type":"content-delta","delta":{"message":{"content":{"text":"é"}}}}"#;
    let end = r#"{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"tokens":{"input_tokens":5,"output_tokens":2}}}}"#;
    let body = format!(
        "event: message-start\ndata: {start}\n\nevent: content-delta\ndata: {word}\n\n\
         event: message-end\ndata: {end}\n\ndata: [DONE]\n\n"
    );
    let answer = ResponseTemplate::new(200).set_body_raw(body, "text/event-stream");
    let server = server("/v2/chat", answer).await;
    let args = r#"{"messages":[],"stream":true}"#;
    let chunks = adapter(&server).stream(&call(args)).await.unwrap();
    let chunks: Vec<_> = chunks.map(Result::unwrap).collect().await;
    let data = |text: &str| Chunk::Data(text.to_owned().into());
    let usage = Usage { input_tokens: Some(5), output_tokens: Some(2), ..Usage::default() };
    let last = Chunk::End { usage, vendor_request_id: Some("m1".to_owned()) };
    assert_eq!(chunks, [data(start), data(word), data(end), last]);
    assert_eq!(sent(&server).await, r#"{"model":"command-x","stream":true,"messages":[]}"#);
}

#[tokio::test]
async fn a_stream_in_openais_format_asks_for_no_options() {
    let word = r#"{"choices":[{"delta":{"content":"a"},"finish_reason":null}]}"#;
    let stop = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    let body = format!("data: {word}\n\ndata: {stop}\n\ndata: [DONE]\n\n");
    let answer = ResponseTemplate::new(200).set_body_raw(body, "text/event-stream");
    let server = server("/compatibility/v1/chat/completions", answer).await;
    let call = Call { route: Some(Route::ChatCompletions), ..call(r#"{"messages":[]}"#) };
    let chunks = adapter(&server).stream(&call).await.unwrap();
    assert_eq!(chunks.map(Result::unwrap).count().await, 3);
    assert_eq!(sent(&server).await, r#"{"model":"command-x","stream":true,"messages":[]}"#);
}

#[tokio::test]
async fn a_stream_the_model_gave_up_on_hands_on_what_came() {
    let start = r#"{"id":"m1","type":"message-start","delta":{}}"#;
    let end = r#"{"type":"message-end","delta":{"finish_reason":"ERROR","error":"No valid response generated."}}"#;
    let body = format!("data: {start}\n\ndata: {end}\n\ndata: [DONE]\n\n");
    let answer = ResponseTemplate::new(200).set_body_raw(body, "text/event-stream");
    let server = server("/v2/chat", answer).await;
    let mut chunks = adapter(&server).stream(&call(r#"{"messages":[]}"#)).await.unwrap();
    assert_eq!(chunks.next().await, Some(Ok(Chunk::Data(start.into()))));
    let error = chunks.next().await.unwrap().unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
    assert_eq!(error.error.vendor_request_id.as_deref(), Some("m1"));
    assert!(chunks.next().await.is_none());
}
