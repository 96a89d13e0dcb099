//! How a worker stops.

use std::sync::Arc;

use inferq_common::job::{AttemptOutcome, JobStatus};
use inferq_vendors::scripted::Scripted;

use crate::platform::Platform;

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_stop_ends_what_is_in_hand_and_takes_nothing_new() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let in_hand = platform.submit("waits", |_| {}).await;
    platform.vendor.has_open(1).await;
    let shutdown = worker.shutdown.clone();
    let stop = tokio::task::JoinSet::from_iter([worker.stop()]);
    shutdown.soft.cancelled().await;
    let later = platform.submit("echo", |_| {}).await;
    platform.vendor.open_gate();
    stop.join_all().await;
    assert_eq!(platform.find(in_hand).await.0.status, JobStatus::Succeeded);
    assert_eq!(platform.find(later).await.0.status, JobStatus::Queued);

    let other = platform.worker().await;
    platform.reaches(later, JobStatus::Succeeded).await;
    assert_eq!(platform.vendor.calls_of(later).len(), 1);
    other.stop().await;
}

/// On one thread, so that the consumer wakes to both at once.
#[tokio::test]
async fn a_message_that_comes_with_the_stop_is_for_others() {
    let platform = Platform::start_still(Arc::new(Scripted::default())).await;
    let worker = platform.worker().await;
    let job = platform.add("echo", |_| {}).await;
    worker.shutdown.soft.cancel();
    platform.publish_ahead(job.id).await;
    worker.stop().await;
    assert_eq!(platform.find(job.id).await.0.status, JobStatus::Queued);
    assert_eq!(platform.depth().await, 1, "the message waits for others");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_stop_hands_jobs_back_and_another_worker_ends_them() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let id = platform.submit("waits", |_| {}).await;
    platform.vendor.has_open(1).await;
    worker.hard_stop().await;
    platform.vendor.has_open(0).await;
    let (job, _) = platform.find(id).await;
    assert_eq!((job.status, job.lost_attempts), (JobStatus::Queued, 1));

    let other = platform.worker().await;
    platform.vendor.open_gate();
    let (job, _) = platform.reaches(id, JobStatus::Succeeded).await;
    assert_eq!(job.attempt, 2);
    let outcomes: Vec<_> =
        platform.attempts(id).await.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [AttemptOutcome::Lost, AttemptOutcome::Succeeded]);
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_in_the_grace_is_handed_back() {
    let platform = Platform::start().await;
    let worker = platform.worker_with(|config| config.worker.shutdown_grace_secs = 0).await;
    let id = platform.submit("hangs", |_| {}).await;
    platform.vendor.has_open(1).await;
    worker.stop().await;
    let (job, _) = platform.find(id).await;
    assert_eq!((job.status, job.attempt, job.lost_attempts), (JobStatus::Queued, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_stop_ends_even_while_the_store_is_away() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let id = platform.submit("hangs", |_| {}).await;
    platform.vendor.has_open(1).await;
    platform.store.set_down(true);
    worker.hard_stop().await;
    platform.store.set_down(false);
    assert_eq!(platform.find(id).await.0.status, JobStatus::Running, "it is for others to find");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_still_looks_for_its_credential_can_be_stopped() {
    let platform = Platform::start().await;
    platform.store.get_stuck_at(Some("find_default_credential"));
    let worker = platform.worker().await;
    let (cancelled, handed_back) =
        (platform.submit("echo", |_| {}).await, platform.submit("echo", |_| {}).await);
    for id in [cancelled, handed_back] {
        platform.reaches(id, JobStatus::Running).await;
    }
    assert!(platform.cancel(cancelled).await.is_some());
    worker.hard_stop().await;
    assert_eq!(platform.find(cancelled).await.0.status, JobStatus::Cancelled);
    assert_eq!(platform.find(handed_back).await.0.status, JobStatus::Queued);
    assert!(platform.vendor.order().is_empty());
}
