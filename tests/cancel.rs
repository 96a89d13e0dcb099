//! A cancelled job stops at once, wherever it is.

#![expect(clippy::unwrap_used, reason = "stories unwrap freely")]

mod harness;

use std::time::{Duration, Instant};

use harness::{Mode, Platform, chat, echo, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

stories!(
    a_running_job_is_cancelled_and_the_vendor_s_socket_closed,
    a_waiting_job_is_cancelled_before_it_runs,
    a_queued_job_is_cancelled_before_its_turn_comes,
    an_ended_job_cannot_be_cancelled,
    a_caller_learns_that_its_job_was_cancelled,
);

async fn cancel(platform: &Platform, id: &str) -> (StatusCode, Value) {
    let request = platform.request(Method::POST, &format!("/v5/jobs/{id}/cancel"));
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

async fn a_running_job_is_cancelled_and_the_vendor_s_socket_closed(mode: Mode) {
    let platform = Platform::start(mode).await;
    let mut took = Vec::new();
    for number in 0..5 {
        took.push(cancel_while_it_runs(&platform, &format!("slow-{number}")).await);
    }
    // Most of them: a machine may pause at any time. Without the event it would be up to a second.
    took.sort_unstable();
    assert!(took[2] < Duration::from_millis(250), "closing the sockets took {took:?}");
}

/// Answers how long it took until the vendor saw its socket closed.
async fn cancel_while_it_runs(platform: &Platform, name: &str) -> Duration {
    let id = platform.submit(&chat(name, &json!({"delay_ms": 60_000}))).await;
    eventually("the vendor to be called", async || platform.vendor.calls(name).first().cloned())
        .await;
    let asked = Instant::now();
    let (status, job) = cancel(platform, &id).await;
    assert_eq!((status, &job["status"]), (StatusCode::OK, &json!("cancelled")));
    let closed =
        eventually("the socket to be closed", async || platform.vendor.calls(name)[0].abandoned)
            .await;
    let attempts = platform.attempts(&id).await;
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0]["outcome"], "cancelled");
    assert_eq!(platform.job(&id).await["status"], "cancelled");
    closed - asked
}

async fn a_waiting_job_is_cancelled_before_it_runs(mode: Mode) {
    let platform = Platform::start(mode).await;
    let mut body = chat("later", &json!({}));
    body["run_at"] = "2999-01-01T00:00:00Z".into();
    let request = platform.request(Method::POST, "/v5/inference").header("prefer", "respond-async");
    let refused = request.json(&body).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY, "run_at is too far ahead");

    let soon = (chrono::DateTime::UNIX_EPOCH
        + std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap()
        + Duration::from_secs(3600))
    .to_rfc3339();
    body["run_at"] = soon.into();
    let id = platform.submit(&body).await;
    let (status, job) = cancel(&platform, &id).await;
    assert_eq!((status, &job["status"]), (StatusCode::OK, &json!("cancelled")));
    assert_eq!(platform.attempts(&id).await, Vec::<Value>::new());
    assert!(platform.vendor.calls("later").is_empty());
}

async fn a_queued_job_is_cancelled_before_its_turn_comes(mode: Mode) {
    let platform = Platform::start_with(mode, &[("INFERQ__WORKER__CONCURRENCY", "1")]).await;
    // One place in all.
    if let Some(other) = platform.workers.get(1) {
        other.stop().await;
    }
    let blocker = platform.submit(&chat("blocker", &json!({"delay_ms": 60_000}))).await;
    eventually("the blocker to run", async || platform.vendor.calls("blocker").first().cloned())
        .await;
    let behind = platform.submit(&chat("behind", &json!({}))).await;
    let (status, job) = cancel(&platform, &behind).await;
    assert_eq!((status, &job["status"]), (StatusCode::OK, &json!("cancelled")));
    cancel(&platform, &blocker).await;
    // In the same lane, so that the message of the cancelled one came first.
    let last = platform.submit(&chat("last", &json!({}))).await;
    platform.reaches(&last, "succeeded").await;
    assert!(platform.vendor.calls("behind").is_empty());
    assert_eq!(platform.attempts(&behind).await, Vec::<Value>::new());
    assert_eq!(platform.job(&behind).await["status"], "cancelled");
}

async fn an_ended_job_cannot_be_cancelled(mode: Mode) {
    let platform = Platform::start(mode).await;
    let id = platform.submit(&echo(&json!({}))).await;
    platform.reaches(&id, "succeeded").await;
    let (status, body) = cancel(&platform, &id).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    assert_eq!(platform.job(&id).await["status"], "succeeded");
    let (status, _) = cancel(&platform, "01890000-0000-7000-8000-000000000000").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

async fn a_caller_learns_that_its_job_was_cancelled(mode: Mode) {
    let platform = Platform::start(mode).await;
    let body = chat("watched", &json!({"delay_ms": 60_000}));
    let caller = platform.infer(&body);
    let canceller = async {
        let page = eventually("the job to run", async || {
            let page = platform.get("/v5/jobs?status=running").await;
            (!page["items"].as_array().unwrap().is_empty()).then_some(page)
        })
        .await;
        cancel(&platform, page["items"][0]["id"].as_str().unwrap()).await
    };
    let (response, (status, _)) = tokio::join!(caller, canceller);
    assert_eq!(status, StatusCode::OK);
    assert_eq!(response.status(), StatusCode::CONFLICT);
    assert_eq!(response.headers()["x-should-retry"], "false");
}
