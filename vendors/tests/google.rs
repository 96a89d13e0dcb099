//! The Gemini and Vertex AI adapters against well-behaved servers: what goes out, what comes back,
//! and what happens to a token that is refused.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use inferq_common::{
    clock::{Clock as _, ManualClock, SystemClock},
    config::VendorConfig,
    error::ErrorClass,
    id::JobId,
    job::{Json, Route},
};
use inferq_vendors::{
    Adapter, Call, Chunk, Share,
    gemini::{self, Gemini},
    remote::{Remote, http::Clients},
    vertex_ai::{self, VertexAi},
};
use secrecy::SecretString;
use serde_json::json;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{header, method, path, query_param},
};

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at("2026-11-20T12:00:00Z".parse().expect("an instant")))
}

fn config(server: &MockServer) -> VendorConfig {
    VendorConfig {
        base_url: Some(server.uri().parse().expect("an address")),
        ..VendorConfig::default()
    }
}

fn gemini_at(server: &MockServer) -> Remote<Gemini> {
    let config = VendorConfig { api_key: Some(SecretString::from("key-1")), ..config(server) };
    gemini::adapter(&config, &Clients::default(), clock()).expect("a good configuration")
}

/// Calls with the token that the server hands out under `/token`.
fn vertex_at(server: &MockServer) -> Remote<VertexAi> {
    let account = json!({
        "type": "service_account",
        "client_email": "robot@my-project.iam.gserviceaccount.com",
        "private_key": include_str!("../src/auth/google/test_key.pem"),
        "project_id": "my-project",
        "token_uri": format!("{}/token", server.uri()),
    });
    let config = VendorConfig {
        service_account: Some(SecretString::from(account.to_string())),
        location: Some("us-east5".to_owned()),
        ..config(server)
    };
    vertex_ai::adapter(&config, &Clients::default(), clock()).expect("a good configuration")
}

fn call(model: &str, args: &str) -> Call {
    Call {
        job_id: JobId::new(SystemClock.now()),
        attempt: 1,
        model: model.to_owned(),
        args: Json::parse(args).expect("arguments are JSON"),
        route: None,
        timeout: Duration::from_secs(60),
        memory: Share::default(),
    }
}

async fn stream(adapter: &impl Adapter, call: &Call) -> Vec<Chunk> {
    let chunks = adapter.stream(call).await.expect("a stream");
    chunks.map(|chunk| chunk.expect("a good chunk")).collect().await
}

fn data(text: &str) -> Chunk {
    Chunk::Data(text.to_owned().into())
}

#[tokio::test]
async fn content_goes_out_and_comes_back_untouched() {
    let server = MockServer::start().await;
    let body = r#"{"candidates":[{"finishReason":"STOP"}], "n":1.50,"responseId":"r1",
        "usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":2}}"#;
    Mock::given(method("POST"))
        .and(path("/v1beta/models/gemini-x:generateContent"))
        .and(header("x-goog-api-key", "key-1"))
        .respond_with(ResponseTemplate::new(200).set_body_raw(body, "application/json"))
        .mount(&server)
        .await;
    let args = r#"{"contents": [{"parts":[{"text":"hi"}]}], "generationConfig":{"topP":0.10}}"#;
    let reply = gemini_at(&server).call(&call("gemini-x", args)).await.unwrap();
    assert_eq!(reply.response.as_str(), body);
    assert_eq!(reply.vendor_request_id.as_deref(), Some("r1"));
    assert_eq!((reply.usage.input_tokens, reply.usage.output_tokens), (Some(5), Some(2)));
    let sent = &server.received_requests().await.unwrap()[0];
    assert_eq!(String::from_utf8_lossy(&sent.body), args);
    assert!(!sent.headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_stream_is_understood_as_events_and_as_a_list() {
    let (first, last) = (
        r#"{"candidates":[{"content":{"parts":[{"text":"]},["}]}}]}"#,
        r#"{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":5}}"#,
    );
    for (content_type, body) in [
        ("text/event-stream", format!("data: {first}\r\n\r\ndata: {last}\r\n\r\n")),
        ("application/json; charset=UTF-8", format!("[{first}\n,\r\n{last}\n]")),
    ] {
        let server = MockServer::start().await;
        Mock::given(path("/v1beta/models/m:streamGenerateContent"))
            .and(query_param("alt", "sse"))
            .respond_with(ResponseTemplate::new(200).set_body_raw(body, content_type))
            .mount(&server)
            .await;
        let chunks = stream(&gemini_at(&server), &call("m", r#"{"contents":[]}"#)).await;
        assert_eq!(chunks[..2], [data(first), data(last)], "{content_type}");
        let Chunk::End { usage, .. } = &chunks[2] else { panic!("{chunks:?}") };
        assert_eq!(usage.input_tokens, Some(5));
    }
}

#[tokio::test]
async fn a_list_that_breaks_off_is_no_answer() {
    for body in [r#"[{"candidates":[{"content":{}}]}"#, r#"[{"candidates":[{"finish"#, "["] {
        let server = MockServer::start().await;
        let answer = ResponseTemplate::new(200).set_body_raw(body, "application/json");
        Mock::given(method("POST")).respond_with(answer).mount(&server).await;
        let adapter = gemini_at(&server);
        let chunks: Vec<_> =
            adapter.stream(&call("m", r#"{"contents":[]}"#)).await.unwrap().collect().await;
        let error = chunks.last().unwrap().as_ref().unwrap_err();
        assert_eq!(error.class(), ErrorClass::Transient, "{body}");
    }
}

#[tokio::test]
async fn the_format_of_openai_has_its_own_address_and_header() {
    let server = MockServer::start().await;
    let body = r#"{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
    for at in ["chat/completions", "embeddings"] {
        Mock::given(path(format!("/v1beta/openai/{at}")))
            .and(header("authorization", "Bearer key-1"))
            .respond_with(ResponseTemplate::new(200).set_body_raw(body, "application/json"))
            .mount(&server)
            .await;
    }
    let adapter = gemini_at(&server);
    let reply = adapter.call(&call("gemini-x", r#"{"messages":[]}"#)).await.unwrap();
    assert_eq!((reply.usage.input_tokens, reply.usage.output_tokens), (Some(5), Some(2)));
    adapter.call(&call("gemini-x", r#"{"input":"a"}"#)).await.unwrap();
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests[0].body, br#"{"model":"gemini-x","messages":[]}"#);
    assert!(requests.iter().all(|request| !request.headers.contains_key("x-goog-api-key")));
}

#[tokio::test]
async fn a_bad_key_is_not_shown_and_says_where_to_look() {
    let server = MockServer::start().await;
    let error = json!([{"error": {"code": 400, "message": "API key not valid: key-1-very-secret.",
        "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}]);
    let answer = ResponseTemplate::new(400).set_body_raw(error.to_string(), "text/event-stream");
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    let key = Some(SecretString::from("key-1-very-secret"));
    let config = VendorConfig { api_key: key, ..config(&server) };
    let adapter = gemini::adapter(&config, &Clients::default(), clock()).unwrap();
    let error = adapter.stream(&call("m", r#"{"contents":[]}"#)).await.map(drop).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Auth);
    assert!(error.to_string().contains("not valid: ***."), "{error}");
    assert!(error.to_string().contains("vendors.gemini.api_key"), "{error}");
}

/// Hands out `token-number-1`, then `token-number-2`, and refuses the first with 401.
async fn expiring(at: &str) -> MockServer {
    let server = MockServer::start().await;
    for (number, times) in [(1, 1), (2, 100)] {
        let token = json!({"access_token": format!("token-number-{number}"), "expires_in": 3600});
        Mock::given(path("/token"))
            .respond_with(ResponseTemplate::new(200).set_body_json(token))
            .up_to_n_times(times)
            .mount(&server)
            .await;
    }
    let refused = json!({"error": {"code": 401, "message": "token-number-1 has expired",
        "status": "UNAUTHENTICATED"}});
    Mock::given(path(at))
        .and(header("authorization", "Bearer token-number-1"))
        .respond_with(ResponseTemplate::new(401).set_body_json(refused))
        .mount(&server)
        .await;
    Mock::given(path(at))
        .and(header("authorization", "Bearer token-number-2"))
        .respond_with(ResponseTemplate::new(200).set_body_raw(
            r#"{"type":"message","usage":{"input_tokens":5,"output_tokens":2}}"#,
            "application/json",
        ))
        .mount(&server)
        .await;
    server
}

#[tokio::test]
async fn a_token_that_is_refused_is_fetched_once_more() {
    let at = "/v1/projects/my-project/locations/us-east5/publishers/anthropic/models/\
              claude-x@1:rawPredict";
    let server = expiring(at).await;
    let args = r#"{"messages":[],"max_tokens":9,"model":"other"}"#;
    let reply = vertex_at(&server).call(&call("claude-x@1", args)).await.unwrap();
    assert_eq!((reply.usage.input_tokens, reply.usage.output_tokens), (Some(5), Some(2)));
    let requests = server.received_requests().await.unwrap();
    let paths: Vec<_> = requests.iter().map(|request| request.url.path()).collect();
    assert_eq!(paths, ["/token", at, "/token", at]);
    assert_eq!(
        String::from_utf8_lossy(&requests[3].body),
        r#"{"anthropic_version":"vertex-2023-10-16","messages":[],"max_tokens":9}"#
    );
}

#[tokio::test]
async fn a_hundred_calls_at_once_share_one_token() {
    let server = MockServer::start().await;
    let token = json!({"access_token": "token-number-1", "expires_in": 3600});
    let answer = ResponseTemplate::new(200).set_body_json(token);
    let answer = answer.set_delay(Duration::from_millis(50));
    Mock::given(path("/token")).respond_with(answer).expect(1).mount(&server).await;
    Mock::given(header("authorization", "Bearer token-number-1"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"totalTokens": 7})))
        .expect(100)
        .mount(&server)
        .await;
    let adapter = vertex_at(&server);
    let call = Call { route: Some(Route::CountTokens), ..call("m", r#"{"contents":[]}"#) };
    let replies = futures::future::join_all((0..100).map(|_| adapter.call(&call))).await;
    assert!(replies.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_server_of_ones_own_gets_no_token_that_was_not_meant_for_it() {
    let server = MockServer::start().await;
    let answer = ResponseTemplate::new(200).set_body_json(json!({"predictions": []}));
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    let config = VendorConfig {
        project: Some("p".to_owned()),
        location: Some("global".to_owned()),
        ..config(&server)
    };
    let adapter = vertex_ai::adapter(&config, &Clients::default(), clock()).unwrap();
    adapter.call(&call("m", r#"{"instances":[]}"#)).await.unwrap();
    let sent = &server.received_requests().await.unwrap()[0];
    assert_eq!(
        sent.url.path(),
        "/v1/projects/p/locations/global/publishers/google/models/m:predict"
    );
    assert!(!sent.headers.contains_key("authorization"));
}

#[tokio::test]
async fn without_a_project_nothing_is_sent() {
    let server = MockServer::start().await;
    let config = config(&server);
    let adapter = vertex_ai::adapter(&config, &Clients::default(), clock()).unwrap();
    let error = adapter.call(&call("m", r#"{"instances":[]}"#)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Auth);
    for part in ["GOOGLE_CLOUD_PROJECT", "vendors.vertex_ai.project"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(server.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_key_alone_calls_without_a_project() {
    let server = MockServer::start().await;
    let answer = ResponseTemplate::new(200).set_body_json(json!({"candidates": []}));
    Mock::given(path("/v1beta1/publishers/google/models/m:generateContent"))
        .and(header("x-goog-api-key", "key-1"))
        .respond_with(answer)
        .mount(&server)
        .await;
    let config = VendorConfig {
        api_key: Some(SecretString::from("key-1")),
        api_version: Some("v1beta1".to_owned()),
        project: Some("ignored".to_owned()),
        ..config(&server)
    };
    let adapter = vertex_ai::adapter(&config, &Clients::default(), clock()).unwrap();
    adapter.call(&call("m", r#"{"contents":[]}"#)).await.unwrap();
}
