//! A vendor that is asked too much, or refuses the key, is asked less.

#![expect(clippy::unwrap_used, reason = "stories unwrap freely")]

mod harness;

use harness::{Mode, Platform, chat};
use serde_json::{Value, json};

stories!(
    an_overloaded_vendor_serves_all_jobs_and_few_calls_are_wasted,
    a_refused_key_fails_jobs_without_asking_again,
);

async fn an_overloaded_vendor_serves_all_jobs_and_few_calls_are_wasted(mode: Mode) {
    const N_JOBS: usize = 200;
    let platform = Platform::start_with(mode, &[("INFERQ__WORKER__CONCURRENCY", "32")]).await;
    let bodies: Vec<Value> = (0..N_JOBS)
        .map(|number| {
            let behaviour = json!({"delay_ms": 100, "at_most": 6});
            let mut body = chat(&format!("crowd-{number}"), &behaviour);
            body["inference_configuration"] = json!({"num_retries": 8});
            body
        })
        .collect();
    let ids = futures::future::join_all(bodies.iter().map(|body| platform.submit(body))).await;
    for id in &ids {
        let job = platform.ends(id).await;
        assert_eq!(job["status"], "succeeded", "{job}");
    }
    let n_calls: usize = platform.vendor.counts().values().sum();
    eprintln!("{N_JOBS} jobs took {n_calls} calls at a vendor that takes 6 at once");
    // At first each process asks for all it may; from then on little is wasted.
    let n_processes = platform.workers.len().max(1);
    assert!(n_calls - N_JOBS <= 32 * n_processes + 60, "{n_calls} calls");
    let metrics = platform.metrics().await;
    assert!(metrics.contains("inferq_rate_limited_total{vendor=\"openai\"}"), "{metrics}");
    assert!(metrics.contains("inferq_gate_deferred_total{vendor=\"openai\"}"), "{metrics}");
    platform.has_settled().await;
}

async fn a_refused_key_fails_jobs_without_asking_again(mode: Mode) {
    let settings = [("INFERQ__VENDORS__OPENAI__API_KEY", "another-key")];
    let platform = Platform::start_with(mode, &settings).await;
    let bodies: Vec<Value> =
        (0..40).map(|number| chat(&format!("locked-{number}"), &json!({}))).collect();
    let first = platform.submit(&bodies[0]).await;
    assert_eq!(platform.ends(&first).await["status"], "failed");
    let ids = futures::future::join_all(bodies[1..].iter().map(|body| platform.submit(body))).await;
    let mut n_uncalled = 0;
    for id in &ids {
        let job = platform.ends(id).await;
        assert_eq!((&job["status"], &job["error"]["class"]), (&json!("failed"), &json!("auth")));
        let message = job["error"]["message"].as_str().unwrap();
        n_uncalled += usize::from(message.contains("has refused this credential since"));
        assert_eq!(platform.attempts(id).await.len(), 1);
    }
    // A second process finds it out by itself, with what it has in hand by then.
    let enough = if platform.workers.len() > 1 { 1 } else { ids.len() };
    assert!(n_uncalled >= enough, "{n_uncalled}");
    let metrics = platform.metrics().await;
    assert!(
        metrics.contains("inferq_gate_refused_total{vendor=\"openai\",class=\"auth\"}"),
        "{metrics}"
    );
}
