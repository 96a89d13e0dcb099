//! Jobs that were lent to a worker as they were stored.

use std::time::Duration;

use chrono::TimeDelta;
use inferq_common::{
    broker::{Event, Room},
    id::{InstanceId, JobId},
    job::{AttemptOutcome, Job, JobStatus, Json},
    store::Claim,
    vendor::Vendor,
};

use crate::platform::{Platform, TestWorker};

/// Sends word of a loan, as an api does.
async fn tell(platform: &Platform, loan: &Claim) {
    send(platform, loan, Some(Json::of(loan).unwrap())).await;
}

async fn send(platform: &Platform, loan: &Claim, claim: Option<Json>) {
    let event = Event::Lent { job_id: loan.job.id, vendor: Vendor::OpenAi, trace: None, claim };
    // What comes before the inbox is open is refused.
    while platform.broker.hand(loan.instance, &event).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Lends a job for `model` and says so.
async fn lend(platform: &Platform, worker: InstanceId, model: &str) -> JobId {
    let loan = platform.lend(model, worker, |_| {}).await;
    tell(platform, &loan).await;
    loan.job.id
}

/// Fails unless the job has been called so often by when a later loan has run: word is taken in its order.
async fn n_calls_after_all_was_heard(
    platform: &Platform,
    worker: &TestWorker,
    id: JobId,
    n_calls: usize,
) {
    let last = lend(platform, worker.instance.id(), "echo").await;
    platform.reaches(last, JobStatus::Succeeded).await;
    assert_eq!(platform.vendor.calls_of(id).len(), n_calls);
}

async fn with_places(platform: &Platform, places: usize) -> TestWorker {
    platform.worker_with(|config| config.worker.concurrency = places).await
}

/// The room that the next end of a job tells of.
async fn room_told(platform: &Platform, worker: &TestWorker, model: &str) -> Option<Room> {
    let mut events = platform.inbox_of(platform.api).await;
    let waits = |job: &mut Job| job.reply_to = Some(platform.api);
    let loan = platform.lend(model, worker.instance.id(), waits).await;
    tell(platform, &loan).await;
    let Event::Finished { job_id, room, .. } = events.next().await else {
        panic!("a job that ends is told as such")
    };
    assert_eq!(job_id, loan.job.id);
    room
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lent_job_runs_without_a_message() {
    let platform = Platform::start().await;
    // With one place, which waits for a message meanwhile.
    let worker = with_places(&platform, 1).await;
    for _ in 0..3 {
        let id = lend(&platform, worker.instance.id(), "echo").await;
        let (job, _) = platform.reaches(id, JobStatus::Succeeded).await;
        assert_eq!((job.attempt, job.lost_attempts), (1, 0));
        let attempts = platform.attempts(id).await;
        assert_eq!(attempts.len(), 1);
        assert_eq!(attempts[0].instance, Some(worker.instance.id()));
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_job_tells_of_half_the_places_as_far_as_they_are_free() {
    let platform = Platform::start().await;
    for (places, free) in [(1, 1), (2, 1), (5, 3), (8, 4)] {
        let worker = with_places(&platform, places).await;
        let instance = worker.instance.id();
        let expected = Room { instance, vendor: Vendor::OpenAi, places: free };
        assert_eq!(room_told(&platform, &worker, "echo").await, Some(expected));
        worker.stop().await;
    }
    let worker = with_places(&platform, 2).await;
    let busy = lend(&platform, worker.instance.id(), "waits").await;
    platform.vendor.has_open(1).await;
    assert_eq!(room_told(&platform, &worker, "echo").await, None);
    platform.vendor.open_gate();
    platform.reaches(busy, JobStatus::Succeeded).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn word_that_comes_again_runs_nothing_again() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let loan = platform.lend("waits", worker.instance.id(), |_| {}).await;
    let id = loan.job.id;
    tell(&platform, &loan).await;
    platform.vendor.has_open(1).await;
    tell(&platform, &loan).await;
    platform.vendor.open_gate();
    platform.reaches(id, JobStatus::Succeeded).await;
    tell(&platform, &loan).await;
    n_calls_after_all_was_heard(&platform, &worker, id, 1).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fresh_word_is_run_though_the_store_is_away_and_all_else_is_asked_for() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    platform.store.refuse("lent");
    let id = lend(&platform, worker.instance.id(), "echo").await;
    platform.reaches(id, JobStatus::Succeeded).await;

    let worker_id = worker.instance.id();
    let old = |job: &mut Job| job.created_at -= TimeDelta::milliseconds(500);
    let late = platform.lend("echo", worker_id, old).await;
    tell(&platform, &late).await;
    let other = platform.lend("echo", worker_id, |_| {}).await;
    send(&platform, &other, Some(Json::of(&late).unwrap())).await;
    let mute = platform.lend("echo", worker_id, |_| {}).await;
    send(&platform, &mute, None).await;
    let newer = platform.lend("echo", worker_id, |_| {}).await;
    send(&platform, &newer, Some(Json::parse(r#"{"of":"another release"}"#).unwrap())).await;
    for loan in [late, other, mute, newer] {
        // Not begun, and so given back.
        let (job, _) = platform.reaches(loan.job.id, JobStatus::Succeeded).await;
        assert_eq!((job.attempt, job.lost_attempts), (2, 1));
        assert_eq!(platform.vendor.calls_of(loan.job.id).len(), 1);
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loan_without_its_claim_is_read_from_the_store() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let loan = platform.lend("echo", worker.instance.id(), |_| {}).await;
    send(&platform, &loan, None).await;
    let (job, _) = platform.reaches(loan.job.id, JobStatus::Succeeded).await;
    assert_eq!((job.attempt, job.lost_attempts), (1, 0));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loan_nobody_told_of_is_found_and_given_back() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let loan = platform.lend("echo", worker.instance.id(), |_| {}).await;
    let id = loan.job.id;
    let (job, _) = platform.reaches(id, JobStatus::Succeeded).await;
    assert_eq!((job.attempt, job.lost_attempts), (2, 1));
    let outcomes: Vec<_> =
        platform.attempts(id).await.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [AttemptOutcome::Lost, AttemptOutcome::Succeeded]);
    assert_eq!(platform.vendor.calls_of(id).len(), 1);
    // Too late: it is no loan any more.
    tell(&platform, &loan).await;
    n_calls_after_all_was_heard(&platform, &worker, id, 1).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_gives_back_what_it_has_not_begun_and_tells_of_no_room() {
    let platform = Platform::start().await;
    let worker = with_places(&platform, 8).await;
    let instance = worker.instance.id();
    let mut events = platform.inbox_of(platform.api).await;
    let in_hand = platform.lend("waits", instance, |job| job.reply_to = Some(platform.api)).await;
    tell(&platform, &in_hand).await;
    platform.vendor.has_open(1).await;
    let shutdown = worker.shutdown.clone();
    let stop = tokio::task::JoinSet::from_iter([worker.stop()]);
    shutdown.soft.cancelled().await;
    let later = lend(&platform, instance, "echo").await;
    let (job, _) = platform.reaches(later, JobStatus::Queued).await;
    assert_eq!((job.attempt, job.lost_attempts, job.started_at), (0, 0, None));
    assert!(platform.attempts(later).await.is_empty());

    platform.vendor.open_gate();
    let Event::Finished { room, .. } = events.next().await else { panic!("the job ends") };
    assert_eq!(room, None);
    stop.join_all().await;

    let other = platform.worker().await;
    platform.reaches(later, JobStatus::Succeeded).await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lent_beyond_the_places_goes_back_to_its_lane() {
    let platform = Platform::start().await;
    let worker = with_places(&platform, 1).await;
    let instance = worker.instance.id();
    lend(&platform, instance, "hangs").await;
    platform.vendor.has_open(1).await;
    // One waits for the place, the next does not, and the first does not wait for long.
    let waits = lend(&platform, instance, "echo").await;
    let refused = lend(&platform, instance, "echo").await;
    let (job, _) = platform.reaches(refused, JobStatus::Queued).await;
    assert_eq!((job.attempt, job.lost_attempts), (0, 0));
    let (job, _) = platform.reaches(waits, JobStatus::Queued).await;
    assert_eq!((job.attempt, job.lost_attempts), (1, 1));

    let other = platform.worker().await;
    for id in [waits, refused] {
        platform.reaches(id, JobStatus::Succeeded).await;
        assert_eq!(platform.vendor.calls_of(id).len(), 1);
    }
    other.stop().await;
    worker.hard_stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loan_that_was_cancelled_is_not_run() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let instance = worker.instance.id();
    let loan = platform.lend("echo", instance, |_| {}).await;
    let id = loan.job.id;
    assert_eq!(platform.cancel(id).await, Some(instance));
    send(&platform, &loan, None).await;
    n_calls_after_all_was_heard(&platform, &worker, id, 0).await;
    worker.stop().await;
}
