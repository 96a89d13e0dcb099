//! What is repaired when a process or a message is lost.

use std::time::Duration;

use chrono::TimeDelta;
use inferq_common::{
    broker::Event,
    id::InstanceId,
    instance::{CurrentInstance, GRACE, Identity, keep_alive},
    job::{AttemptOutcome, JobStatus, Limits},
    shutdown::Shutdown,
    store::{InstanceStore as _, JobStore as _},
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::platform::{Platform, SOON, instance};

#[tokio::test(flavor = "multi_thread")]
async fn the_job_of_a_killed_worker_is_run_by_another_within_four_seconds() {
    let platform = Platform::start().await;
    let doomed = platform.worker().await;
    let lost = doomed.instance.id();
    let id = platform.submit("waits", |_| {}).await;
    platform.vendor.has_open(1).await;
    let other = platform.worker().await;
    // The survivor may judge once it has been steady for the grace.
    let steady = async {
        while other.instance.steady_for() < GRACE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, steady).await.unwrap();

    doomed.kill();
    let killed = Instant::now();
    platform.vendor.open_gate();
    let (job, _) = platform.reaches(id, JobStatus::Succeeded).await;
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!((job.attempt, job.lost_attempts), (2, 1));
    let attempts = platform.attempts(id).await;
    assert_eq!(attempts[0].outcome, AttemptOutcome::Lost);
    assert_eq!(attempts[0].instance, Some(lost));
    assert_eq!(attempts[1].instance, Some(other.instance.id()));
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_finds_itself_lost_drops_what_it_runs_and_registers_anew() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let old = worker.instance.id();
    let id = platform.submit("waits", |_| {}).await;
    platform.vendor.has_open(1).await;
    platform.store.retire(old).await.unwrap();
    timeout(SOON, worker.instance.replaced(old)).await.unwrap();
    platform.vendor.open_gate();
    // Its own sweeper takes the job over for the new id.
    let (job, _) = platform.reaches(id, JobStatus::Succeeded).await;
    assert_eq!((job.attempt, job.lost_attempts), (2, 1));
    let attempts = platform.attempts(id).await;
    assert_eq!(attempts[0].instance, Some(old));
    assert_eq!(attempts[1].instance, Some(worker.instance.id()));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_answer_was_lost_is_given_back_by_the_living_process() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let job = platform.add("echo", |_| {}).await;
    // As if it had asked long ago and never heard.
    let asked_at = platform.clock.now() - TimeDelta::minutes(1);
    let claims = platform.store.claim(&[job.id], worker.instance.id(), asked_at).await.unwrap();
    assert_eq!(claims.len(), 1);
    let held = platform.submit("waits", |_| {}).await;
    let (job, _) = platform.reaches(job.id, JobStatus::Succeeded).await;
    assert_eq!((job.attempt, job.lost_attempts), (2, 1));
    platform.vendor.open_gate();
    let (held, _) = platform.reaches(held, JobStatus::Succeeded).await;
    assert_eq!(held.attempt, 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_told_of_a_job_that_lost_too_many_processes() {
    let platform = Platform::start().await;
    let mut events = platform.inbox_of(platform.api).await;
    let job = platform.add("echo", |job| job.reply_to = Some(platform.api)).await;
    for n in 1..=Limits::MAX_LOST_ATTEMPTS {
        let victim = InstanceId::new(platform.clock.now());
        platform.store.register(&instance(victim)).await.unwrap();
        let now = platform.clock.now();
        assert_eq!(platform.store.claim(&[job.id], victim, now).await.unwrap().len(), 1);
        platform.store.retire(victim).await.unwrap();
        if n < Limits::MAX_LOST_ATTEMPTS {
            platform.store.rescue(platform.api, now, 10).await.unwrap();
        }
    }
    let worker = platform.worker().await;
    let Event::Finished { job_id, status, attempt, result, .. } = events.next().await else {
        panic!("a job that ends is told as such")
    };
    assert_eq!((job_id, status, attempt), (job.id, JobStatus::Failed, Limits::MAX_LOST_ATTEMPTS));
    assert_eq!(result, None, "it is in the store");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_message_was_lost_is_published_again() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let long_ago = |job: &mut inferq_common::job::Job| job.created_at -= TimeDelta::seconds(60);
    let forgotten = platform.add("echo", long_ago).await;
    platform.reaches(forgotten.id, JobStatus::Succeeded).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_scheduled_runs_when_it_is_due() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let due = platform.clock.now() + TimeDelta::milliseconds(700);
    let job = platform.add("echo", |job| job.run_at = Some(due)).await;
    let (job, _) = platform.reaches(job.id, JobStatus::Succeeded).await;
    assert!(job.started_at.unwrap() >= due);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_past_its_start_by_deadline_expires() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let past = platform.clock.now() - TimeDelta::seconds(1);
    let id = platform.submit("echo", |job| job.expires_at = Some(past)).await;
    platform.reaches(id, JobStatus::Expired).await;
    assert!(platform.vendor.calls_of(id).is_empty());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_of_the_store_nobody_is_judged_early() {
    let platform = Platform::start().await;
    let worker = platform.worker().await;
    let other = InstanceId::new(platform.clock.now());
    platform.store.register(&instance(other)).await.unwrap();
    let began = Instant::now();
    platform.store.set_down(true);
    tokio::time::sleep_until(began + GRACE + Duration::from_millis(500)).await;
    platform.store.set_down(false);
    timeout(SOON, worker.instance.fresh()).await.unwrap();
    // The others need as long as this one may have needed, and a second on top.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(platform.store.heartbeat(other).await.unwrap(), "it was judged before it could renew");

    // Who then stays silent is lost all the same; only others can tell, for asking renews.
    tokio::time::sleep(GRACE + Duration::from_secs(1)).await;
    assert!(!platform.store.heartbeat(other).await.unwrap());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stops_is_retired_at_once() {
    let platform = Platform::start().await;
    let current = CurrentInstance::new(InstanceId::new(platform.clock.now()));
    let stop = CancellationToken::new();
    let identity = Identity { role: "worker", host: "test".into(), alone: false };
    let mut alive = JoinSet::new();
    alive.spawn(keep_alive(
        platform.shared_store(),
        platform.clock.clone(),
        identity,
        current.clone(),
        stop.clone(),
    ));
    timeout(SOON, current.fresh()).await.unwrap();
    assert!(platform.store.heartbeat(current.id()).await.unwrap());
    stop.cancel();
    timeout(SOON, alive.join_next()).await.unwrap();
    assert!(!platform.store.heartbeat(current.id()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_owns_its_store_alone_takes_over_from_its_past_at_once() {
    let platform = Platform::start().await;
    let job = platform.add("echo", |_| {}).await;
    let current = CurrentInstance::new(InstanceId::new(platform.clock.now()));
    let (stop, shutdown) = (CancellationToken::new(), Shutdown::new());
    let identity = Identity { role: "dev", host: "test".into(), alone: true };
    let mut tasks = JoinSet::new();
    tasks.spawn(keep_alive(
        platform.shared_store(),
        platform.clock.clone(),
        identity,
        current.clone(),
        stop.clone(),
    ));
    tasks.spawn(platform.sweeper(current.clone()).run(shutdown.clone()));
    let lane = job.lane();
    let published = async {
        while platform.broker.depth(lane).await.unwrap().ready == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let began = Instant::now();
    timeout(SOON, published).await.unwrap();
    assert!(began.elapsed() < GRACE, "nobody had to be judged");
    shutdown.soft.cancel();
    stop.cancel();
    tasks.join_all().await;
}
