use std::time::Duration;

use super::{Fixture, a_job, acme, at, succeeded};
use crate::{
    id::InstanceId,
    job::JobStatus,
    store::{DeliveryOutcome, StoreError},
};

/// Longer than any test takes.
const LONG: Duration = Duration::from_hours(1);

pub async fn a_heartbeat_keeps_an_instance_alive(fixture: Fixture) {
    let instance = fixture.instance().await;
    assert!(fixture.heartbeat(instance).await.unwrap());
    assert!(fixture.judge(LONG).await.unwrap().is_empty());
    assert!(fixture.heartbeat(instance).await.unwrap());
    assert!(!fixture.heartbeat(InstanceId::new(at(0))).await.unwrap(), "unknown");
}

pub async fn silence_beyond_the_grace_loses_an_instance_for_good(fixture: Fixture) {
    let instance = fixture.instance().await;
    assert_eq!(fixture.judge(Duration::ZERO).await.unwrap(), [instance]);
    assert!(fixture.judge(Duration::ZERO).await.unwrap().is_empty(), "once");
    assert!(!fixture.heartbeat(instance).await.unwrap(), "it does not come back");
    let anew = fixture.instance().await;
    assert!(fixture.heartbeat(anew).await.unwrap());
}

pub async fn the_grace_counts_from_the_last_heartbeat(fixture: Fixture) {
    let silent = fixture.instance().await;
    let start = std::time::Instant::now();
    let beating = fixture.instance().await;
    // Wide enough that a slow machine does not stand between the heartbeat and the judgement.
    let grace = Duration::from_secs(2);
    while start.elapsed() < grace {
        assert!(fixture.heartbeat(beating).await.unwrap());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(fixture.heartbeat(beating).await.unwrap());
    assert_eq!(fixture.judge(grace).await.unwrap(), [silent]);
}

pub async fn a_retired_instance_is_lost(fixture: Fixture) {
    let (instance, other) = (fixture.instance().await, fixture.instance().await);
    fixture.retire(instance).await.unwrap();
    fixture.retire(instance).await.unwrap();
    assert!(!fixture.heartbeat(instance).await.unwrap());
    assert!(fixture.heartbeat(other).await.unwrap());
}

pub async fn an_owner_retires_all_others(fixture: Fixture) {
    let (one, two, owner) =
        (fixture.instance().await, fixture.instance().await, fixture.instance().await);
    fixture.retire_others(owner).await.unwrap();
    assert!(!fixture.heartbeat(one).await.unwrap());
    assert!(!fixture.heartbeat(two).await.unwrap());
    assert!(fixture.heartbeat(owner).await.unwrap());
}

pub async fn an_instance_is_forgotten_once_it_holds_nothing(fixture: Fixture) {
    let (queued, running, delivering) =
        (fixture.instance().await, fixture.instance().await, fixture.instance().await);
    let alive = fixture.instance().await;
    fixture.add(a_job(), queued).await;
    fixture.running(a_job(), running).await;
    fixture.ended(a_job().calling_back("https://example.com"), alive).await;
    assert_eq!(fixture.claim_deliveries(delivering, at(2), 1, 1, &[]).await.unwrap().len(), 1);
    fixture.retire_others(alive).await.unwrap();
    assert_eq!(fixture.forget_instances(LONG).await.unwrap(), 0);
    assert_eq!(fixture.forget_instances(Duration::ZERO).await.unwrap(), 0, "all hold something");
    fixture.rescue(alive, at(3), 10).await.unwrap();
    assert_eq!(fixture.forget_instances(LONG).await.unwrap(), 0, "not yet");
    assert_eq!(fixture.forget_instances(Duration::ZERO).await.unwrap(), 3);
    assert!(fixture.heartbeat(alive).await.unwrap());
}

pub async fn a_lost_instance_can_do_nothing(fixture: Fixture) {
    let instance = fixture.instance().await;
    let claim = fixture.running(a_job(), instance).await;
    fixture.ended(a_job().calling_back("https://example.com"), instance).await;
    let deliveries = fixture.claim_deliveries(instance, at(2), 1, 1, &[]).await.unwrap();
    let queued = fixture.add(a_job(), instance).await.id;
    fixture.judge(Duration::ZERO).await.unwrap();
    assert!(fixture.claim_one(queued, instance, at(3)).await.is_none());
    assert!(!fixture.finish_one(&claim, succeeded(), at(3)).await);
    let attempt = super::an_attempt(&deliveries[0], Some(200));
    let outcome = DeliveryOutcome::Delivered;
    assert!(!fixture.finish_delivery(&deliveries[0], &attempt, outcome).await.unwrap());
    assert!(fixture.list_delivery_attempts(attempt.delivery_id).await.unwrap().is_empty());
    assert!(fixture.claim_deliveries(instance, at(9), 1, 1, &[]).await.unwrap().is_empty());
    assert_eq!(fixture.status(claim.job.id).await, JobStatus::Running);
}

pub async fn a_store_knows_itself(fixture: Fixture) {
    assert!(["postgres", "sqlite"].contains(&fixture.kind()));
    fixture.ping().await.unwrap();
    fixture.check_migrated().await.unwrap();
    // Once more, from several sides, changes nothing.
    let job = fixture.add(a_job(), fixture.instance().await).await;
    let (one, two) = futures::join!(fixture.migrate(), fixture.migrate());
    one.unwrap();
    two.unwrap();
    assert_eq!(fixture.job(job.id).await, job);
}

pub async fn a_closed_store_is_unavailable(fixture: Fixture) {
    fixture.close().await;
    assert!(matches!(fixture.ping().await, Err(StoreError::Unavailable(_))));
    let found = fixture.find_args(crate::id::JobId::new(at(0)), &acme()).await;
    assert!(matches!(found, Err(StoreError::Unavailable(_))));
    let heartbeat = fixture.heartbeat(InstanceId::new(at(0))).await;
    assert!(matches!(heartbeat, Err(StoreError::Unavailable(_))));
}
