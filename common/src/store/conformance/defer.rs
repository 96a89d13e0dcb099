use super::{Fixture, a_job, acme, at, failed, retry_at, succeeded};
use crate::{
    error::ErrorClass,
    job::{AttemptOutcome, JobStatus, Outcome},
    store::Cancelled,
};

fn deferred_to(seconds: i64) -> Outcome {
    Outcome::Deferred { run_at: at(seconds), ticket: None }
}

pub async fn a_deferred_job_is_as_it_was_before_its_claim(fixture: Fixture) {
    let instance = fixture.instance().await;
    let job = fixture.add(a_job().calling_back("https://example.com"), instance).await;
    let claim = fixture.claim_one(job.id, instance, at(1)).await.unwrap();
    assert!(fixture.finish_one(&claim, deferred_to(30), at(2)).await);
    let mut expected = job.clone();
    expected.run_at = Some(at(30));
    assert_eq!(fixture.job(job.id).await, expected, "a job never called has not started");
    assert!(fixture.list_attempts(job.id).await.unwrap().is_empty());
    assert!(fixture.list_deliveries(job.id).await.unwrap().is_empty());
    assert_eq!(fixture.find_job(job.id, &acme()).await.unwrap().unwrap().1, None);
    assert!(fixture.claim_one(job.id, instance, at(29)).await.is_none(), "it is not due");
    let due = fixture.take_due(instance, at(30), 10).await.unwrap();
    assert_eq!((due.len(), due[0].job_id, due[0].attempt), (1, job.id, 0));
    let again = fixture.claim_one(job.id, instance, at(31)).await.unwrap();
    assert_eq!((again.attempt(), again.ready_at), (1, at(30)));
    assert_eq!(again.job.started_at, Some(at(31)));
    assert!(fixture.finish_one(&again, succeeded(), at(32)).await);
    let attempts = fixture.list_attempts(job.id).await.unwrap();
    assert_eq!(attempts.len(), 1);
    assert_eq!((attempts[0].number, attempts[0].started_at), (1, at(31)));
}

pub async fn a_deferral_between_attempts_costs_no_retry(fixture: Fixture) {
    let (instance, lost) = (fixture.instance().await, fixture.instance().await);
    let first = fixture.running(a_job(), instance).await;
    let id = first.job.id;
    assert!(fixture.finish_one(&first, retry_at(at(3)), at(2)).await);
    let second = fixture.claim_one(id, lost, at(3)).await.unwrap();
    assert_eq!(second.attempt(), 2);
    assert!(fixture.finish_one(&second, deferred_to(9), at(4)).await);
    let job = fixture.job(id).await;
    assert_eq!((job.attempt, job.lost_attempts, job.run_at), (1, 0, Some(at(9))));
    assert_eq!(job.started_at, Some(at(1)), "the first attempt's");
    assert_eq!(job.attempt_started_at, Some(at(1)), "the last attempt that was made");
    let third = fixture.claim_one(id, instance, at(9)).await.unwrap();
    assert_eq!((third.attempt(), third.job.attempt_started_at), (2, Some(at(9))));
    assert!(fixture.finish_one(&third, failed(), at(10)).await);
    let attempts = fixture.list_attempts(id).await.unwrap();
    let numbers: Vec<u32> = attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [1, 2]);
}

pub async fn a_deferred_job_can_be_cancelled_or_expire(fixture: Fixture) {
    let instance = fixture.instance().await;
    let defer = async |seconds: Option<i64>| {
        let job = a_job().with(|job| job.expires_at = seconds.map(at));
        let claim = fixture.running(job, instance).await;
        assert!(fixture.finish_one(&claim, deferred_to(60), at(2)).await);
        claim.job.id
    };
    let (cancelled, expired, kept) =
        (defer(None).await, defer(Some(5)).await, defer(Some(90)).await);
    let answer = fixture.cancel(cancelled, &acme(), at(3)).await.unwrap().unwrap();
    let found = fixture.job(cancelled).await;
    assert_eq!(answer, Cancelled::Now { job: Box::new(found), ran_at: None });
    let ended = fixture.expire(at(6), 10).await.unwrap();
    assert_eq!(ended.iter().map(|job| job.id).collect::<Vec<_>>(), [expired]);
    assert_eq!(fixture.result(expired).await.error.unwrap().class, ErrorClass::Expired);
    for (id, status) in [
        (cancelled, JobStatus::Cancelled),
        (expired, JobStatus::Expired),
        (kept, JobStatus::Queued),
    ] {
        assert_eq!(fixture.status(id).await, status);
        assert!(fixture.list_attempts(id).await.unwrap().is_empty());
    }
}

pub async fn a_claim_that_was_deferred_writes_nothing_more(fixture: Fixture) {
    let instance = fixture.instance().await;
    let old = fixture.running(a_job(), instance).await;
    let id = old.job.id;
    let batch = [(old.clone(), deferred_to(3)), (old.clone(), deferred_to(4))];
    assert_eq!(fixture.finish(&batch, at(2)).await.unwrap(), [true, false]);
    assert!(!fixture.finish_one(&old, succeeded(), at(2)).await, "it is queued");
    // The same instance runs the same number of attempt again: the old claim is not the new one.
    let new = fixture.claim_one(id, instance, at(4)).await.unwrap();
    assert_eq!(new.attempt(), old.attempt());
    for outcome in [succeeded(), deferred_to(9), Outcome::HandedBack] {
        assert!(!fixture.finish_one(&old, outcome, at(5)).await);
    }
    let batch = [(old, failed()), (new.clone(), succeeded())];
    assert_eq!(fixture.finish(&batch, at(6)).await.unwrap(), [false, true]);
    assert_eq!(fixture.status(id).await, JobStatus::Succeeded);
}

pub async fn a_deferral_holds_only_with_its_claim(fixture: Fixture) {
    let (instance, lost) = (fixture.instance().await, fixture.instance().await);
    let good = fixture.running(a_job(), instance).await;
    let ends = fixture.running(a_job(), instance).await;
    let cancelled = fixture.running(a_job(), instance).await;
    fixture.cancel(cancelled.job.id, &acme(), at(2)).await.unwrap();
    let of_lost = fixture.running(a_job(), lost).await;
    fixture.retire(lost).await.unwrap();
    let batch = [
        (cancelled.clone(), deferred_to(30)),
        (good.clone(), deferred_to(30)),
        (of_lost.clone(), deferred_to(30)),
        (ends.clone(), succeeded()),
        (ends.clone(), deferred_to(30)),
    ];
    let held = fixture.finish(&batch, at(3)).await.unwrap();
    assert_eq!(held, [false, true, false, true, false]);
    for (claim, status) in [
        (&good, JobStatus::Queued),
        (&ends, JobStatus::Succeeded),
        (&cancelled, JobStatus::Cancelled),
        (&of_lost, JobStatus::Running),
    ] {
        assert_eq!(fixture.status(claim.job.id).await, status);
    }
    // Lost before it was deferred, the attempt counts as any lost one does.
    fixture.rescue(instance, at(4), 10).await.unwrap();
    let attempts = fixture.list_attempts(of_lost.job.id).await.unwrap();
    assert_eq!(attempts[0].outcome, AttemptOutcome::Lost);
}
