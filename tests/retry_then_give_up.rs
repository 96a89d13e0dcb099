//! What may pass is tried again, as often and as late as it should be; what may not is not.

#![expect(clippy::unwrap_used, reason = "stories unwrap freely")]

mod harness;

use std::time::Duration;

use harness::{Mode, Platform, chat};
use reqwest::StatusCode;
use serde_json::{Value, json};

stories!(
    a_rate_limited_call_is_repeated_after_the_vendor_s_own_wait,
    a_job_fails_once_its_retries_are_spent,
    a_refused_request_is_not_repeated,
    a_silent_vendor_meets_the_timeout,
    a_long_wait_is_spent_in_the_store,
);

async fn a_rate_limited_call_is_repeated_after_the_vendor_s_own_wait(mode: Mode) {
    let platform = Platform::start(mode).await;
    let behaviour = json!({"fail_times": 1, "status": 429, "retry_after": "1"});
    let response = platform.infer(&chat("limited", &behaviour)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let id = response.headers()["x-job-id"].to_str().unwrap().to_owned();
    let calls = platform.vendor.calls("limited");
    assert_eq!(calls.len(), 2);
    let wait = calls[1].began - calls[0].began;
    assert!(wait >= Duration::from_secs(1), "waited only {wait:?}");
    let attempts = platform.attempts(&id).await;
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[0]["error"]["class"], "rate_limited");
    assert_eq!(attempts[0]["error"]["vendor_status"], 429);
    assert_eq!(attempts[1]["outcome"], "succeeded");
}

async fn a_job_fails_once_its_retries_are_spent(mode: Mode) {
    let platform = Platform::start(mode).await;
    let mut body = chat("hopeless", &json!({"fail_times": 99, "status": 500}));
    body["inference_configuration"] = json!({"num_retries": 1});
    let response = platform.infer(&body).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(response.headers()["x-should-retry"], "false");
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["error"]["class"], "transient", "{answer}");
    assert_eq!(platform.vendor.calls("hopeless").len(), 2);
}

async fn a_refused_request_is_not_repeated(mode: Mode) {
    let platform = Platform::start(mode).await;
    let response = platform.infer(&chat("wrong", &json!({"fail_times": 9, "status": 400}))).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(platform.vendor.calls("wrong").len(), 1);
}

async fn a_silent_vendor_meets_the_timeout(mode: Mode) {
    let platform = Platform::start(mode).await;
    let mut body = chat("silent", &json!({"delay_ms": 60_000}));
    body["inference_configuration"] = json!({"num_retries": 0, "timeout_seconds": 1});
    let response = platform.infer(&body).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["error"]["class"], "timeout", "{answer}");
    let call = &platform.vendor.calls("silent")[0];
    let held = call.abandoned.expect("the socket was closed") - call.began;
    assert!(held < Duration::from_secs(5), "the socket was held for {held:?}");
}

async fn a_long_wait_is_spent_in_the_store(mode: Mode) {
    let platform = Platform::start(mode).await;
    let behaviour = json!({"fail_times": 1, "status": 503, "retry_after": "4"});
    let id = platform.submit(&chat("parked", &behaviour)).await;
    let waiting = harness::eventually("the job to wait", async || {
        let job = platform.job(&id).await;
        (job["status"] == "queued" && job["attempt"] == 1).then_some(job)
    })
    .await;
    assert!(waiting["run_at"].is_string(), "{waiting}");
    let job = platform.ends(&id).await;
    assert_eq!((&job["status"], &job["attempt"]), (&json!("succeeded"), &json!(2)));
    let calls = platform.vendor.calls("parked");
    assert!(calls[1].began - calls[0].began >= Duration::from_secs(4));
}
