//! xAI, Fireworks and Azure against a well-behaved server: what goes out and what comes back.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use inferq_common::{
    clock::{Clock, ManualClock, SystemClock},
    config::VendorConfig,
    error::ErrorClass,
    id::JobId,
    job::{Json, Route},
    usage::Usage,
    vendor::Vendor,
};
use inferq_vendors::{
    Adapter, Call, Chunk, Share, VendorError, azure, fireworks_ai, remote::http::Clients, xai,
};
use serde_json::json;
use wiremock::{
    Mock, MockServer, Request, ResponseTemplate,
    matchers::{header, method, path},
};

/// An adapter whose clock stands at noon of 2026-11-20.
fn adapter(vendor: Vendor, config: &VendorConfig) -> Arc<dyn Adapter> {
    let noon = "2026-11-20T12:00:00Z".parse().expect("an instant");
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(noon));
    let clients = Clients::default();
    match vendor {
        Vendor::Xai => Arc::new(xai::adapter(config, &clients, clock).expect("good settings")),
        Vendor::Azure => Arc::new(azure::adapter(config, &clients, clock).expect("good settings")),
        _ => Arc::new(fireworks_ai::adapter(config, &clients, clock).expect("good settings")),
    }
}

fn config(server: &MockServer, prefix: &str) -> VendorConfig {
    VendorConfig {
        base_url: Some(format!("{}{prefix}", server.uri()).parse().expect("an address")),
        api_key: Some("key-number-1".into()),
        ..VendorConfig::default()
    }
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

async fn answering(status: u16, body: &str) -> MockServer {
    let server = MockServer::start().await;
    let answer = ResponseTemplate::new(status).set_body_raw(body, "application/json");
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    server
}

/// The one request that came: path with query, and body.
async fn sent(server: &MockServer) -> (String, String) {
    let requests: Vec<Request> = server.received_requests().await.expect("they are recorded");
    assert_eq!(requests.len(), 1);
    let query = requests[0].url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let body = String::from_utf8(requests[0].body.clone()).expect("a text");
    (format!("{}{query}", requests[0].url.path()), body)
}

#[tokio::test]
async fn every_route_has_its_path_and_its_place_for_the_model() {
    let chat = r#"{"messages": [{"role":"user","content":"hi"}], "n": 1.0}"#;
    let (classic, inference) = (Some("classic"), Some("inference"));
    for (vendor, api, model, args, at, has_model) in [
        (Vendor::Xai, None, "grok-4", chat, "/v1/chat/completions", true),
        (Vendor::Xai, None, "grok-4", r#"{"prompt":"a"}"#, "/v1/completions", true),
        (Vendor::Xai, None, "grok-4", r#"{"input":"a"}"#, "/v1/responses", true),
        (Vendor::Xai, None, "v1", r#"{"input":"a","dimensions":8}"#, "/v1/embeddings", true),
        (Vendor::FireworksAi, None, "accounts/a/models/m#d", chat, "/v1/chat/completions", true),
        (Vendor::FireworksAi, None, "a/m", r#"{"prompt":"a"}"#, "/v1/completions", true),
        (Vendor::FireworksAi, None, "a/m", r#"{"input":"a"}"#, "/v1/responses", true),
        (
            Vendor::FireworksAi,
            None,
            "nomic-ai/nomic-embed-text-v1.5",
            r#"{"input":"a"}"#,
            "/v1/embeddings",
            true,
        ),
        (
            Vendor::FireworksAi,
            None,
            "a/m",
            r#"{"query":"a","documents":["b"]}"#,
            "/v1/rerank",
            true,
        ),
        (Vendor::Azure, None, "d 1", chat, "/v1/openai/v1/chat/completions", true),
        (
            Vendor::Azure,
            classic,
            "d 1",
            chat,
            "/v1/openai/deployments/d%201/chat/completions?api-version=2024-10-21",
            false,
        ),
        (
            Vendor::Azure,
            classic,
            "embed",
            r#"{"input":"a"}"#,
            "/v1/openai/deployments/embed/embeddings?api-version=2024-10-21",
            false,
        ),
        (
            Vendor::Azure,
            inference,
            "grok-4",
            chat,
            "/v1/models/chat/completions?api-version=2024-05-01-preview",
            true,
        ),
        (Vendor::Azure, None, "claude-sonnet-4-5", chat, "/v1/anthropic/v1/messages", true),
    ] {
        let answer = r#"{"id":"1","type":"message","object":"x","choices":[],"data":[],"big":12345678901234567890123}"#;
        let server = answering(200, answer).await;
        let config = VendorConfig { api: api.map(str::to_owned), ..config(&server, "/v1") };
        let reply = adapter(vendor, &config).call(&call(model, args)).await.unwrap();
        assert_eq!(reply.response.as_str(), answer);
        let body = if has_model {
            format!(r#"{{"model":{},{}"#, json!(model), &args[1..])
        } else {
            args.to_owned()
        };
        assert_eq!(sent(&server).await, (at.to_owned(), body), "{vendor} {args}");
    }
}

#[tokio::test]
async fn only_who_has_to_be_asked_for_usage_is_asked() {
    let chunks = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n\
                  data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":\
                  {\"prompt_tokens\":5,\"completion_tokens\":2,\"total_tokens\":10,\
                  \"completion_tokens_details\":{\"reasoning_tokens\":3}}}\n\ndata: [DONE]\n\n";
    for (vendor, asks, output_tokens) in
        [(Vendor::Xai, true, 5), (Vendor::FireworksAi, false, 2), (Vendor::Azure, true, 2)]
    {
        let server = MockServer::start().await;
        let answer = ResponseTemplate::new(200).set_body_raw(chunks, "text/event-stream");
        Mock::given(method("POST")).respond_with(answer).mount(&server).await;
        let adapter = adapter(vendor, &config(&server, ""));
        let mut stream = adapter.stream(&call("a/m", r#"{"messages":[]}"#)).await.unwrap();
        let mut n_chunks = 0;
        let usage = loop {
            match stream.next().await.unwrap().unwrap() {
                Chunk::Data(_) => n_chunks += 1,
                Chunk::End { usage, .. } => break usage,
            }
        };
        let expected = Usage {
            input_tokens: Some(5),
            output_tokens: Some(output_tokens),
            reasoning_tokens: Some(3),
            ..Usage::default()
        };
        assert_eq!((n_chunks, usage), (2, expected), "{vendor}");
        let options = if asks { r#","stream_options":{"include_usage":true}"# } else { "" };
        let body = format!(r#"{{"model":"a/m","stream":true{options},"messages":[]}}"#);
        assert_eq!(sent(&server).await.1, body, "{vendor}");
    }
}

#[tokio::test]
async fn a_vendor_that_is_not_configured_says_what_to_set() {
    for (vendor, words) in [
        (Vendor::Xai, "XAI_API_KEY or vendors.xai.api_key"),
        (Vendor::FireworksAi, "FIREWORKS_API_KEY or vendors.fireworks_ai.api_key"),
        (Vendor::Azure, "AZURE_OPENAI_ENDPOINT or vendors.azure.base_url"),
    ] {
        let adapter = adapter(vendor, &VendorConfig::default());
        for error in [
            adapter.call(&call("m", r#"{"messages":[]}"#)).await.unwrap_err(),
            adapter.stream(&call("m", r#"{"messages":[]}"#)).await.err().unwrap(),
        ] {
            assert_eq!(error.class(), ErrorClass::Auth, "{vendor}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}

#[tokio::test]
async fn an_error_inside_a_200_is_an_error() {
    for (vendor, body, class) in [
        (Vendor::Xai, r#"{"code":"invalid-argument","error":"no"}"#, ErrorClass::InvalidRequest),
        (
            Vendor::FireworksAi,
            r#"{"error":{"code":"DEPLOYMENT_SCALING_UP","message":"no"}}"#,
            ErrorClass::Overloaded,
        ),
        (
            Vendor::Azure,
            r#"{"error":{"code":"content_filter","message":"no"}}"#,
            ErrorClass::Blocked,
        ),
    ] {
        let server = answering(200, body).await;
        let adapter = adapter(vendor, &config(&server, ""));
        let error = adapter.call(&call("a/m", r#"{"messages":[]}"#)).await.unwrap_err();
        assert_eq!((error.class(), error.error.vendor_status), (class, None), "{vendor}");
    }
}

#[tokio::test]
async fn embeddings_and_rerank_are_no_streams() {
    let server = answering(200, "{}").await;
    let adapter = adapter(Vendor::FireworksAi, &config(&server, ""));
    for route in [Route::Rerank, Route::Embeddings] {
        let call = Call { route: Some(route), ..call("a/m", "{}") };
        let error = adapter.stream(&call).await.err().unwrap();
        assert_eq!(error.class(), ErrorClass::InvalidRequest);
    }
    assert!(server.received_requests().await.unwrap().is_empty());
}

/// A resource that takes `entra-token-2` alone, and Entra, which hands out one token after another.
async fn resource_and_entra(n_tokens: u64) -> (MockServer, VendorConfig) {
    let server = MockServer::start().await;
    for number in 1..=n_tokens {
        let token = json!({"access_token": format!("entra-token-{number}"), "expires_in": 3599});
        Mock::given(path("/tenant-1/oauth2/v2.0/token"))
            .respond_with(ResponseTemplate::new(200).set_body_json(token))
            .up_to_n_times(1)
            .expect(1)
            .mount(&server)
            .await;
    }
    Mock::given(path("/openai/v1/chat/completions"))
        .and(header("authorization", "Bearer entra-token-2"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"choices": []})))
        .mount(&server)
        .await;
    let refusal = json!({"error": {"code": "401", "message": "no entra-token-1 here"}});
    Mock::given(path("/openai/v1/chat/completions"))
        .respond_with(ResponseTemplate::new(401).set_body_json(refusal))
        .mount(&server)
        .await;
    let config = VendorConfig {
        api_key: None,
        tenant_id: Some("tenant-1".to_owned()),
        client_id: Some("client-1".to_owned()),
        client_secret: Some("secret-value".into()),
        authority_url: Some(server.uri().parse().expect("an address")),
        ..config(&server, "")
    };
    (server, config)
}

#[tokio::test]
async fn a_refused_token_of_entra_is_replaced_and_the_call_sent_again() {
    let (_server, config) = resource_and_entra(2).await;
    let adapter = adapter(Vendor::Azure, &config);
    let chat = call("gpt-5", r#"{"messages":[]}"#);
    let all = futures::future::join_all((0..100).map(|_| adapter.call(&chat))).await;
    assert!(all.iter().all(Result::is_ok));
    // When it is dropped the server checks that two tokens were fetched.
}

#[tokio::test]
async fn a_token_that_stays_refused_is_an_auth_error_that_tells_no_token() {
    let server = MockServer::start().await;
    let token = json!({"access_token": "entra-token-x", "expires_in": 3599});
    Mock::given(path("/tenant-1/oauth2/v2.0/token"))
        .respond_with(ResponseTemplate::new(200).set_body_json(token))
        .expect(2)
        .mount(&server)
        .await;
    let refusal = json!({"error": {"code": "401", "message": "no entra-token-x here"}});
    Mock::given(path("/openai/v1/chat/completions"))
        .respond_with(ResponseTemplate::new(401).set_body_json(refusal))
        .expect(4)
        .mount(&server)
        .await;
    let config = VendorConfig {
        api_key: None,
        tenant_id: Some("tenant-1".to_owned()),
        client_id: Some("client-1".to_owned()),
        client_secret: Some("secret-value".into()),
        authority_url: Some(server.uri().parse().expect("an address")),
        ..config(&server, "")
    };
    let adapter = adapter(Vendor::Azure, &config);
    for _ in 0..2 {
        let called: Result<_, VendorError> =
            adapter.call(&call("gpt-5", r#"{"messages":[]}"#)).await;
        let error = called.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Auth);
        let message = error.to_string();
        assert!(
            message.contains("no *** here") && message.contains("Cognitive Services"),
            "{message}"
        );
    }
}
