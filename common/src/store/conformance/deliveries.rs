use std::{collections::HashSet, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};

use super::{Fixture, a_job, a_secret, account, acme, at, succeeded};
use crate::{
    callback::{Delivery, DeliveryAttempt, DeliveryStatus},
    id::{DeliveryId, InstanceId, JobId},
    job::JobStatus,
    store::{DeliveryClaim, DeliveryOutcome},
};

/// An attempt at [`at`] 10 to 11.
pub(super) fn an_attempt(claim: &DeliveryClaim, status_code: Option<u16>) -> DeliveryAttempt {
    let is_success = status_code.is_some_and(|code| (200..300).contains(&code));
    DeliveryAttempt {
        delivery_id: claim.delivery.id,
        number: claim.number,
        started_at: at(10),
        finished_at: at(11),
        status_code,
        error: (!is_success).then(|| "the receiver did not accept it".into()),
    }
}

impl Fixture {
    /// A job that ended at `seconds` and owes a callback to `host`.
    async fn owing(&self, host: &str, seconds: i64, instance: InstanceId) -> Delivery {
        let job = a_job().calling_back(&format!("https://{host}/hook"));
        let claim = self.running(job, instance).await;
        assert!(self.finish_one(&claim, succeeded(), at(seconds)).await);
        self.list_deliveries(claim.job.id).await.unwrap().pop().unwrap()
    }

    async fn claim_delivery(&self, instance: InstanceId, seconds: i64) -> Option<DeliveryClaim> {
        let mut claims = self.claim_deliveries(instance, at(seconds), 1, 1, &[]).await.unwrap();
        claims.pop()
    }
}

fn ids(claims: &[DeliveryClaim]) -> Vec<DeliveryId> {
    claims.iter().map(|claim| claim.delivery.id).collect()
}

pub async fn a_delivery_is_claimed_with_all_its_callback_needs(fixture: Fixture) {
    let instance = fixture.instance().await;
    fixture.ensure_account(&acme(), &a_secret("old"), at(0)).await.unwrap();
    fixture.rotate_webhook_secret(&acme(), &a_secret("new"), at(1), at(50)).await.unwrap();
    let owed = fixture.owing("a.example", 3, instance).await;
    assert!(fixture.claim_delivery(instance, 2).await.is_none(), "not due yet");
    let claim = fixture.claim_delivery(instance, 3).await.unwrap();
    assert_eq!((claim.delivery.id, claim.number), (owed.id, 1));
    assert_eq!(claim.delivery.status, DeliveryStatus::Delivering);
    assert_eq!((claim.delivery.attempt, claim.delivery.instance), (1, Some(instance)));
    assert_eq!(claim.delivery.next_attempt_at, None);
    assert_eq!(
        fixture.find_delivery(owed.id, &acme()).await.unwrap(),
        Some(claim.delivery.clone())
    );
    assert_eq!(claim.job, fixture.job(owed.job_id).await);
    assert_eq!(claim.result, fixture.result(owed.job_id).await);
    let secrets: Vec<_> = claim.secrets.iter().map(SecretString::expose_secret).collect();
    assert_eq!(secrets, ["whsec_new", "whsec_old"]);
    assert!(fixture.claim_delivery(instance, 4).await.is_none(), "it is lent");
}

pub async fn a_delivery_is_signed_with_active_secrets_alone(fixture: Fixture) {
    let instance = fixture.instance().await;
    fixture.ensure_account(&acme(), &a_secret("old"), at(0)).await.unwrap();
    fixture.rotate_webhook_secret(&acme(), &a_secret("new"), at(1), at(50)).await.unwrap();
    fixture.owing("a.example", 3, instance).await;
    let claim = fixture.claim_delivery(instance, 60).await.unwrap();
    let secrets: Vec<_> = claim.secrets.iter().map(SecretString::expose_secret).collect();
    assert_eq!(secrets, ["whsec_new"]);
}

pub async fn a_delivered_callback_is_over(fixture: Fixture) {
    let instance = fixture.instance().await;
    fixture.owing("a.example", 3, instance).await;
    let claim = fixture.claim_delivery(instance, 3).await.unwrap();
    let attempt = an_attempt(&claim, Some(204));
    let outcome = DeliveryOutcome::Delivered;
    assert!(fixture.finish_delivery(&claim, &attempt, outcome).await.unwrap());
    let delivery = fixture.find_delivery(claim.delivery.id, &acme()).await.unwrap().unwrap();
    assert_eq!(delivery.status, DeliveryStatus::Delivered);
    assert_eq!((delivery.finished_at, delivery.next_attempt_at), (Some(at(11)), None));
    assert_eq!(delivery.instance, None);
    assert_eq!(
        fixture.list_delivery_attempts(delivery.id).await.unwrap(),
        std::slice::from_ref(&attempt)
    );
    assert!(fixture.claim_delivery(instance, 1000).await.is_none());
    assert!(!fixture.finish_delivery(&claim, &attempt, outcome).await.unwrap(), "once");
    assert_eq!(fixture.list_delivery_attempts(delivery.id).await.unwrap().len(), 1);
}

pub async fn a_failed_attempt_is_repeated_when_it_is_due(fixture: Fixture) {
    let instance = fixture.instance().await;
    fixture.owing("a.example", 3, instance).await;
    let first = fixture.claim_delivery(instance, 3).await.unwrap();
    let retry = DeliveryOutcome::Retry(at(20));
    assert!(fixture.finish_delivery(&first, &an_attempt(&first, None), retry).await.unwrap());
    let delivery = fixture.find_delivery(first.delivery.id, &acme()).await.unwrap().unwrap();
    assert_eq!((delivery.status, delivery.attempt), (DeliveryStatus::Pending, 1));
    assert_eq!((delivery.next_attempt_at, delivery.finished_at), (Some(at(20)), None));
    assert!(fixture.claim_delivery(instance, 19).await.is_none());
    let second = fixture.claim_delivery(instance, 20).await.unwrap();
    assert_eq!((second.delivery.attempt, second.number), (2, 2));
    // The first claim holds no more, although the delivery is with the same instance again.
    let late = an_attempt(&first, Some(200));
    assert!(!fixture.finish_delivery(&first, &late, DeliveryOutcome::Delivered).await.unwrap());
    let failed = an_attempt(&second, Some(410));
    assert!(fixture.finish_delivery(&second, &failed, DeliveryOutcome::Failed).await.unwrap());
    let delivery = fixture.find_delivery(first.delivery.id, &acme()).await.unwrap().unwrap();
    assert_eq!((delivery.status, delivery.finished_at), (DeliveryStatus::Failed, Some(at(11))));
    let codes: Vec<_> = fixture.list_delivery_attempts(delivery.id).await.unwrap();
    let codes: Vec<_> = codes.iter().map(|a| (a.number, a.status_code)).collect();
    assert_eq!(codes, [(1, None), (2, Some(410))]);
    assert!(fixture.claim_delivery(instance, 1000).await.is_none());
}

pub async fn deliveries_go_oldest_first_with_a_cap_per_host(fixture: Fixture) {
    let instance = fixture.instance().await;
    let mut a = Vec::new();
    for seconds in [9, 5, 7, 6, 8] {
        a.push((seconds, fixture.owing("a.example", seconds, instance).await.id));
    }
    a.sort_by_key(|(seconds, _)| *seconds);
    let a: Vec<DeliveryId> = a.into_iter().map(|(_, id)| id).collect();
    let b = fixture.owing("b.example", 10, instance).await.id;
    let c = fixture.owing("c.example", 4, instance).await.id;
    fixture.owing("d.example", 99, instance).await;
    let busy = ["c.example".to_owned(), "never.example".to_owned()];
    let claims = fixture.claim_deliveries(instance, at(10), 10, 2, &busy).await.unwrap();
    assert_eq!(ids(&claims), [a[0], a[1], b]);
    let claims = fixture.claim_deliveries(instance, at(10), 2, 2, &[]).await.unwrap();
    assert_eq!(ids(&claims), [c, a[2]]);
    let claims = fixture.claim_deliveries(instance, at(10), 10, 10, &[]).await.unwrap();
    assert_eq!(ids(&claims), [a[3], a[4]]);
    assert!(fixture.claim_deliveries(instance, at(10), 10, 10, &[]).await.unwrap().is_empty());
}

pub async fn racing_instances_claim_each_delivery_once(fixture: Fixture) {
    let (one, two) = (fixture.instance().await, fixture.instance().await);
    for n in 0..20 {
        fixture.owing(&format!("h{}.example", n % 4), 3, one).await;
    }
    let claims = (0..12).map(|n| {
        let by = if n % 2 == 0 { one } else { two };
        fixture.claim_deliveries(by, at(4), 5, 3, &[])
    });
    let claims = futures::future::join_all(claims).await;
    let claimed: Vec<_> = claims.into_iter().flat_map(|claims| ids(&claims.unwrap())).collect();
    let distinct: HashSet<_> = claimed.iter().copied().collect();
    assert_eq!(distinct.len(), claimed.len(), "none twice");
    let mut rest = 0;
    loop {
        let claims = fixture.claim_deliveries(one, at(4), 5, 3, &[]).await.unwrap();
        if claims.is_empty() {
            break;
        }
        rest += claims.len();
    }
    assert_eq!(claimed.len() + rest, 20, "none forgotten");
}

pub async fn a_delivery_of_a_lost_instance_is_due_again(fixture: Fixture) {
    let (lost, alive) = (fixture.instance().await, fixture.instance().await);
    let owed = fixture.owing("a.example", 3, alive).await;
    let claim = fixture.claim_delivery(lost, 3).await.unwrap();
    fixture.retire(lost).await.unwrap();
    let rescued = fixture.rescue(alive, at(7), 10).await.unwrap();
    assert_eq!((rescued.deliveries, rescued.wakeups.len()), (1, 0));
    let delivery = fixture.find_delivery(owed.id, &acme()).await.unwrap().unwrap();
    assert_eq!((delivery.status, delivery.instance), (DeliveryStatus::Pending, None));
    assert_eq!((delivery.next_attempt_at, delivery.attempt), (Some(at(7)), 1));
    let again = fixture.claim_delivery(alive, 7).await.unwrap();
    // The attempt that was lost counts, but has no record whose number it would take.
    assert_eq!((again.delivery.attempt, again.number), (2, 1));
    let attempt = an_attempt(&claim, Some(200));
    assert!(!fixture.finish_delivery(&claim, &attempt, DeliveryOutcome::Delivered).await.unwrap());
}

pub async fn a_redelivery_begins_anew_and_goes_on_counting(fixture: Fixture) {
    let instance = fixture.instance().await;
    let owed = fixture.owing("a.example", 3, instance).await;
    let first = fixture.claim_delivery(instance, 3).await.unwrap();
    let lent = fixture.redeliver(owed.id, &acme(), at(12)).await.unwrap().unwrap();
    assert_eq!(lent, first.delivery, "one that is being delivered is left as it is");
    let attempt = an_attempt(&first, Some(500));
    assert!(fixture.finish_delivery(&first, &attempt, DeliveryOutcome::Failed).await.unwrap());
    assert_eq!(fixture.redeliver(owed.id, &account("other"), at(12)).await.unwrap(), None);
    assert!(fixture.claim_delivery(instance, 12).await.is_none());
    let again = fixture.redeliver(owed.id, &acme(), at(12)).await.unwrap().unwrap();
    assert_eq!((again.id, again.status), (owed.id, DeliveryStatus::Pending));
    assert_eq!((again.attempt, again.next_attempt_at), (0, Some(at(12))));
    assert_eq!(again.finished_at, None);
    let second = fixture.claim_delivery(instance, 12).await.unwrap();
    assert_eq!((second.delivery.attempt, second.number), (1, 2));
    let attempt = an_attempt(&second, Some(200));
    assert!(fixture.finish_delivery(&second, &attempt, DeliveryOutcome::Delivered).await.unwrap());
    let numbers: Vec<_> = fixture.list_delivery_attempts(owed.id).await.unwrap();
    assert_eq!(numbers.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(fixture.redeliver(DeliveryId::new(at(0)), &acme(), at(12)).await.unwrap(), None);
}

pub async fn the_oldest_due_delivery_tells_the_lag(fixture: Fixture) {
    let instance = fixture.instance().await;
    assert_eq!(fixture.oldest_due_delivery(at(100)).await.unwrap(), None);
    fixture.owing("b.example", 9, instance).await;
    fixture.owing("a.example", 5, instance).await;
    assert_eq!(fixture.oldest_due_delivery(at(4)).await.unwrap(), None);
    assert_eq!(fixture.oldest_due_delivery(at(100)).await.unwrap(), Some(at(5)));
    fixture.claim_delivery(instance, 5).await.unwrap();
    assert_eq!(fixture.oldest_due_delivery(at(100)).await.unwrap(), Some(at(9)));
}

pub async fn deliveries_belong_to_an_account(fixture: Fixture) {
    let instance = fixture.instance().await;
    let owed = fixture.owing("a.example", 3, instance).await;
    assert_eq!(owed.job_status, JobStatus::Succeeded);
    assert_eq!(fixture.find_delivery(owed.id, &account("other")).await.unwrap(), None);
    assert_eq!(fixture.find_delivery(owed.id, &acme()).await.unwrap(), Some(owed));
    assert!(fixture.list_deliveries(JobId::new(at(0))).await.unwrap().is_empty());
    let unknown = DeliveryId::new(at(0));
    assert!(fixture.list_delivery_attempts(unknown).await.unwrap().is_empty());
    assert!(fixture.judge(Duration::from_hours(1)).await.unwrap().is_empty());
}
