//! What holds for every route.

use axum::{Router, body::Body, routing::get};
use http::{Method, Request};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tower::ServiceExt as _;

use crate::{middleware, testing::TestApi};

#[tokio::test]
async fn an_unknown_route_and_an_unknown_method_are_told_in_json() {
    let api = TestApi::start().await;
    let reply = api.get("/v5/nothing").await;
    assert_eq!((reply.status.as_u16(), reply.json()), (404, json!({ "detail": "Not Found" })));
    let reply = api.get("/v5/inference").await;
    assert_eq!(reply.status, 405);
    assert_eq!(reply.json(), json!({ "detail": "Method Not Allowed" }));
    assert_eq!(reply.header("allow"), "POST");
}

#[tokio::test]
async fn a_missing_wrong_or_revoked_key_is_refused_before_anything_is_read() {
    let api = TestApi::start().await;
    let no_key = Request::post("/v5/inference").body(Body::from("nonsense")).unwrap();
    let reply = api.send(no_key).await;
    assert_eq!(reply.status, 401);
    assert_eq!(reply.header("www-authenticate"), "Bearer realm=\"inferq\"");
    assert_eq!(reply.json(), json!({ "detail": "an API key is required in the x-api-key header" }));
    let wrong = api.send(api.request(Method::GET, "/v5/jobs", &[("x-api-key", "iq_no")], "")).await;
    assert_eq!(wrong.status, 401);

    let key = api.add_key("acme", &[]).await;
    let hash = inferq_common::account::KeyHash::of(&key);
    let id = api.store.find_key(&hash).await.unwrap().unwrap().id;
    api.store.revoke_key(id, api.state.clock.now()).await.unwrap();
    let revoked = [("x-api-key", key.expose_secret())];
    assert_eq!(api.send(api.request(Method::GET, "/v5/jobs", &revoked, "")).await.status, 401);
}

#[tokio::test]
async fn a_bearer_token_is_a_key_too() {
    let api = TestApi::start().await;
    let request = Request::get("/v5/jobs")
        .header("authorization", format!("bearer {}", api.key.expose_secret()))
        .body(Body::empty())
        .unwrap();
    assert_eq!(api.send(request).await.status, 200);
}

#[tokio::test]
async fn a_key_acts_for_the_accounts_it_may_use() {
    let api = TestApi::start().await;
    let key = api.add_key("north", &["south"]).await;
    let list = async |account: &str| {
        let headers = [("x-api-key", key.expose_secret()), ("x-selected-account-id", account)];
        api.send(api.request(Method::GET, "/v5/jobs", &headers, "")).await
    };
    assert_eq!(list("north").await.status, 200);
    assert_eq!(list("south").await.status, 200);
    for account in ["acme", "nobody", "no such account!"] {
        let reply = list(account).await;
        assert_eq!(reply.status, 403);
        assert_eq!(
            reply.json(),
            json!({ "detail": "this API key may not use the selected account" })
        );
    }
    let headers = [
        ("x-api-key", key.expose_secret()),
        ("x-selected-account-id", "south"),
        ("prefer", "respond-async"),
    ];
    let made = api.post("/v5/inference", &headers, r#"{"model":"model_zoo/echo"}"#).await;
    assert_eq!(made.json()["account_id"], "south");
    assert_eq!(list("south").await.json()["items"].as_array().unwrap().len(), 1);
    assert_eq!(list("north").await.json()["items"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn a_request_keeps_its_sane_id_and_gets_one_otherwise() {
    let api = TestApi::start().await;
    let id = async |given: &str| {
        let request = api.request(Method::GET, "/v5/nothing", &[("x-request-id", given)], "");
        api.send(request).await.header("x-request-id").to_owned()
    };
    assert_eq!(id("abc-123").await, "abc-123");
    for odd in ["", "a b", &"x".repeat(129)] {
        assert_eq!(id(odd).await.len(), 36, "{odd:?}");
    }
}

#[tokio::test]
async fn too_many_requests_at_once_are_told_to_come_back() {
    let api = TestApi::with(|config| config.max_concurrent_requests = 1).await;
    let waits = api.post("/v5/inference", &[], r#"{"model":"model_zoo/echo"}"#);
    let second = async {
        api.claim().await;
        api.get("/v5/jobs").await
    };
    let reply = tokio::select! {
        _ = waits => panic!("nobody answers the first"),
        reply = second => reply,
    };
    assert_eq!(reply.status, 503);
    assert_eq!(reply.header("retry-after"), "1");
    assert_eq!(reply.json(), json!({ "detail": "too many requests are being served" }));
    assert_eq!(api.get("/v5/jobs").await.status, 200, "the first has gone away");
}

#[tokio::test]
async fn a_store_that_is_down_is_told_as_503() {
    let api = TestApi::start().await;
    let body = r#"{"model":"model_zoo/echo"}"#;
    api.accepted(body).await;
    api.store.close().await;
    let reply = api.post("/v5/inference", &[], body).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_eq!(reply.header("retry-after"), "1");
    assert!(!reply.headers.contains_key("x-should-retry"), "it may be repeated");
}

#[tokio::test]
async fn a_broker_that_is_down_stops_no_submit() {
    let api = TestApi::start().await;
    api.broker.close(std::time::Duration::ZERO).await;
    api.accepted(r#"{"model":"model_zoo/echo"}"#).await;
}

#[tokio::test]
async fn a_panic_is_a_500_that_tells_nothing() {
    let api = TestApi::start().await;
    let panics = Router::new().route("/", get(async || -> &'static str { panic!("secret") }));
    let router = middleware::for_all(&api.state, panics).with_state(api.state.clone());
    let request = Request::get("/").body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 500);
    assert!(response.headers().contains_key("x-request-id"));
    let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
    assert_eq!(body, r#"{"detail":"Internal Server Error"}"#);
}

#[tokio::test]
async fn large_answers_are_compressed_on_request() {
    let api = TestApi::start().await;
    for _ in 0..5 {
        api.accepted(r#"{"model":"model_zoo/echo"}"#).await;
    }
    let gzip = [("accept-encoding", "gzip, deflate")];
    let request = |path| api.request(Method::GET, path, &gzip, "");
    let encoding = async |path| {
        let response = api.router.clone().oneshot(request(path)).await.unwrap();
        response.headers().get("content-encoding").cloned()
    };
    assert_eq!(encoding("/v5/jobs").await.unwrap(), "gzip");
    assert_eq!(encoding("/v5/jobs?limit=1").await, None);
}
