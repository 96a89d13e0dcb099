//! A stop that is asked for loses nothing: callers get their answers, jobs in hand are finished.

#![expect(clippy::unwrap_used, reason = "stories unwrap freely")]

mod harness;

use std::time::Duration;

use harness::{Mode, Platform, chat, eventually};
use reqwest::StatusCode;
use serde_json::json;

stories!(
    a_waiting_caller_is_answered_before_the_process_ends,
    what_is_queued_is_run_after_the_restart,
    what_outlasts_the_grace_is_handed_back,
);

async fn a_waiting_caller_is_answered_before_the_process_ends(mode: Mode) {
    let platform = Platform::start(mode).await;
    let body = chat("slow", &json!({"delay_ms": 1500}));
    let caller = platform.infer(&body);
    let stopper = async {
        eventually("the call", async || platform.vendor.calls("slow").first().cloned()).await;
        for process in platform.fronts.iter().chain(&platform.workers) {
            let status = process.stop().await;
            assert!(status.success(), "{} ended with {status}", process.name);
        }
    };
    let (response, ()) = tokio::join!(caller, stopper);
    assert_eq!(response.status(), StatusCode::OK);
}

async fn what_is_queued_is_run_after_the_restart(mode: Mode) {
    let platform = Platform::start_with(mode, &[("INFERQ__WORKER__CONCURRENCY", "2")]).await;
    let mut ids = Vec::new();
    for number in 0..40 {
        let name = format!("job-{number}");
        ids.push(platform.submit(&chat(&name, &json!({"delay_ms": 100}))).await);
    }
    for process in platform.fronts.iter().chain(&platform.workers) {
        assert!(process.stop().await.success());
        process.start_again();
        process.is_ready().await;
    }
    for id in &ids {
        assert_eq!(platform.ends(id).await["status"], "succeeded");
    }
    let counts = platform.vendor.counts();
    assert_eq!(counts.len(), 40);
    assert!(counts.values().all(|&calls| calls == 1), "nothing was called twice: {counts:?}");
}

async fn what_outlasts_the_grace_is_handed_back(mode: Mode) {
    let platform =
        Platform::start_with(mode, &[("INFERQ__WORKER__SHUTDOWN_GRACE_SECS", "1")]).await;
    let id = platform.submit(&chat("long", &json!({"delay_ms": 6000}))).await;
    eventually("the call", async || platform.vendor.calls("long").first().cloned()).await;
    let processes = if mode == Mode::Embedded { &platform.fronts } else { &platform.workers };
    for process in processes {
        assert!(process.stop().await.success());
    }
    for process in processes {
        process.start_again();
        process.is_ready().await;
    }
    let job = platform.ends(&id).await;
    assert_eq!(job["status"], "succeeded");
    let attempts = platform.attempts(&id).await;
    assert_eq!(attempts[0]["outcome"], "lost");
    let first = &platform.vendor.calls("long")[0];
    assert!(first.abandoned.unwrap() - first.began < Duration::from_secs(6));
}
