//! A repeated submit makes no second job.

#![expect(clippy::unwrap_used, reason = "stories unwrap freely")]

mod harness;

use std::collections::BTreeSet;

use harness::{Mode, Platform, echo};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

stories!(
    a_repeated_submit_answers_with_the_first_job,
    one_key_for_two_requests_is_refused,
    twenty_at_once_make_one_job,
    a_repeat_while_the_first_is_in_flight_is_a_conflict,
);

async fn submit(platform: &Platform, key: &str, body: &Value, prefer: &str) -> Response {
    let request = platform.request(Method::POST, "/v5/inference").header("idempotency-key", key);
    request.header("prefer", prefer).json(body).send().await.unwrap()
}

async fn id(response: Response) -> String {
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let job: Value = response.json().await.unwrap();
    job["id"].as_str().unwrap().to_owned()
}

async fn a_repeated_submit_answers_with_the_first_job(mode: Mode) {
    let platform = Platform::start(mode).await;
    let body = echo(&json!({"n": 1}));
    let first = id(submit(&platform, "k", &body, "respond-async").await).await;
    let second = id(submit(&platform, "k", &body, "respond-async").await).await;
    assert_eq!(first, second);
    let page = platform.get("/v5/jobs").await;
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
}

async fn one_key_for_two_requests_is_refused(mode: Mode) {
    let platform = Platform::start(mode).await;
    id(submit(&platform, "k", &echo(&json!({"n": 1})), "respond-async").await).await;
    let other = submit(&platform, "k", &echo(&json!({"n": 2})), "respond-async").await;
    assert_eq!(other.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let page = platform.get("/v5/jobs").await;
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
}

async fn twenty_at_once_make_one_job(mode: Mode) {
    let platform = Platform::start(mode).await;
    let body = echo(&json!({"n": 1}));
    let all =
        (0..20).map(|_| async { id(submit(&platform, "k", &body, "respond-async").await).await });
    let ids: BTreeSet<String> = futures::future::join_all(all).await.into_iter().collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

async fn a_repeat_while_the_first_is_in_flight_is_a_conflict(mode: Mode) {
    let platform = Platform::start(mode).await;
    let body = echo(&json!({"delay_ms": 1500}));
    let first = submit(&platform, "k", &body, "");
    let second = async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        submit(&platform, "k", &body, "").await
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(second.status(), StatusCode::CONFLICT);
    assert_eq!(second.headers()["x-should-retry"], "false");
    let third = submit(&platform, "k", &body, "").await;
    assert_eq!(third.status(), StatusCode::OK);
    assert_eq!(third.headers()["x-job-id"], first.headers()["x-job-id"]);
}
