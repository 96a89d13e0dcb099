use std::slice;

use super::{Fixture, a_job, acme, at, deferred_with, succeeded};
use crate::{
    id::InstanceId,
    job::{AttemptOutcome, Job, JobStatus, Json, Outcome},
    store::{Claim, Submitted},
};

/// Stores a plain job that is lent to `worker`; as it was made.
async fn a_loan(fixture: &Fixture, api: InstanceId, worker: InstanceId) -> Job {
    let new = a_job().lent_to(worker).build();
    assert_eq!(fixture.submit(slice::from_ref(&new), api).await.unwrap(), [Submitted::Lent]);
    new.job
}

pub async fn a_job_is_lent_as_it_is_stored(fixture: Fixture) {
    let (api, worker) = (fixture.instance().await, fixture.instance().await);
    let full = |job: &mut Job| {
        job.alias = Some("alias".into());
        job.credential = Some("team-a".parse().unwrap());
        job.metadata = Some(Json::parse(r#"{"m": 1.50}"#).unwrap());
        job.limits.total_timeout = Some(std::time::Duration::from_millis(1_500));
        job.reply_to = Some(api);
        job.expires_at = Some(at(9));
    };
    let lent = a_job().with(full).with_args(r#"{"n": 1.50}"#).lent_to(worker).build();
    let plain = a_job().build();
    let answers = fixture.submit(&[lent.clone(), plain.clone()], api).await.unwrap();
    assert_eq!(answers, [Submitted::Lent, Submitted::Added]);

    let promised = Claim::lent(&lent, worker);
    let (id, now) = (lent.job.id, lent.job.created_at);
    let mut expected = lent.job;
    (expected.status, expected.attempt) = (JobStatus::Running, 1);
    (expected.started_at, expected.attempt_started_at) = (Some(now), Some(now));
    assert_eq!(fixture.job(id).await, expected);
    assert_eq!(fixture.job(plain.job.id).await, plain.job);
    assert!(fixture.claim_one(id, api, at(1)).await.is_none(), "it is claimed already");

    let claims = fixture.lent(&[id, plain.job.id], worker).await.unwrap();
    let [claim] = &claims[..] else { panic!("{claims:?}") };
    assert_eq!((&claim.job, claim.instance, claim.ready_at), (&expected, worker, now));
    assert_eq!(claim.args.as_str(), r#"{"n": 1.50}"#);
    assert_eq!(*claim, promised);
    let text = serde_json::to_string(claim).unwrap();
    assert_eq!(serde_json::from_str::<Claim>(&text).unwrap(), promised, "as it travels");
    assert!(fixture.lent(&[id], api).await.unwrap().is_empty(), "it is another's");
    assert!(fixture.lent(&[], worker).await.unwrap().is_empty());

    assert!(fixture.finish_one(claim, succeeded(), at(2)).await);
    assert!(fixture.lent(&[id], worker).await.unwrap().is_empty(), "it has ended");
    let attempts = fixture.list_attempts(id).await.unwrap();
    let [attempt] = &attempts[..] else { panic!("{attempts:?}") };
    assert_eq!((attempt.number, attempt.started_at), (1, now));
}

pub async fn who_is_lost_or_unknown_is_lent_nothing(fixture: Fixture) {
    let (api, lost) = (fixture.instance().await, fixture.instance().await);
    fixture.retire(lost).await.unwrap();
    for borrower in [lost, InstanceId::new(at(0))] {
        let job = fixture.add(a_job().lent_to(borrower), api).await;
        assert_eq!(fixture.job(job.id).await, job);
        assert!(fixture.lent(&[job.id], borrower).await.unwrap().is_empty());
        assert!(fixture.claim_one(job.id, api, at(1)).await.is_some());
    }
}

pub async fn a_key_is_lent_for_once(fixture: Fixture) {
    let (api, worker) = (fixture.instance().await, fixture.instance().await);
    let keyed = || a_job().keyed("key", 1).lent_to(worker).build();
    let first = keyed();
    assert_eq!(fixture.submit(slice::from_ref(&first), api).await.unwrap(), [Submitted::Lent]);
    let answers = fixture.submit(&[keyed()], api).await.unwrap();
    let [Submitted::Repeated(job)] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(**job, fixture.job(first.job.id).await);
}

pub async fn what_was_lent_is_no_loan_once_it_is_given_back(fixture: Fixture) {
    let (api, worker) = (fixture.instance().await, fixture.instance().await);
    let lend = async || {
        let id = a_loan(&fixture, api, worker).await.id;
        fixture.lent(&[id], worker).await.unwrap().pop().unwrap()
    };
    let is_lent = async |id| !fixture.lent(&[id], worker).await.unwrap().is_empty();

    let unused = lend().await;
    let id = unused.job.id;
    assert!(fixture.finish_one(&unused, deferred_with(0, None), at(1)).await);
    assert!(!is_lent(id).await);
    assert!(fixture.list_attempts(id).await.unwrap().is_empty(), "no attempt was made");
    let claimed = fixture.claim_one(id, worker, at(1)).await.unwrap();
    assert_eq!(claimed.attempt(), 1);
    assert!(!is_lent(id).await, "it is held by a claim");

    let cancelled = lend().await.job.id;
    fixture.cancel(cancelled, &acme(), at(1)).await.unwrap();
    assert!(!is_lent(cancelled).await);

    let back = lend().await;
    assert!(fixture.finish_one(&back, Outcome::HandedBack, at(1)).await);
    assert!(!is_lent(back.job.id).await);
    let attempts = fixture.list_attempts(back.job.id).await.unwrap();
    assert_eq!(attempts[0].outcome, AttemptOutcome::Lost);
}

pub async fn what_was_lent_is_rescued_with_its_instance(fixture: Fixture) {
    let (api, worker) = (fixture.instance().await, fixture.instance().await);
    let job = a_loan(&fixture, api, worker).await;
    fixture.retire(worker).await.unwrap();
    assert!(fixture.lent(&[job.id], worker).await.unwrap().is_empty());
    let rescued = fixture.rescue(api, at(5), 10).await.unwrap();
    assert_eq!((rescued.requeued, rescued.wakeups.len()), (1, 1));
    assert_eq!(fixture.claim_one(job.id, api, at(6)).await.unwrap().attempt(), 2);
}

pub async fn a_loan_nobody_runs_is_a_stray(fixture: Fixture) {
    let (api, worker) = (fixture.instance().await, fixture.instance().await);
    let job = a_loan(&fixture, api, worker).await;
    let strays = async |before| fixture.strays(worker, &[], before, 10).await.unwrap().len();
    assert_eq!(strays(job.created_at).await, 0);
    assert_eq!(strays(at(1)).await, 1);
}
