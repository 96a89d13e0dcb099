use super::{Fixture, a_job, acme, at, succeeded};
use crate::{
    callback::DeliveryAttempt,
    store::{DeliveryClaim, DeliveryOutcome, Submitted},
};

pub async fn retention_removes_all_that_belongs_to_a_job(fixture: Fixture) {
    let instance = fixture.instance().await;
    let builder = a_job().calling_back("https://example.com").keyed("k", 1);
    let old = fixture.ended(builder, instance).await;
    let claim = deliver(&fixture, instance).await;
    let streamed = fixture.running(a_job().with(|job| job.stream = true), instance).await;
    assert!(fixture.append_one(&streamed, 0, &["1"]).await);
    assert!(fixture.finish_one(&streamed, succeeded(), at(2)).await);
    let young = fixture.add(a_job(), instance).await.id;
    assert_eq!(fixture.remove_finished(at(2), 10).await.unwrap(), 0, "it ended at two");
    assert_eq!(fixture.remove_finished(at(3), 10).await.unwrap(), 2);
    assert!(fixture.chunks_from(streamed.job.id, 1, 0).await.is_empty());
    assert_eq!(fixture.find_job(old.id, &acme()).await.unwrap(), None);
    assert_eq!(fixture.find_args(old.id, &acme()).await.unwrap(), None);
    assert!(fixture.list_attempts(old.id).await.unwrap().is_empty());
    assert!(fixture.list_deliveries(old.id).await.unwrap().is_empty());
    assert!(fixture.list_delivery_attempts(claim.delivery.id).await.unwrap().is_empty());
    assert!(fixture.find_job(young, &acme()).await.unwrap().is_some());
    let again = fixture.submit(&[a_job().keyed("k", 2).build()], instance).await.unwrap();
    assert_eq!(again, [Submitted::Added], "its key is free");
}

async fn deliver(fixture: &Fixture, instance: crate::id::InstanceId) -> DeliveryClaim {
    let mut claims = fixture.claim_deliveries(instance, at(2), 10, 10, &[]).await.unwrap();
    let claim = claims.pop().unwrap();
    let attempt = DeliveryAttempt {
        delivery_id: claim.delivery.id,
        number: claim.number,
        started_at: at(2),
        finished_at: at(2),
        status_code: Some(200),
        error: None,
    };
    assert!(fixture.finish_delivery(&claim, &attempt, DeliveryOutcome::Delivered).await.unwrap());
    claim
}

pub async fn retention_waits_for_deliveries(fixture: Fixture) {
    let instance = fixture.instance().await;
    let pending = fixture.ended(a_job().calling_back("https://example.com"), instance).await.id;
    assert_eq!(fixture.remove_finished(at(9), 10).await.unwrap(), 0, "pending");
    let claims = fixture.claim_deliveries(instance, at(2), 10, 10, &[]).await.unwrap();
    assert_eq!(fixture.remove_finished(at(9), 10).await.unwrap(), 0, "delivering");
    let attempt = DeliveryAttempt {
        delivery_id: claims[0].delivery.id,
        number: 1,
        started_at: at(2),
        finished_at: at(2),
        status_code: None,
        error: Some("no answer".into()),
    };
    let outcome = DeliveryOutcome::Failed;
    assert!(fixture.finish_delivery(&claims[0], &attempt, outcome).await.unwrap());
    assert_eq!(fixture.remove_finished(at(9), 10).await.unwrap(), 1);
    assert_eq!(fixture.find_job(pending, &acme()).await.unwrap(), None);
}

pub async fn retention_takes_the_oldest_first_and_no_more_than_it_may(fixture: Fixture) {
    let instance = fixture.instance().await;
    let mut ids = Vec::new();
    for end in [5, 3, 4] {
        let claim = fixture.running(a_job(), instance).await;
        assert!(fixture.finish_one(&claim, succeeded(), at(end)).await);
        ids.push((end, claim.job.id));
    }
    fixture.running(a_job(), instance).await;
    assert_eq!(fixture.remove_finished(at(100), 2).await.unwrap(), 2);
    for (end, id) in ids {
        assert_eq!(fixture.find_job(id, &acme()).await.unwrap().is_some(), end == 5);
    }
    assert_eq!(fixture.remove_finished(at(100), 2).await.unwrap(), 1);
    assert_eq!(fixture.remove_finished(at(100), 2).await.unwrap(), 0);
}

pub async fn an_old_key_is_forgotten_while_its_job_goes_on(fixture: Fixture) {
    let instance = fixture.instance().await;
    let running = fixture.running(a_job().keyed("k", 1), instance).await.job.id;
    let again = a_job().keyed("k", 1).build();
    let answers = fixture.submit(std::slice::from_ref(&again), instance).await.unwrap();
    assert!(matches!(&answers[0], Submitted::Repeated(job) if job.id == running));
    assert_eq!(fixture.remove_finished(at(1), 10).await.unwrap(), 0);
    assert_eq!(fixture.submit(&[again], instance).await.unwrap(), [Submitted::Added]);
    assert!(fixture.find_job(running, &acme()).await.unwrap().is_some());
}
