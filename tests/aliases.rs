//! An alias is switched while it is called: no call fails, and none made after the answer to a switch
//! runs what was before.

#![expect(clippy::unwrap_used, reason = "stories unwrap freely")]

mod harness;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use harness::{Mode, Platform, chat, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

stories!(an_alias_is_switched_under_load, a_change_holds_at_once_in_every_process);

/// How often the alias is switched, rollbacks included.
const SWITCHES: usize = 12;
const CALLERS: usize = 6;
const BACKENDS: [&str; 2] = ["model_zoo/echo", "openai/gpt-test"];

async fn an_alias_is_switched_under_load(mode: Mode) {
    let platform = Platform::start(mode).await;
    let server = serve(&platform, BACKENDS[0]).await;
    // Switches that were asked for, and those that were answered; calls that were.
    let (begun, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let ended = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    let call = async || {
        let mut calls = Vec::new();
        while !over.load(Ordering::SeqCst) {
            let before = answered.load(Ordering::SeqCst);
            let args = &chat("alias", &json!({}))["args"];
            let request = platform.request(Method::POST, "/v4/serving/a/al/execute");
            let response = request.json(args).send().await.unwrap();
            let after = begun.load(Ordering::SeqCst);
            let status = response.status();
            let job = response.headers()["x-job-id"].to_str().unwrap().to_owned();
            let body: Value = response.json().await.unwrap();
            assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("SUCCESS")), "{body}");
            calls.push((job, before, after));
            ended.fetch_add(1, Ordering::SeqCst);
        }
        calls
    };
    let switch = async || {
        for number in 1..=SWITCHES {
            begun.fetch_add(1, Ordering::SeqCst);
            // Every second one takes the one before it back.
            let request = if number % 2 == 1 {
                let body = json!({ "new_model_deployment_id": BACKENDS[1] });
                platform.request(Method::PUT, &format!("{server}/backend")).json(&body)
            } else {
                platform.request(Method::POST, &format!("{server}/rollback"))
            };
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{}", response.text().await.unwrap());
            answered.fetch_add(1, Ordering::SeqCst);
            // Of these all but one of each caller began after the answer.
            let enough = ended.load(Ordering::SeqCst) + 2 * CALLERS;
            eventually("calls after the switch", async || {
                (ended.load(Ordering::SeqCst) >= enough).then_some(())
            })
            .await;
        }
        over.store(true, Ordering::SeqCst);
    };
    let callers = futures::future::join_all((0..CALLERS).map(|_| call()));
    let (calls, ()) = futures::join!(callers, switch());
    let (mut n_sure, mut n_calls) = ([0, 0], 0);
    for (job, before, after) in calls.into_iter().flatten() {
        n_calls += 1;
        let model = platform.job(&job).await["model"].clone();
        if before == after {
            assert_eq!(model, BACKENDS[before % 2], "after {before} switches");
            n_sure[before % 2] += 1;
        } else {
            assert!(BACKENDS.contains(&model.as_str().unwrap()), "{model}");
        }
    }
    assert!(n_sure.iter().all(|&n| n >= SWITCHES), "{n_sure:?} of {n_calls}");
    let history = platform.get(&format!("{server}/history")).await;
    assert_eq!(history["items"].as_array().unwrap().len(), SWITCHES + 1);
}

/// Makes the alias `al`; answers the path of its server.
async fn serve(platform: &Platform, deployment: &str) -> String {
    let body = json!({ "model_deployment_id": deployment, "name": "n", "alias": "al" });
    let server = post(platform, "/v4/serving", &body).await;
    format!("/v4/serving/{}", server["model_server_id"].as_str().unwrap())
}

async fn post(platform: &Platform, path: &str, body: &Value) -> Value {
    let response = platform.request(Method::POST, path).json(body).send().await.unwrap();
    let status = response.status();
    let body: Value = response.json().await.unwrap();
    assert_eq!(status, StatusCode::OK, "POST {path}: {body}");
    body
}

/// Each process is asked before and after each change, so that it has something to remember.
async fn a_change_holds_at_once_in_every_process(mode: Mode) {
    let platform = Platform::start(mode).await;
    let everywhere = async |path: &str, body: &Value| {
        let mut answers = Vec::new();
        for front in &platform.fronts {
            let request = platform
                .http
                .post(format!("http://{}{path}", front.listen))
                .header("x-api-key", harness::KEY)
                .header("prefer", "respond-async")
                .json(body);
            let response = request.send().await.unwrap();
            answers.push((response.status().as_u16(), response.json::<Value>().await.unwrap()));
        }
        answers
    };
    let execute = "/v4/serving/a/al/execute";
    let statuses = |answers: &[(u16, Value)]| answers.iter().map(|it| it.0).collect::<Vec<_>>();
    let all = |status: u16| vec![status; platform.fronts.len()];
    for _ in 0..3 {
        assert_eq!(statuses(&everywhere(execute, &json!({})).await), all(404));
        let body = json!({ "name": "echo", "model_vendor": "model_zoo", "model_type": "generic" });
        let model = post(&platform, "/v5/models", &body).await;
        let id = model["id"].as_str().unwrap();
        let server = serve(&platform, id).await;
        assert_eq!(statuses(&everywhere(execute, &json!({})).await), all(202));
        let change = json!({ "model_metadata": { "timeout_seconds": 17 } });
        let request = platform.request(Method::PATCH, &format!("/v5/models/{id}"));
        assert_eq!(request.json(&change).send().await.unwrap().status(), StatusCode::OK);
        for (status, job) in everywhere(execute, &json!({})).await {
            let timeout = &job["timeout_seconds"];
            assert_eq!((status, timeout), (202, &json!(17)), "{job}");
        }
        let delete = async |path: &str| {
            platform.request(Method::DELETE, path).send().await.unwrap().status().as_u16()
        };
        assert_eq!(delete(&format!("/v5/models/{id}")).await, 409, "its server runs it");
        assert_eq!(delete(&server).await, 200);
        assert_eq!(delete(&format!("/v5/models/{id}")).await, 200);
        let inference = json!({ "model": "model_zoo/echo" });
        for (_, job) in everywhere("/v5/inference", &inference).await {
            assert!(job["model_id"].is_null(), "{job}");
        }
    }
}
