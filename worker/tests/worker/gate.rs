//! What becomes of jobs whose vendor asks to slow down or refuses the credential; under paused time.

use std::{sync::Arc, time::Duration};

use inferq_common::{
    error::ErrorClass,
    id::JobId,
    job::{AttemptOutcome, Job, JobStatus},
};
use inferq_vendors::scripted::Scripted;
use tokio::time::{Instant, sleep};

use crate::platform::Platform;

async fn submit_all(platform: &Platform, model: &str, n_jobs: usize) -> Vec<JobId> {
    let mut ids = Vec::with_capacity(n_jobs);
    for _ in 0..n_jobs {
        ids.push(platform.submit(model, |job| job.limits.num_retries = 5).await);
    }
    ids
}

/// Waits until all have ended.
async fn all_end(platform: &Platform, ids: &[JobId]) -> Vec<Job> {
    let mut jobs = Vec::with_capacity(ids.len());
    let began = Instant::now();
    for &id in ids {
        loop {
            let (job, _) = platform.find(id).await;
            if job.status.is_final() {
                jobs.push(job);
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(300), "{job:?}");
            sleep(Duration::from_millis(250)).await;
        }
    }
    jobs
}

#[tokio::test]
async fn an_overloaded_vendor_serves_all_jobs_and_few_calls_are_wasted() {
    let scripted = Arc::new(Scripted::default());
    let platform = Platform::start_still(Arc::clone(&scripted) as Arc<_>).await;
    let ids = submit_all(&platform, "at_most_8", 500).await;
    let began = Instant::now();
    let worker = platform.worker_with(|config| config.worker.concurrency = 64).await;
    sleep(Duration::from_secs(2)).await;
    let (early_calls, mut early_ended) = (scripted.calls_of_model("at_most_8"), 0);
    for &id in &ids {
        early_ended += u32::from(platform.find(id).await.0.status.is_final());
    }
    let jobs = all_end(&platform, &ids).await;
    let took = began.elapsed().as_secs_f64();
    assert!(jobs.iter().all(|job| job.status == JobStatus::Succeeded));

    let n_calls = scripted.calls_of_model("at_most_8");
    let wasted = n_calls - 500;
    let wasted_late = (n_calls - early_calls) - (500 - early_ended);
    let share = 100.0 * f64::from(wasted_late) / f64::from(n_calls - early_calls);
    eprintln!(
        "500 jobs in {took:.1} s: {wasted} calls wasted, {wasted_late} ({share:.1} %) after 2 s"
    );
    assert!(wasted <= 64 + 40, "little more than the first burst: {wasted}");
    assert!(share < 10.0, "{share}");
    assert!(took < 40.0, "6.3 s would be the least: {took}");

    // What was put off left no trace: each attempt is a call.
    let mut n_attempts = 0;
    for job in &jobs {
        let attempts = platform.attempts(job.id).await;
        let numbers: Vec<u32> = attempts.iter().map(|attempt| attempt.number).collect();
        assert_eq!(numbers, (1..=job.attempt).collect::<Vec<_>>());
        assert_eq!(job.lost_attempts, 0);
        n_attempts += job.attempt;
    }
    assert_eq!(n_attempts, n_calls);
    worker.stop().await;
}

#[tokio::test]
async fn a_pause_the_vendor_asks_for_holds_its_model_and_no_other() {
    let scripted = Arc::new(Scripted::default());
    let platform = Platform::start_still(Arc::clone(&scripted) as Arc<_>).await;
    let worker = platform.worker_with(|config| config.worker.concurrency = 16).await;
    let began = Instant::now();
    let mut held = submit_all(&platform, "pauses", 1).await;
    while scripted.calls_of_model("pauses") == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    held.extend(submit_all(&platform, "pauses", 59).await);
    let free = submit_all(&platform, "ok", 60).await;
    all_end(&platform, &free).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    sleep(Duration::from_millis(4900).saturating_sub(began.elapsed())).await;
    assert_eq!(scripted.calls_of_model("pauses"), 1, "all of them wait");
    let waiting = platform.find(held[30]).await.0;
    assert_eq!((waiting.status, waiting.attempt), (JobStatus::Queued, 0));
    assert_eq!((waiting.started_at, waiting.attempt_started_at), (None, None));
    assert!(waiting.run_at.is_some());

    for job in all_end(&platform, &held).await {
        assert_eq!(job.status, JobStatus::Succeeded);
    }
    assert_eq!(scripted.calls_of_model("pauses"), 61);
    worker.stop().await;
}

#[tokio::test]
async fn a_refused_key_fails_jobs_uncalled_and_heals_by_itself() {
    let scripted = Arc::new(Scripted::default());
    let platform = Platform::start_still(Arc::clone(&scripted) as Arc<_>).await;
    let worker = platform.worker_with(|config| config.worker.concurrency = 16).await;
    let ids = submit_all(&platform, "locked", 200).await;
    let jobs = all_end(&platform, &ids).await;
    for job in &jobs {
        assert_eq!((job.status, job.attempt), (JobStatus::Failed, 1));
        let error = platform.find(job.id).await.1.error.unwrap();
        assert_eq!(error.class, ErrorClass::Auth);
        let attempts = platform.attempts(job.id).await;
        assert_eq!(attempts[0].outcome, AttemptOutcome::Failed);
    }
    let error = platform.find(ids[199]).await.1.error.unwrap();
    assert!(error.message.starts_with("openai has refused this credential since 20"), "{error:?}");
    let n_calls = scripted.calls_of_model("locked");
    eprintln!("200 jobs with a refused key: {n_calls} calls");
    assert!(n_calls <= 16, "{n_calls}");

    // The key is put right; nobody tells the worker.
    scripted.unlock();
    let early = submit_all(&platform, "ok", 1).await;
    assert_eq!(all_end(&platform, &early).await[0].status, JobStatus::Failed);
    sleep(Duration::from_secs(30)).await;
    let late = submit_all(&platform, "locked", 20).await;
    for job in all_end(&platform, &late).await {
        assert_eq!(job.status, JobStatus::Succeeded);
    }
    worker.stop().await;
}

#[tokio::test]
async fn a_job_that_waits_at_the_gate_can_be_cancelled() {
    let scripted = Arc::new(Scripted::default());
    let platform = Platform::start_still(Arc::clone(&scripted) as Arc<_>).await;
    let worker = platform.worker_with(|config| config.worker.concurrency = 16).await;
    // Rate limited for an hour: what follows is put off.
    let first = submit_all(&platform, "rate_limited_for_1h", 1).await[0];
    while scripted.calls(first) == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    let held = submit_all(&platform, "rate_limited_for_1h", 1).await[0];
    while platform.find(held).await.0.run_at.is_none() {
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(platform.cancel(held).await, None, "nobody runs it");
    let (job, result) = platform.find(held).await;
    assert_eq!((job.status, job.attempt), (JobStatus::Cancelled, 0));
    assert_eq!(result.error.unwrap().class, ErrorClass::Cancelled);
    assert!(platform.attempts(held).await.is_empty());
    assert_eq!(scripted.calls(held), 0);
    worker.stop().await;
}
