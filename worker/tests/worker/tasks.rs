//! What becomes of jobs whose vendor is at work elsewhere and is asked for the end; under paused
//! time where none dies.

use std::{sync::Arc, time::Duration};

use inferq_common::{
    error::ErrorClass,
    id::JobId,
    job::{AttemptOutcome, Job, JobResult, JobStatus},
    vendor::Vendor,
};
use inferq_vendors::scripted::Scripted;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    platform::{Platform, SOON, TestWorker, eventually},
    registered::register,
};

async fn still() -> (Platform, Arc<Scripted>) {
    let scripted = Arc::new(Scripted::default());
    (Platform::start_still(Arc::clone(&scripted) as Arc<_>).await, scripted)
}

async fn one_at_a_time(platform: &Platform) -> TestWorker {
    platform.worker_with(|config| config.worker.concurrency = 1).await
}

async fn ends(platform: &Platform, id: JobId) -> (Job, JobResult) {
    let ended = eventually(async || {
        let (job, result) = platform.find(id).await;
        job.status.is_final().then_some((job, result))
    });
    timeout(Duration::from_secs(300), ended).await.expect("it ends in time")
}

/// Waits until the job is parked.
async fn parks(platform: &Platform, id: JobId) -> Job {
    let parked = eventually(async || {
        let (job, _) = platform.find(id).await;
        (job.status == JobStatus::Queued && job.ticket.is_some()).then_some(job)
    });
    timeout(SOON, parked).await.expect("it is parked in time")
}

#[tokio::test]
async fn between_two_questions_a_task_holds_no_place() {
    let (platform, scripted) = still().await;
    let worker = one_at_a_time(&platform).await;
    let id = platform.submit("task_3", |_| {}).await;
    let began = Instant::now();
    let parked = parks(&platform, id).await;
    let wait = parked.run_at.unwrap() - platform.clock.now();
    assert!(wait.num_milliseconds() > 2000, "{wait}");
    assert!(!parked.ticket.unwrap().contains("secret"));
    for _ in 0..20 {
        let other = platform.submit("ok", |_| {}).await;
        assert_eq!(ends(&platform, other).await.0.status, JobStatus::Succeeded);
    }
    assert!(began.elapsed() < Duration::from_secs(3), "the only place was free");

    let (job, result) = ends(&platform, id).await;
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(9) && took < Duration::from_secs(13), "{took:?}");
    assert_eq!((job.status, job.attempt, job.lost_attempts), (JobStatus::Succeeded, 1, 0));
    assert_eq!(result.response.unwrap().as_str(), Scripted::RESPONSE);
    assert_eq!(result.usage, Scripted::usage());
    assert_eq!(job.ticket, None);
    let attempts = platform.attempts(id).await;
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].vendor_request_id.as_deref(), Some("task-1"));
    let lasted = attempts[0].finished_at - attempts[0].started_at;
    assert!(lasted.num_seconds() >= 9, "from its start to its end: {lasted}");
    let waited = attempts[0].started_at - job.started_at.unwrap();
    assert!(waited.num_milliseconds().abs() < 500, "the job started with it: {waited}");
    assert_eq!(scripted.calls(id), 1, "it was started once");
    worker.stop().await;
}

#[tokio::test]
async fn to_ask_for_a_task_takes_no_place_among_the_calls_of_its_model() {
    let (platform, scripted) = still().await;
    let model = register(&platform, Vendor::LlmEngine, r#"{"per_worker":1}"#).await;
    let worker = platform.worker().await;
    let task = platform.submit("task_1", |job| job.model_id = Some(model)).await;
    parks(&platform, task).await;
    let held = platform.submit("held", |job| job.model_id = Some(model)).await;
    timeout(SOON, scripted.runs(1)).await.expect("it has the only place");
    assert_eq!(ends(&platform, task).await.0.status, JobStatus::Succeeded);
    scripted.release();
    assert_eq!(ends(&platform, held).await.0.status, JobStatus::Succeeded);
    worker.stop().await;
}

#[tokio::test]
async fn a_parked_job_is_cancelled_at_once() {
    let (platform, _) = still().await;
    let worker = platform.worker().await;
    let id = platform.submit("task_1000", |_| {}).await;
    parks(&platform, id).await;
    assert_eq!(platform.cancel(id).await, None, "nobody runs it");
    let (job, _) = platform.find(id).await;
    assert_eq!((job.status, job.ticket), (JobStatus::Cancelled, None));
    worker.stop().await;
}

#[tokio::test]
async fn the_timeout_of_an_attempt_includes_the_waits() {
    let (platform, scripted) = still().await;
    let worker = platform.worker().await;
    let began = Instant::now();
    let edit = |job: &mut Job| {
        (job.limits.timeout, job.limits.num_retries) = (Duration::from_secs(20), 1);
    };
    let id = platform.submit("task_1000", edit).await;
    let (job, result) = ends(&platform, id).await;
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(40) && took < Duration::from_secs(48), "{took:?}");
    assert_eq!((job.status, job.attempt), (JobStatus::Failed, 2));
    let error = result.error.unwrap();
    assert_eq!(error.class, ErrorClass::Timeout);
    assert_eq!(error.message, "no answer from openai within 20 s");
    assert_eq!(scripted.calls(id), 2, "each attempt has its own task");
    worker.stop().await;
}

#[tokio::test]
async fn a_task_that_fails_is_retried_with_a_new_one() {
    let (platform, scripted) = still().await;
    let worker = platform.worker().await;
    let id = platform.submit("task_fails", |job| job.limits.num_retries = 1).await;
    let (job, result) = ends(&platform, id).await;
    assert_eq!((job.status, job.attempt), (JobStatus::Failed, 2));
    assert_eq!(result.error.unwrap().class, ErrorClass::Transient);
    assert_eq!(scripted.calls(id), 2);
    worker.stop().await;
}

#[tokio::test]
async fn a_stop_in_the_middle_of_a_question_costs_nothing() {
    let (platform, scripted) = still().await;
    let worker = platform.worker().await;
    let id = platform.submit("task_held", |_| {}).await;
    timeout(SOON, scripted.runs(1)).await.expect("it is asked for");
    worker.hard_stop().await;
    let (job, _) = platform.find(id).await;
    assert_eq!((job.status, job.lost_attempts), (JobStatus::Queued, 0));
    assert!(job.ticket.is_some());

    scripted.release();
    let other = platform.worker().await;
    let (job, _) = ends(&platform, id).await;
    assert_eq!((job.status, job.attempt), (JobStatus::Succeeded, 1));
    assert_eq!(scripted.calls(id), 1);
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_worker_died_another_goes_on_with_the_same_task() {
    let scripted = Arc::new(Scripted::default());
    let platform = Platform::start_with(Arc::clone(&scripted) as Arc<_>).await;
    let worker = platform.worker().await;
    let id = platform.submit("task_held", |_| {}).await;
    timeout(SOON, scripted.runs(1)).await.expect("it is asked for");
    worker.kill();
    timeout(SOON, scripted.runs(0)).await.expect("it is gone");
    scripted.release();
    let other = platform.worker().await;
    let (job, _) = platform.reaches(id, JobStatus::Succeeded).await;
    assert_eq!((job.attempt, job.lost_attempts), (2, 1));
    assert_eq!(scripted.calls(id), 1, "it was started once");
    let attempts = platform.attempts(id).await;
    assert_eq!(attempts[0].outcome, AttemptOutcome::Lost);
    assert_eq!(attempts[1].vendor_request_id.as_deref(), Some("task-1"));
    other.stop().await;
}

#[tokio::test]
async fn a_task_is_asked_for_with_the_key_it_was_started_with() {
    let (one, two) = (Arc::new(Scripted::default()), Arc::new(Scripted::default()));
    let keys = vec![Arc::clone(&one) as Arc<_>, Arc::clone(&two) as Arc<_>];
    let platform = Platform::start_still_with_keys(keys).await;
    let worker = platform.worker().await;
    // The first key is locked as the task is started and is not any more as it is asked for.
    let id = platform.submit("task_locked", |_| {}).await;
    two.unlock();
    parks(&platform, id).await;
    one.unlock();
    sleep(Duration::from_secs(1)).await;
    let (job, _) = ends(&platform, id).await;
    assert_eq!(job.status, JobStatus::Succeeded);
    assert_eq!((one.calls_of_model("task_locked"), two.calls_of_model("task_locked")), (0, 1));
    worker.stop().await;
}
