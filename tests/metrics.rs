//! What operators can see of a platform's work.

#![expect(clippy::unwrap_used, reason = "stories unwrap freely")]

mod harness;

use harness::{KEY, Mode, Platform, chat, eventually};
use reqwest::Method;
use serde_json::json;

stories!(
    every_end_of_a_job_is_counted_and_timed,
    a_call_that_waits_is_lent_to_a_worker_with_room,
    no_place_is_lent_where_the_operator_says_so,
);

async fn every_end_of_a_job_is_counted_and_timed(mode: Mode) {
    let platform = Platform::start(mode).await;
    for (name, behaviour, end) in [
        ("plain", json!({}), "succeeded"),
        ("twice", json!({"fail_times": 1}), "succeeded"),
        ("wrong", json!({"fail_times": 1, "status": 400}), "failed"),
    ] {
        let id = platform.submit(&chat(name, &behaviour)).await;
        assert_eq!(platform.ends(&id).await["status"], end, "{name}");
    }
    let id = platform.submit(&chat("slow", &json!({"delay_ms": 60_000}))).await;
    eventually("the job to run", async || platform.vendor.calls("slow").first().cloned()).await;
    let cancel = platform.request(Method::POST, &format!("/v5/jobs/{id}/cancel"));
    assert_eq!(cancel.send().await.unwrap().status(), 200);

    for (metric, labels, value) in [
        ("jobs_submitted_total", &[("vendor", "openai"), ("priority", "normal")][..], 4.0),
        ("jobs_finished_total", &[("vendor", "openai"), ("status", "succeeded")], 2.0),
        ("jobs_finished_total", &[("vendor", "openai"), ("status", "failed")], 1.0),
        ("jobs_finished_total", &[("vendor", "openai"), ("status", "cancelled")], 1.0),
        ("job_duration_seconds_count", &[("status", "succeeded")], 2.0),
        ("job_duration_seconds_count", &[("status", "failed")], 1.0),
        ("job_duration_seconds_count", &[("status", "cancelled")], 1.0),
        ("retries_total", &[("class", "overloaded")], 1.0),
        ("queue_wait_seconds_count", &[("vendor", "openai")], 5.0),
        ("attempt_duration_seconds_count", &[("outcome", "succeeded")], 2.0),
        ("attempt_duration_seconds_count", &[("outcome", "overloaded")], 1.0),
        ("attempts_running", &[("vendor", "openai")], 0.0),
        // The last look of the sweep; every process tells what the store has.
        ("queue_depth", &[("lane", "openai.normal")], 0.0),
    ] {
        eventually(&format!("{metric} {labels:?} to be {value}"), async || {
            let found = sum(&scrape(&platform).await, metric, labels)?;
            ((found - value).abs() < f64::EPSILON).then_some(())
        })
        .await;
    }
    let text = scrape(&platform).await;
    for kind in ["submit", "claim", "finish"] {
        assert!(sum(&text, "group_commit_size_count", &[("kind", kind)]).unwrap() >= 4.0, "{kind}");
    }
    assert!(sum(&text, "http_request_duration_seconds_count", &[("method", "POST")]).is_some());
}

async fn a_call_that_waits_is_lent_to_a_worker_with_room(mode: Mode) {
    let platform = Platform::start(mode).await;
    let n_calls = 8;
    for number in 0..n_calls {
        let answer = platform.infer(&chat(&format!("call-{number}"), &json!({}))).await;
        assert_eq!(answer.status(), 200);
        let id = answer.headers()["x-job-id"].to_str().unwrap();
        let attempts = platform.attempts(id).await;
        assert_eq!(attempts.len(), 1, "{attempts:?}");
    }
    // Each api has to hear of a worker first.
    let n_apis = u32::try_from(platform.fronts.len()).unwrap();
    let lent = sum(&scrape(&platform).await, "jobs_lent_total", &[("vendor", "openai")]).unwrap();
    assert!(lent >= f64::from(n_calls - n_apis), "{lent} of {n_calls} calls were lent");
    assert_eq!(sum(&scrape(&platform).await, "loans_returned_total", &[]), None);

    let id = platform.submit(&chat("nobody waits", &json!({}))).await;
    platform.ends(&id).await;
    let after = sum(&scrape(&platform).await, "jobs_lent_total", &[]).unwrap();
    assert!((after - lent).abs() < f64::EPSILON, "a job nobody waits for goes through its lane");
}

async fn no_place_is_lent_where_the_operator_says_so(mode: Mode) {
    let platform = Platform::start_with(mode, &[("INFERQ__WORKER__LEND_PLACES", "false")]).await;
    for number in 0..4 {
        let answer = platform.infer(&chat(&format!("call-{number}"), &json!({}))).await;
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(sum(&scrape(&platform).await, "jobs_lent_total", &[]), None);
}

/// What all processes tell.
async fn scrape(platform: &Platform) -> String {
    let mut text = String::new();
    for process in platform.fronts.iter().chain(&platform.workers) {
        let url = format!("http://{}/metrics", process.listen);
        let response = platform.http.get(url).header("x-api-key", KEY).send().await.unwrap();
        text.push_str(&response.text().await.unwrap());
    }
    text
}

/// The sum of the samples of `inferq_{metric}` that have these labels.
fn sum(text: &str, metric: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let samples = text.lines().filter_map(|line| {
        let (name, rest) = line.split_once('{')?;
        let (own, value) = rest.rsplit_once("} ")?;
        let has = |&(label, value): &(&str, &str)| own.contains(&format!("{label}=\"{value}\""));
        (name == format!("inferq_{metric}") && labels.iter().all(has))
            .then(|| value.parse::<f64>().unwrap())
    });
    samples.reduce(|sum, sample| sum + sample)
}
