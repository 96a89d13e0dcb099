//! Bad input gets an answer that says what to do, and nothing is stored.

#![expect(clippy::unwrap_used, reason = "stories unwrap freely")]

mod harness;

use harness::{Mode, Platform, echo};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

stories!(what_is_wrong_with_a_submit_is_named_member_by_member, what_is_not_there_is_404);

async fn what_is_wrong_with_a_submit_is_named_member_by_member(mode: Mode) {
    let platform = Platform::start(mode).await;
    let with = |member: &str, value: Value| {
        let mut body = echo(&json!({}));
        body[member] = value;
        body.to_string()
    };
    let configuration =
        |name: &str, value: Value| with("inference_configuration", json!({name: value}));
    let cases: Vec<(String, Value)> = vec![
        (r#"{"args":{}}"#.to_owned(), json!(["body", "model"])),
        (with("model", json!(1)), json!(["body", "model"])),
        (with("model", json!("gpt-5")), json!(["body", "model"])),
        (with("model", json!("acme/gpt-5")), json!(["body", "model"])),
        (with("model", json!("openai/")), json!(["body", "model"])),
        (with("args", json!([])), json!(["body", "args"])),
        (with("priority", json!("urgent")), json!(["body", "priority"])),
        (with("metadata", json!("x")), json!(["body", "metadata"])),
        (with("run_at", json!("tomorrow")), json!(["body", "run_at"])),
        (with("stream", json!("maybe")), json!(["body", "stream"])),
        (
            configuration("timeout_seconds", json!(0)),
            json!(["body", "inference_configuration", "timeout_seconds"]),
        ),
        (
            configuration("timeout_seconds", json!(-1)),
            json!(["body", "inference_configuration", "timeout_seconds"]),
        ),
        (
            configuration("timeout_seconds", json!(1.5)),
            json!(["body", "inference_configuration", "timeout_seconds"]),
        ),
        (
            configuration("timeout_seconds", json!(1e30)),
            json!(["body", "inference_configuration", "timeout_seconds"]),
        ),
        (
            configuration("timeout_seconds", json!("soon")),
            json!(["body", "inference_configuration", "timeout_seconds"]),
        ),
        (
            configuration("num_retries", json!(11)),
            json!(["body", "inference_configuration", "num_retries"]),
        ),
        (
            configuration("route", json!("teleport")),
            json!(["body", "inference_configuration", "route"]),
        ),
        ("[]".to_owned(), json!(["body"])),
        (r#"{"model": "model_zoo/echo", "#.to_owned(), json!(["body", 28])),
        (String::new(), json!(["body"])),
    ];
    for (body, loc) in cases {
        let request = platform
            .request(Method::POST, "/v5/inference")
            .header("content-type", "application/json")
            .body(body.clone());
        let response = request.send().await.unwrap();
        let status = response.status();
        let answer: Value = response.json().await.unwrap();
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {answer}");
        assert_eq!(answer["detail"][0]["loc"], loc, "{body}: {answer}");
        assert!(answer["detail"][0]["msg"].is_string());
    }
    // All errors of one request come together.
    let both = json!({"model": 1, "args": [], "priority": "urgent"});
    let answer: Value = platform.infer(&both).await.json().await.unwrap();
    assert_eq!(answer["detail"].as_array().unwrap().len(), 3, "{answer}");

    let huge = format!(r#"{{"model":"model_zoo/echo","args":{{"x":"{}"}}}}"#, "y".repeat(21 << 20));
    let request = platform.request(Method::POST, "/v5/inference");
    let request = request.header("content-type", "application/json").body(huge);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(platform.get("/v5/jobs").await["items"], json!([]));
}

async fn what_is_not_there_is_404(mode: Mode) {
    let platform = Platform::start(mode).await;
    let nobody = "01890000-0000-7000-8000-000000000000";
    for (method, path, status) in [
        (Method::GET, format!("/v5/jobs/{nobody}"), StatusCode::NOT_FOUND),
        (Method::GET, format!("/v5/models/{nobody}"), StatusCode::NOT_FOUND),
        (Method::POST, "/v4/serving/a/nobody/execute".to_owned(), StatusCode::NOT_FOUND),
        (Method::GET, "/v5/nothing".to_owned(), StatusCode::NOT_FOUND),
        (Method::GET, "/v5/inference".to_owned(), StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "/v5/jobs?starting_after=x".to_owned(), StatusCode::UNPROCESSABLE_ENTITY),
        (Method::GET, "/v5/jobs?limit=0".to_owned(), StatusCode::UNPROCESSABLE_ENTITY),
        (Method::GET, "/v5/jobs?status=done".to_owned(), StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let request = platform.request(method.clone(), &path).json(&json!({}));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{method} {path}");
        let answer: Value = response.json().await.unwrap();
        assert!(!answer["detail"].is_null(), "{method} {path}: {answer}");
    }
}
