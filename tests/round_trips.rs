//! A job's result comes back by waiting, by polling and by a signed callback.

#![expect(clippy::unwrap_used, reason = "stories unwrap freely")]

mod harness;

use harness::{Mode, Platform, chat, echo, eventually, receiver::Receiver};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

stories!(
    a_caller_waits_for_the_result,
    a_caller_polls_for_the_result,
    a_callback_arrives_signed,
    the_default_callback_url_of_a_model_is_used,
    an_alias_is_executed,
    json_passes_through_untouched,
    a_vendor_is_called_with_its_key_and_usage_is_kept,
);

async fn a_caller_waits_for_the_result(mode: Mode) {
    let platform = Platform::start(mode).await;
    let response = platform.infer(&echo(&json!({"hello": "world"}))).await;
    assert_eq!(response.status(), StatusCode::OK);
    let id = response.headers()["x-job-id"].to_str().unwrap().to_owned();
    assert!(response.headers().contains_key("x-request-id"));
    let body: Value = response.json().await.unwrap();
    assert_eq!(body, json!({"object": "generic_inference", "response": {"hello": "world"}}));
    assert_eq!(platform.job(&id).await["status"], "succeeded");
    assert_eq!(platform.attempts(&id).await.len(), 1);
}

async fn a_caller_polls_for_the_result(mode: Mode) {
    let platform = Platform::start(mode).await;
    let request = platform
        .request(Method::POST, "/v5/inference")
        .header("prefer", "respond-async")
        .json(&echo(&json!({"delay_ms": 300})));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(response.headers()["preference-applied"], "respond-async");
    assert!(response.headers().contains_key("retry-after"));
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let job: Value = response.json().await.unwrap();
    assert_eq!(location, format!("/v5/jobs/{}", job["id"].as_str().unwrap()));
    assert_eq!(job["object"], "job");

    // A long poll answers as soon as the job has ended.
    let request = platform.request(Method::GET, &location).header("prefer", "wait=30");
    let ended: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(ended["status"], "succeeded");
    assert_eq!(ended["response"], json!({"delay_ms": 300}));
}

async fn a_callback_arrives_signed(mode: Mode) {
    let platform = Platform::start(mode).await;
    let receiver = Receiver::start().await;
    let mut body = echo(&json!({"n": 1}));
    body["callback_url"] = receiver.url("ok/1").into();
    body["metadata"] = json!({"order": 17});
    let response = platform.infer(&body).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED, "a callback_url makes it asynchronous");
    let id = response.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();

    let post = eventually("the callback", async || receiver.posts("ok/1").first().cloned()).await;
    let verifier = standardwebhooks::Webhook::new(&platform.callback_secret()).unwrap();
    verifier.verify(&post.body, &post.headers).unwrap();
    let event = post.json();
    assert_eq!(event["type"], "job.succeeded");
    assert_eq!(event["data"]["id"], id.as_str());
    assert_eq!(event["data"]["response"], json!({"n": 1}));
    assert_eq!(event["data"]["metadata"], json!({"order": 17}));

    let deliveries = eventually("the delivery to be recorded", async || {
        let page = platform.get(&format!("/v5/jobs/{id}/deliveries")).await;
        (page["items"][0]["status"] == "delivered").then_some(page)
    })
    .await;
    assert_eq!(deliveries["items"].as_array().unwrap().len(), 1);
    assert_eq!(deliveries["items"][0]["id"], post.headers["webhook-id"].to_str().unwrap());
    assert_eq!(receiver.posts("ok/1").len(), 1);
}

async fn the_default_callback_url_of_a_model_is_used(mode: Mode) {
    let platform = Platform::start(mode).await;
    let receiver = Receiver::start().await;
    let model = json!({
        "name": "echo",
        "model_vendor": "model_zoo",
        "model_type": "generic",
        "model_metadata": {"default_callback_url": receiver.url("ok/default")},
    });
    let request = platform.request(Method::POST, "/v5/models").json(&model);
    let registered: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(registered["status"], "ready", "{registered}");
    // Every api knows of a new model within a second.
    eventually("the callback", async || {
        let response = platform.infer(&echo(&json!({}))).await;
        assert_eq!(response.status(), StatusCode::OK, "the caller did not ask for a callback");
        receiver.posts("ok/default").first().cloned()
    })
    .await;
}

async fn an_alias_is_executed(mode: Mode) {
    let platform = Platform::start(mode).await;
    let server = json!({"name": "Echo", "alias": "echo", "model_deployment_id": "model_zoo/echo"});
    let request = platform.request(Method::POST, "/v4/serving").json(&server);
    let server: Value = request.send().await.unwrap().json().await.unwrap();
    let id = server["model_server_id"].as_str().unwrap_or_else(|| panic!("{server}"));
    for path in ["/v4/serving/a/echo/execute".to_owned(), format!("/v4/serving/{id}/execute")] {
        let request = platform.request(Method::POST, &path).json(&json!({"input": "hi"}));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["status"], "SUCCESS", "{body}");
        assert_eq!(body["status_code"], 200);
        assert_eq!(body["error_message"], Value::Null);
        assert_eq!(body["result"], json!({"input": "hi"}));
    }
}

async fn json_passes_through_untouched(mode: Mode) {
    let platform = Platform::start(mode).await;
    let args = r#"{"z":1.50,"big":123456789012345678901234567890,"a":{"k":1,"k":2},"e":1E400,"t":"\u0041\ud83d\ude00 é","s":  [ 1,2 ]}"#;
    let request = platform
        .request(Method::POST, "/v5/inference")
        .header("content-type", "application/json")
        .body(format!(r#"{{"model":"model_zoo/echo","args":{args}}}"#));
    let text = request.send().await.unwrap().text().await.unwrap();
    assert_eq!(text, format!(r#"{{"object":"generic_inference","response":{args}}}"#));
}

async fn a_vendor_is_called_with_its_key_and_usage_is_kept(mode: Mode) {
    let platform = Platform::start(mode).await;
    let response = platform.infer(&chat("plain", &json!({}))).await;
    assert_eq!(response.status(), StatusCode::OK);
    let id = response.headers()["x-job-id"].to_str().unwrap().to_owned();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["response"]["choices"][0]["message"]["content"], "hello plain");
    assert_eq!(body["response"]["model"], "gpt-test");
    let job = platform.job(&id).await;
    assert_eq!(job["usage"], json!({"input_tokens": 7, "output_tokens": 2}));
    assert_eq!(platform.vendor.calls("plain").len(), 1);
}
