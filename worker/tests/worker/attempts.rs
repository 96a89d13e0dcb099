//! What becomes of a job whose attempt ends in this way or that.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use inferq_common::{
    broker::{AHEAD_PATIENCE, Event, MAX_AHEAD},
    config::Config,
    error::ErrorClass,
    id::{InstanceId, JobId},
    job::{AttemptOutcome, JobStatus, Priority},
    vendor::Vendor,
};
use inferq_vendors::scripted::Scripted;
use tokio::time::{Instant, sleep};

use crate::platform::Platform;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_and_its_result_is_stored() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let id = platform.submit("echo", |_| {}).await;
    let (job, result) = platform.reaches(id, JobStatus::Succeeded).await;
    assert_eq!(job.attempt, 1);
    assert_eq!(result.response.unwrap().as_str(), format!(r#"{{"job":"{id}"}}"#));
    let attempts = platform.attempts(id).await;
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].instance, Some(worker.instance.id()));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_twice_runs_its_job_once() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let job = platform.add("waits", |_| {}).await;
    platform.publish(&job);
    platform.vendor.has_open(1).await;
    platform.publish(&job);
    // Behind the second one in the lane: when it has run, that one was taken.
    let next = platform.submit("echo", |_| {}).await;
    platform.reaches(next, JobStatus::Succeeded).await;
    platform.vendor.open_gate();
    platform.reaches(job.id, JobStatus::Succeeded).await;
    platform.publish(&job);
    worker.stop().await;
    assert_eq!(platform.vendor.calls_of(job.id).len(), 1);
    assert_eq!(platform.attempts(job.id).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_takes_jobs_of_the_vendors_it_is_for() {
    let platform = Platform::start().await;
    let of = |vendor| move |config: &mut Config| config.worker.vendors = vec![vendor];
    let other = platform.worker_with(of(Vendor::Anthropic)).await;
    let id = platform.submit("echo", |_| {}).await;
    while platform.depth().await == 0 {
        tokio::task::yield_now().await;
    }
    other.stop().await;
    assert_eq!(platform.find(id).await.0.status, JobStatus::Queued);
    assert_eq!(platform.depth().await, 1, "its message waits for a worker of its vendor");

    let own = platform.worker_with(of(Vendor::OpenAi)).await;
    platform.reaches(id, JobStatus::Succeeded).await;
    own.stop().await;
}

#[tokio::test]
async fn a_job_that_is_stored_after_its_message_came_runs_all_the_same() {
    let platform = Platform::start_still(Arc::new(Scripted::default())).await;
    let worker = platform.worker().await;
    let id = JobId::new(platform.clock.now());
    platform.publish_ahead(id).await;
    sleep(MAX_AHEAD).await;
    let began = Instant::now();
    platform.add("ok", |job| job.id = id).await;
    platform.reaches(id, JobStatus::Succeeded).await;
    assert!(began.elapsed() < Duration::from_secs(1), "no net caught it: {:?}", began.elapsed());
    assert_eq!(platform.attempts(id).await.len(), 1);
    worker.stop().await;
}

#[tokio::test]
async fn a_message_whose_job_does_not_come_is_soon_done_with() {
    let platform = Platform::start_still(Arc::new(Scripted::default())).await;
    let worker = platform.worker_with(|config| config.worker.concurrency = 1).await;
    // The one is too old to be waited for, the other one is waited for in vain.
    for made_at in [platform.clock.now() - TimeDelta::minutes(1), platform.clock.now()] {
        platform.publish_ahead(JobId::new(made_at)).await;
    }
    let began = Instant::now();
    let id = platform.submit("ok", |_| {}).await;
    platform.reaches(id, JobStatus::Succeeded).await;
    let took = began.elapsed();
    assert!(AHEAD_PATIENCE < took && took < 2 * AHEAD_PATIENCE, "the second alone: {took:?}");
    worker.stop().await;
    assert_eq!(platform.depth().await, 0, "both were acknowledged");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_told_and_given_the_result() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let mut events = platform.inbox_of(platform.api).await;
    let id = platform.submit("echo", |job| job.reply_to = Some(platform.api)).await;
    let Event::Finished { job_id, status, attempt, result, .. } = events.next().await else {
        panic!("a job that ends is told as such")
    };
    assert_eq!((job_id, status, attempt), (id, JobStatus::Succeeded, 1));
    assert_eq!(result.unwrap(), platform.find(id).await.1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_told_though_the_answer_to_the_finish_was_lost() {
    for (model, expected) in [("echo", JobStatus::Succeeded), ("fails_9", JobStatus::Failed)] {
        let platform = Platform::start().await;
        let worker = platform.worker().await;
        let mut events = platform.inbox_of(platform.api).await;
        platform.store.lose_answer_of("finish");
        let edit = |job: &mut inferq_common::job::Job| {
            job.reply_to = Some(platform.api);
            job.limits.num_retries = 0;
        };
        let id = platform.submit(model, edit).await;
        let Event::Finished { job_id, status, .. } = events.next().await else {
            panic!("a job that ends is told as such")
        };
        assert_eq!((job_id, status), (id, expected));
        assert_eq!(platform.attempts(id).await.len(), 1);
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_job_is_retried_until_it_succeeds() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let id = platform.submit("fails_2", |_| {}).await;
    let (job, _) = platform.reaches(id, JobStatus::Succeeded).await;
    assert_eq!(job.attempt, 3);
    let attempts = platform.attempts(id).await;
    let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt.outcome).collect();
    let failed = AttemptOutcome::Failed;
    assert_eq!(outcomes, [failed, failed, AttemptOutcome::Succeeded]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_keeps_failing_is_given_up() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let id = platform.submit("fails_9", |job| job.limits.num_retries = 1).await;
    let (job, result) = platform.reaches(id, JobStatus::Failed).await;
    assert_eq!(job.attempt, 2);
    assert_eq!(result.error.unwrap().class, ErrorClass::Transient);
    assert_eq!(platform.vendor.calls_of(id).len(), 2);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_attempt_waits_as_long_as_the_vendor_asked() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let id = platform.submit("slow_down", |_| {}).await;
    platform.reaches(id, JobStatus::Succeeded).await;
    let calls = platform.vendor.calls_of(id);
    let waited = calls[1].1 - calls[0].1;
    assert!(waited >= Duration::from_millis(1200), "{waited:?}");
    assert!(waited < Duration::from_millis(2500), "{waited:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_ends_with_its_timeout_and_its_call_is_closed() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let limit = Duration::from_secs(1);
    let id = platform
        .submit("hangs", |job| {
            job.limits.timeout = limit;
            job.limits.num_retries = 0;
        })
        .await;
    let (_, result) = platform.reaches(id, JobStatus::Failed).await;
    let error = result.error.unwrap();
    assert_eq!(error.class, ErrorClass::Timeout);
    assert_eq!(error.message, "no answer from openai within 1 s");
    platform.vendor.has_open(0).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_an_adapter_fails_the_job_and_spares_the_worker() {
    let platform = Platform::start().await;
    let worker = platform.worker_with(|config| config.worker.concurrency = 1).await;
    let id = platform.submit("panics", |_| {}).await;
    let (_, result) = platform.reaches(id, JobStatus::Failed).await;
    let error = result.error.unwrap();
    assert_eq!(error.class, ErrorClass::Internal);
    assert_eq!(error.message, "the adapter panicked; this is a defect of inferq");
    let next = platform.submit("echo", |_| {}).await;
    platform.reaches(next, JobStatus::Succeeded).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_event_closes_the_call_at_once() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let id = platform.submit("hangs", |_| {}).await;
    platform.vendor.has_open(1).await;
    let ran_at = platform.cancel(id).await.unwrap();
    let asked = Instant::now();
    platform.broker.send(ran_at, &Event::Cancel { job_id: id, attempt: 1 }).await.unwrap();
    platform.vendor.has_open(0).await;
    assert!(asked.elapsed() < Duration::from_millis(250));
    let (job, _) = platform.find(id).await;
    assert_eq!(job.status, JobStatus::Cancelled);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_attempt_is_stopped_even_if_no_event_arrives() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let id = platform.submit("hangs", |_| {}).await;
    platform.vendor.has_open(1).await;
    platform.cancel(id).await;
    platform.vendor.has_open(0).await;
    assert_eq!(platform.find(id).await.0.status, JobStatus::Cancelled);
    assert_eq!(platform.attempts(id).await.len(), 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_as_a_job_ends_loses_nothing() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let id = platform.submit("waits", |_| {}).await;
    platform.vendor.has_open(1).await;
    platform.store.set_down(true);
    platform.vendor.open_gate();
    platform.vendor.has_open(0).await;
    platform.store.refuses(4).await;
    platform.store.set_down(false);
    platform.reaches(id, JobStatus::Succeeded).await;
    assert_eq!(platform.vendor.calls_of(id).len(), 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_cannot_be_stored_hold_up_other_large_ones() {
    let platform = Platform::start().await;
    let worker = platform.worker_with(|config| config.worker.answer_memory_bytes = 1 << 20).await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(platform.submit("large", |_| {}).await);
    }
    platform.vendor.has_open(3).await;
    platform.store.set_down(true);
    platform.vendor.open_gate();
    // The first takes all there is, and one may go beyond.
    platform.vendor.has_open(1).await;
    platform.store.refuses(4).await;
    platform.vendor.has_open(1).await;
    platform.store.set_down(false);
    for id in jobs {
        platform.reaches(id, JobStatus::Succeeded).await;
        assert_eq!(platform.vendor.calls_of(id).len(), 1);
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_published_while_the_store_is_away_run_when_it_is_back() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let job = platform.add("echo", |_| {}).await;
    platform.store.set_down(true);
    platform.publish(&job);
    platform.store.refuses(1).await;
    platform.store.set_down(false);
    platform.reaches(job.id, JobStatus::Succeeded).await;
    assert_eq!(platform.vendor.calls_of(job.id).len(), 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn urgent_jobs_go_first_and_the_others_are_not_starved() {
    let platform = Platform::start().await;
    let mut low = Vec::new();
    for _ in 0..4 {
        low.push(platform.submit("echo", |job| job.priority = Priority::Low).await);
    }
    let mut high = Vec::new();
    for _ in 0..80 {
        high.push(platform.submit("echo", |job| job.priority = Priority::High).await);
    }
    while platform.publisher.backlog() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let worker = platform.worker_with(|config| config.worker.concurrency = 1).await;
    for &id in high.iter().chain(&low) {
        platform.reaches(id, JobStatus::Succeeded).await;
    }
    let order = platform.vendor.order();
    let places: Vec<_> =
        low.iter().map(|id| order.iter().position(|called| called == id).unwrap()).collect();
    assert!(places[0] >= 4, "urgent jobs go first: {places:?}");
    assert!(places[3] < 75, "one in 17 is not urgent: {places:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_past_its_total_timeout_fails_without_a_call() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let id = platform
        .submit("echo", |job| {
            job.created_at -= TimeDelta::seconds(60);
            job.limits.total_timeout = Some(Duration::from_secs(30));
        })
        .await;
    let (_, result) = platform.reaches(id, JobStatus::Failed).await;
    let error = result.error.unwrap();
    assert_eq!(error.class, ErrorClass::Expired);
    assert_eq!(error.message, "the total timeout of 30 s passed before the attempt could start");
    assert!(platform.vendor.calls_of(id).is_empty());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_to_no_one_does_not_hold_up_the_worker() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let nobody = InstanceId::new(platform.clock.now());
    let id = platform.submit("echo", |job| job.reply_to = Some(nobody)).await;
    platform.reaches(id, JobStatus::Succeeded).await;
    worker.stop().await;
}
