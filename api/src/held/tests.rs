use http::Method;
use inferq_common::error::ErrorClass;
use serde_json::{Value, json};

use crate::testing::{Opened, TestApi, failed, succeeded};

const INFERENCE: &str = "/v5/inference";
const EXECUTE: &str = "/v4/serving/a/greeter/execute";
const ECHO: &str = r#"{"model":"model_zoo/echo","args":{"a":1}}"#;

/// A caller that waits 0.4 s for each byte.
const IMPATIENT: (&str, &str) = ("x-stainless-read-timeout", "0.4");

async fn start() -> TestApi {
    let api = TestApi::start().await;
    api.add_server("greeter", "model_zoo/echo").await;
    api
}

/// An answer that has begun, with its first white space read.
async fn held(api: &TestApi, path: &str) -> Opened {
    // The SDKs take compressed answers; this one must not wait in a compressor.
    let headers = [IMPATIENT, ("accept-encoding", "gzip")];
    let mut answer = api.open(api.request(Method::POST, path, &headers, ECHO)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/json");
    assert!(!answer.headers.contains_key("content-encoding"));
    assert_eq!(answer.next().await.unwrap(), " ");
    assert_eq!(answer.next().await.unwrap(), " ");
    answer
}

#[track_caller]
fn document(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

#[tokio::test]
async fn white_space_comes_until_the_document_is_there() {
    let api = start().await;
    let mut answer = held(&api, INFERENCE).await;
    let response = r#"{ "b" : 1.50 }"#;
    let claim = api.run_next(succeeded(response)).await;
    assert_eq!(answer.header("x-job-id"), claim.job.id.to_string());
    let rest = answer.rest().await;
    let expected = format!(r#"{{"object":"generic_inference","response":{response}}}"#);
    assert_eq!(rest.trim_start_matches(' '), expected);
    assert!(api.state.waiters.is_empty());

    let mut answer = held(&api, EXECUTE).await;
    let claim = api.run_next(succeeded("7")).await;
    assert_eq!(
        document(&answer.rest().await),
        json!({
            "status": "SUCCESS", "status_code": 200, "error_message": null, "result": 7,
            "job_id": claim.job.id,
        })
    );
}

#[tokio::test]
async fn a_late_failure_goes_into_the_document() {
    let api = start().await;
    let mut answer = held(&api, INFERENCE).await;
    let claim = api.run_next(failed(ErrorClass::Overloaded, "busy")).await;
    assert_eq!(
        document(&answer.rest().await),
        json!({
            "object": "generic_inference", "response": null, "job_id": claim.job.id,
            "error": { "class": "overloaded", "message": "busy", "status_code": 503 },
        })
    );
    let mut answer = held(&api, EXECUTE).await;
    let claim = api.run_next(failed(ErrorClass::Overloaded, "busy")).await;
    assert_eq!(
        document(&answer.rest().await),
        json!({
            "status": "FAILURE", "status_code": 503, "error_message": "busy", "result": null,
            "error": { "class": "overloaded", "message": "busy" }, "job_id": claim.job.id,
        })
    );
}

#[tokio::test]
async fn who_is_given_up_is_told_so_in_the_document() {
    let api = TestApi::with(|config| config.max_wait_secs = 1).await;
    let mut answer = held(&api, INFERENCE).await;
    let late = document(&answer.rest().await);
    assert_eq!((&late["error"]["status_code"], &late["response"]), (&json!(504), &json!(null)));
    assert!(late["job_id"].is_string());

    let api = start().await;
    let mut answer = held(&api, EXECUTE).await;
    api.state.closing.cancel();
    let stopped = document(&answer.rest().await);
    assert_eq!((&stopped["status"], &stopped["status_code"]), (&json!("FAILURE"), &json!(503)));
}

#[tokio::test]
async fn without_an_announced_timeout_nothing_is_sent_before_the_answer() {
    let api = TestApi::with(|config| config.max_wait_secs = 1).await;
    for headers in [&[][..], &[("x-stainless-read-timeout", "never")]] {
        assert_eq!(api.post(INFERENCE, headers, ECHO).await.status, 504, "{headers:?}");
    }
}

#[tokio::test]
async fn a_preference_to_wait_becomes_a_202_before_the_caller_gives_up() {
    let api = start().await;
    let reply = api.post(INFERENCE, &[IMPATIENT, ("prefer", "wait=30")], ECHO).await;
    assert_eq!(reply.status, 202);
    assert_eq!(reply.json()["status"], "queued");
}

#[tokio::test]
async fn held_callers_count_among_the_requests() {
    let api = start().await;
    let all = api.state.requests.available_permits();
    let answer = held(&api, INFERENCE).await;
    assert_eq!(api.state.requests.available_permits(), all - 1);
    drop(answer);
    assert_eq!(api.state.requests.available_permits(), all);
}

#[tokio::test]
async fn a_caller_who_leaves_stops_the_job_only_if_it_said_so() {
    let api = start().await;
    let status = async |id| {
        let path = format!("/v5/jobs/{id}");
        let poll = [("prefer", "wait=1")];
        let job = api.send(api.request(Method::GET, &path, &poll, "")).await.json();
        job["status"].as_str().unwrap().to_owned()
    };
    let body = r#"{"model":"model_zoo/echo","cancel_on_disconnect":true}"#;
    for (headers, body, expected) in [
        (&[][..], ECHO, "running"),
        (&[], body, "cancelled"),
        (&[IMPATIENT], ECHO, "running"),
        (&[IMPATIENT], body, "cancelled"),
    ] {
        let request = api.request(Method::POST, INFERENCE, headers, body);
        let claim = if headers.is_empty() {
            tokio::select! {
                _ = api.open(request) => panic!("nobody has answered"),
                claim = api.claim() => claim,
            }
        } else {
            // Its answer has begun when it leaves.
            tokio::join!(api.open(request), api.claim()).1
        };
        assert_eq!(status(claim.job.id).await, expected, "{headers:?} {body}");
    }
}
