use std::{collections::HashSet, time::Duration};

use futures::future::join_all;

use super::{Fixture, a_job, account, acme, an_error, at, failed, retry_at, some_usage, succeeded};
use crate::{
    error::ErrorClass,
    id::{InstanceId, JobId},
    job::{Attempt, AttemptOutcome, JobStatus, Outcome},
    store::{Cancelled, FoundJob},
    usage::Usage,
};

pub async fn a_claim_counts_an_attempt_and_says_so(fixture: Fixture) {
    let instance = fixture.instance().await;
    let job = fixture.add(a_job(), instance).await;
    let claim = fixture.claim_one(job.id, instance, at(5)).await.unwrap();
    assert_eq!((claim.attempt(), claim.instance), (1, instance));
    assert_eq!(claim.job.status, JobStatus::Running);
    assert_eq!(claim.job.started_at, Some(at(5)));
    assert_eq!(claim.job.attempt_started_at, Some(at(5)));
    assert_eq!(claim.args.as_str(), r#"{"messages":[]}"#);
    assert_eq!(fixture.job(job.id).await, claim.job);
}

pub async fn a_claim_takes_only_what_is_queued_and_due(fixture: Fixture) {
    let instance = fixture.instance().await;
    let plain = fixture.add(a_job(), instance).await.id;
    let later = fixture.add(a_job().with(|job| job.run_at = Some(at(60))), instance).await.id;
    let late = fixture.add(a_job().with(|job| job.expires_at = Some(at(5))), instance).await.id;
    let cancelled = fixture.add(a_job(), instance).await.id;
    fixture.cancel(cancelled, &acme(), at(1)).await.unwrap();
    let running = fixture.running(a_job(), instance).await.job.id;
    let ended = fixture.ended(a_job(), instance).await.id;
    let unknown = JobId::new(at(0));
    let ids = [later, late, cancelled, running, ended, unknown, plain];
    let claims = fixture.claim(&ids, instance, at(5)).await.unwrap();
    assert_eq!(claims.iter().map(|claim| claim.job.id).collect::<Vec<_>>(), [plain]);
    for (id, status) in [
        (later, JobStatus::Queued),
        (late, JobStatus::Queued),
        (cancelled, JobStatus::Cancelled),
        (running, JobStatus::Running),
        (ended, JobStatus::Succeeded),
    ] {
        assert_eq!(fixture.status(id).await, status);
    }
}

pub async fn a_job_can_be_claimed_the_moment_it_is_due(fixture: Fixture) {
    let instance = fixture.instance().await;
    let job = fixture.add(a_job().with(|job| job.run_at = Some(at(60))), instance).await;
    assert!(fixture.claim_one(job.id, instance, at(59)).await.is_none());
    let claim = fixture.claim_one(job.id, instance, at(60)).await.unwrap();
    assert_eq!(claim.job.run_at, None, "it waits no more");
    assert!(fixture.take_due(instance, at(70), 10).await.unwrap().is_empty());
}

pub async fn an_id_twice_in_a_claim_is_one_claim(fixture: Fixture) {
    let instance = fixture.instance().await;
    let job = fixture.add(a_job(), instance).await;
    let claims = fixture.claim(&[job.id, job.id], instance, at(1)).await.unwrap();
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].attempt(), 1);
}

pub async fn racing_instances_claim_each_job_once(fixture: Fixture) {
    let (one, two) = (fixture.instance().await, fixture.instance().await);
    let jobs: Vec<_> = (0..60).map(|_| a_job().build()).collect();
    fixture.submit(&jobs, one).await.unwrap();
    let ids: Vec<JobId> = jobs.iter().map(|new| new.job.id).collect();
    let reversed: Vec<JobId> = ids.iter().rev().copied().collect();
    let claims = (0..8).flat_map(|n| {
        // Overlapping slices in both orders, so that a store that locks as it goes would deadlock.
        let (ids, by) = if n % 2 == 0 { (&ids, one) } else { (&reversed, two) };
        ids.chunks(25).map(move |ids| (ids, by)).collect::<Vec<_>>()
    });
    let claims = join_all(claims.map(|(ids, by)| fixture.claim(ids, by, at(1)))).await;
    let claims: Vec<_> = claims.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(claims.len(), 60);
    assert_eq!(claims.iter().map(|claim| claim.job.id).collect::<HashSet<_>>().len(), 60);
    assert!(claims.iter().all(|claim| claim.attempt() == 1));
}

pub async fn a_lost_or_unknown_instance_claims_nothing(fixture: Fixture) {
    let (alive, lost) = (fixture.instance().await, fixture.instance().await);
    let job = fixture.add(a_job(), alive).await;
    fixture.retire(lost).await.unwrap();
    assert!(fixture.claim_one(job.id, lost, at(1)).await.is_none());
    assert!(fixture.claim_one(job.id, InstanceId::new(at(0)), at(1)).await.is_none());
    assert!(fixture.claim_one(job.id, alive, at(1)).await.is_some());
}

pub async fn success_is_written_whole(fixture: Fixture) {
    let instance = fixture.instance().await;
    let claim = fixture.running(a_job(), instance).await;
    assert!(fixture.finish_one(&claim, succeeded(), at(9)).await);
    let (job, result) = fixture.find_job(claim.job.id, &acme()).await.unwrap().unwrap();
    assert_eq!((job.status, job.finished_at), (JobStatus::Succeeded, Some(at(9))));
    assert_eq!(job.attempt_started_at, Some(at(1)));
    let result = result.unwrap();
    assert_eq!(result.response.unwrap().as_str(), r#"{"ok":true}"#);
    assert_eq!((result.error, result.usage), (None, some_usage()));
    let attempt = Attempt {
        job_id: job.id,
        number: 1,
        outcome: AttemptOutcome::Succeeded,
        instance: Some(instance),
        started_at: at(1),
        finished_at: at(9),
        error: None,
        usage: some_usage(),
        vendor_request_id: Some("req_1".into()),
    };
    assert_eq!(fixture.list_attempts(job.id).await.unwrap(), [attempt]);
}

pub async fn failure_is_written_whole(fixture: Fixture) {
    let instance = fixture.instance().await;
    let claim = fixture.running(a_job(), instance).await;
    assert!(fixture.finish_one(&claim, failed(), at(9)).await);
    assert_eq!(fixture.status(claim.job.id).await, JobStatus::Failed);
    let result = fixture.result(claim.job.id).await;
    assert_eq!((result.response, result.error), (None, Some(an_error())));
    let attempts = fixture.list_attempts(claim.job.id).await.unwrap();
    assert_eq!(attempts[0].outcome, AttemptOutcome::Failed);
    assert_eq!(attempts[0].error, Some(an_error()));
    assert_eq!(attempts[0].vendor_request_id.as_deref(), Some("req_2"));
}

pub async fn a_claim_is_finished_once(fixture: Fixture) {
    let instance = fixture.instance().await;
    let claim = fixture.running(a_job(), instance).await;
    assert!(fixture.finish_one(&claim, succeeded(), at(2)).await);
    assert!(!fixture.finish_one(&claim, failed(), at(3)).await);
    assert_eq!(fixture.status(claim.job.id).await, JobStatus::Succeeded);
    assert_eq!(fixture.result(claim.job.id).await.error, None);
    assert_eq!(fixture.list_attempts(claim.job.id).await.unwrap().len(), 1);
}

pub async fn a_claim_twice_in_a_batch_is_finished_once(fixture: Fixture) {
    let instance = fixture.instance().await;
    let claim = fixture.running(a_job(), instance).await;
    let batch = [(claim.clone(), retry_at(at(5))), (claim.clone(), succeeded())];
    assert_eq!(fixture.finish(&batch, at(2)).await.unwrap(), [true, false]);
    assert_eq!(fixture.status(claim.job.id).await, JobStatus::Queued);
    assert_eq!(fixture.list_attempts(claim.job.id).await.unwrap().len(), 1);
}

pub async fn a_batch_of_outcomes_is_treated_one_by_one(fixture: Fixture) {
    let (instance, lost) = (fixture.instance().await, fixture.instance().await);
    let good = fixture.running(a_job(), instance).await;
    let bad = fixture.running(a_job(), instance).await;
    let again = fixture.running(a_job(), instance).await;
    let back = fixture.running(a_job(), instance).await;
    let cancelled = fixture.running(a_job(), instance).await;
    fixture.cancel(cancelled.job.id, &acme(), at(2)).await.unwrap();
    let of_lost = fixture.running(a_job(), lost).await;
    fixture.retire(lost).await.unwrap();
    let batch = [
        (cancelled.clone(), succeeded()),
        (good.clone(), succeeded()),
        (of_lost.clone(), succeeded()),
        (bad.clone(), failed()),
        (again.clone(), retry_at(at(30))),
        (back.clone(), Outcome::HandedBack),
        (good.clone(), failed()),
    ];
    let held = fixture.finish(&batch, at(3)).await.unwrap();
    assert_eq!(held, [false, true, false, true, true, true, false]);
    for (claim, status) in [
        (&good, JobStatus::Succeeded),
        (&bad, JobStatus::Failed),
        (&again, JobStatus::Queued),
        (&back, JobStatus::Queued),
        (&cancelled, JobStatus::Cancelled),
        (&of_lost, JobStatus::Running),
    ] {
        assert_eq!(fixture.status(claim.job.id).await, status);
    }
}

pub async fn a_lost_instance_cannot_finish_a_job(fixture: Fixture) {
    let instance = fixture.instance().await;
    let claim = fixture.running(a_job(), instance).await;
    fixture.retire(instance).await.unwrap();
    assert!(!fixture.finish_one(&claim, succeeded(), at(2)).await);
    assert_eq!(fixture.status(claim.job.id).await, JobStatus::Running);
    assert!(fixture.list_attempts(claim.job.id).await.unwrap().is_empty());
}

pub async fn an_old_attempt_cannot_finish_a_job(fixture: Fixture) {
    let instance = fixture.instance().await;
    let old = fixture.running(a_job(), instance).await;
    assert!(fixture.finish_one(&old, retry_at(at(3)), at(2)).await);
    assert!(!fixture.finish_one(&old, succeeded(), at(2)).await, "it is queued");
    let new = fixture.claim_one(old.job.id, instance, at(3)).await.unwrap();
    assert_eq!(new.attempt(), 2);
    // In one batch, the old one first.
    let batch = [(old, failed()), (new.clone(), succeeded())];
    assert_eq!(fixture.finish(&batch, at(4)).await.unwrap(), [false, true]);
    assert_eq!(fixture.status(new.job.id).await, JobStatus::Succeeded);
}

pub async fn a_retry_waits_and_is_claimed_again(fixture: Fixture) {
    let (instance, sweeper) = (fixture.instance().await, fixture.instance().await);
    let first = fixture.running(a_job().calling_back("https://example.com"), instance).await;
    assert!(fixture.finish_one(&first, retry_at(at(30)), at(2)).await);
    let job = fixture.job(first.job.id).await;
    assert_eq!((job.status, job.run_at, job.attempt), (JobStatus::Queued, Some(at(30)), 1));
    assert_eq!((job.started_at, job.finished_at), (Some(at(1)), None));
    assert_eq!(job.lost_attempts, 0, "it costs a retry");
    assert_eq!(fixture.find_job(job.id, &acme()).await.unwrap().unwrap().1, None);
    assert!(fixture.list_deliveries(job.id).await.unwrap().is_empty());
    let due = fixture.take_due(sweeper, at(30), 10).await.unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!((due[0].job_id, due[0].attempt), (job.id, 1));
    let second = fixture.claim_one(job.id, instance, at(31)).await.unwrap();
    assert_eq!(second.attempt(), 2);
    assert_eq!(second.job.started_at, Some(at(1)), "the first attempt's");
    assert_eq!(second.job.attempt_started_at, Some(at(31)));
    assert!(fixture.finish_one(&second, succeeded(), at(32)).await);
    let attempts = fixture.list_attempts(job.id).await.unwrap();
    let seen: Vec<_> = attempts.iter().map(|attempt| (attempt.number, attempt.outcome)).collect();
    assert_eq!(seen, [(1, AttemptOutcome::Failed), (2, AttemptOutcome::Succeeded)]);
}

pub async fn a_job_handed_back_can_run_elsewhere_at_once(fixture: Fixture) {
    let (one, two) = (fixture.instance().await, fixture.instance().await);
    let claim = fixture.running(a_job(), one).await;
    assert!(fixture.finish_one(&claim, Outcome::HandedBack, at(2)).await);
    let job = fixture.job(claim.job.id).await;
    assert_eq!((job.status, job.run_at, job.lost_attempts), (JobStatus::Queued, None, 1));
    let attempts = fixture.list_attempts(job.id).await.unwrap();
    assert_eq!(attempts[0].outcome, AttemptOutcome::Lost);
    assert_eq!(attempts[0].error.as_ref().unwrap().class, ErrorClass::Lost);
    // Whoever handed it back answers for its message until it retires.
    fixture.retire(one).await.unwrap();
    let rescued = fixture.rescue(two, at(3), 10).await.unwrap();
    assert_eq!(rescued.wakeups.iter().map(|wakeup| wakeup.job_id).collect::<Vec<_>>(), [job.id]);
    assert_eq!(rescued.requeued, 0);
    assert_eq!(fixture.claim_one(job.id, two, at(3)).await.unwrap().attempt(), 2);
}

pub async fn revoked_names_what_is_no_longer_held(fixture: Fixture) {
    let (instance, other) = (fixture.instance().await, fixture.instance().await);
    let held = fixture.running(a_job(), instance).await;
    let cancelled = fixture.running(a_job(), instance).await;
    fixture.cancel(cancelled.job.id, &acme(), at(2)).await.unwrap();
    let of_other = fixture.running(a_job(), other).await;
    let unknown = JobId::new(at(0));
    let asked = [(held.job.id, 1), (cancelled.job.id, 1), (of_other.job.id, 1), (unknown, 1)];
    let gone = fixture.revoked(instance, &asked).await.unwrap();
    let gone: HashSet<JobId> = gone.into_iter().collect();
    assert_eq!(gone, HashSet::from([cancelled.job.id, of_other.job.id, unknown]));
    assert_eq!(fixture.revoked(instance, &[(held.job.id, 2)]).await.unwrap(), [held.job.id]);
    fixture.retire(instance).await.unwrap();
    assert_eq!(fixture.revoked(instance, &[(held.job.id, 1)]).await.unwrap(), [held.job.id]);
}

pub async fn a_queued_job_is_cancelled_at_once(fixture: Fixture) {
    let instance = fixture.instance().await;
    let job = fixture.add(a_job().with(|job| job.run_at = Some(at(90))), instance).await;
    let answer = fixture.cancel(job.id, &acme(), at(3)).await.unwrap().unwrap();
    let found = fixture.job(job.id).await;
    assert_eq!((found.status, found.finished_at), (JobStatus::Cancelled, Some(at(3))));
    assert_eq!(answer, Cancelled::Now { job: Box::new(found), ran_at: None });
    assert_eq!(fixture.result(job.id).await.error.unwrap().class, ErrorClass::Cancelled);
    assert!(fixture.list_attempts(job.id).await.unwrap().is_empty());
    assert!(fixture.claim_one(job.id, instance, at(99)).await.is_none());
    assert!(fixture.take_due(instance, at(99), 10).await.unwrap().is_empty());
}

pub async fn a_running_job_is_cancelled_and_names_who_runs_it(fixture: Fixture) {
    let instance = fixture.instance().await;
    let claim = fixture.running(a_job(), instance).await;
    let id = claim.job.id;
    let answer = fixture.cancel(id, &acme(), at(3)).await.unwrap().unwrap();
    let found = fixture.job(id).await;
    assert_eq!(answer, Cancelled::Now { job: Box::new(found), ran_at: Some(instance) });
    let attempts = fixture.list_attempts(id).await.unwrap();
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].outcome, AttemptOutcome::Cancelled);
    assert_eq!((attempts[0].started_at, attempts[0].finished_at), (at(1), at(3)));
    assert_eq!(attempts[0].instance, Some(instance));
    assert!(!fixture.finish_one(&claim, succeeded(), at(4)).await, "the result comes too late");
    assert_eq!(fixture.result(id).await.response, None);
}

pub async fn what_has_ended_is_not_cancelled(fixture: Fixture) {
    let instance = fixture.instance().await;
    let job = fixture.ended(a_job(), instance).await;
    let answer = fixture.cancel(job.id, &acme(), at(9)).await.unwrap();
    assert_eq!(answer, Some(Cancelled::Already(Box::new(job.clone()))));
    assert_eq!(fixture.job(job.id).await, job);
}

pub async fn another_accounts_job_is_not_there(fixture: Fixture) {
    let instance = fixture.instance().await;
    let job = fixture.add(a_job(), instance).await;
    let other = account("other");
    assert_eq!(fixture.cancel(job.id, &other, at(1)).await.unwrap(), None);
    assert_eq!(fixture.find_job(job.id, &other).await.unwrap(), None);
    assert_eq!(fixture.find_args(job.id, &other).await.unwrap(), None);
    assert_eq!(fixture.status(job.id).await, JobStatus::Queued);
}

pub async fn many_are_found_each_in_its_place(fixture: Fixture) {
    let instance = fixture.instance().await;
    let queued = fixture.add(a_job(), instance).await;
    let ended = fixture.ended(a_job(), instance).await;
    let other = account("other");
    let wanted = [
        (ended.id, acme()),
        (JobId::new(at(1)), acme()),
        (queued.id, other),
        (queued.id, acme()),
        (ended.id, acme()),
    ];
    let found = fixture.find_jobs(&wanted).await.unwrap();
    let summary =
        |found: &Option<FoundJob>| found.as_ref().map(|(job, result)| (job.id, result.is_some()));
    let summaries: Vec<_> = found.iter().map(summary).collect();
    let (first, last) = (Some((ended.id, true)), Some((queued.id, false)));
    assert_eq!(summaries, [first, None, None, last, first]);
    assert_eq!(fixture.find_jobs(&[]).await.unwrap(), []);
}

pub async fn a_final_status_of_a_job_with_a_callback_makes_a_delivery(fixture: Fixture) {
    let instance = fixture.instance().await;
    let url = "https://Hooks.Example.com:8443/a?b=c";
    let hooked = || a_job().calling_back(url);
    let good = fixture.running(hooked(), instance).await;
    assert!(fixture.finish_one(&good, succeeded(), at(7)).await);
    let bad = fixture.running(hooked(), instance).await;
    assert!(fixture.finish_one(&bad, failed(), at(7)).await);
    let queued = fixture.add(hooked(), instance).await;
    fixture.cancel(queued.id, &acme(), at(7)).await.unwrap();
    let late = fixture.add(hooked().with(|job| job.expires_at = Some(at(5))), instance).await;
    fixture.expire(at(7), 10).await.unwrap();
    for (id, status) in [
        (good.job.id, JobStatus::Succeeded),
        (bad.job.id, JobStatus::Failed),
        (queued.id, JobStatus::Cancelled),
        (late.id, JobStatus::Expired),
    ] {
        let deliveries = fixture.list_deliveries(id).await.unwrap();
        assert_eq!(deliveries.len(), 1, "{status}");
        let delivery = &deliveries[0];
        assert_eq!((delivery.job_id, delivery.job_status), (id, status));
        assert_eq!(delivery.account, acme());
        assert_eq!((delivery.url.as_str(), delivery.host.as_str()), (url, "hooks.example.com"));
        assert_eq!((delivery.created_at, delivery.next_attempt_at), (at(7), Some(at(7))));
        assert_eq!((delivery.attempt, delivery.finished_at), (0, None));
    }
}

pub async fn a_job_without_a_callback_owes_none(fixture: Fixture) {
    let instance = fixture.instance().await;
    let ended = fixture.ended(a_job(), instance).await;
    assert!(fixture.list_deliveries(ended.id).await.unwrap().is_empty());
    assert_eq!(fixture.oldest_due_delivery(at(1000)).await.unwrap(), None);
}

pub async fn times_keep_their_microseconds(fixture: Fixture) {
    let instance = fixture.instance().await;
    let micro = |n: i64| at(0) + chrono::TimeDelta::microseconds(n);
    let job = a_job().with(|job| {
        job.created_at = micro(1);
        job.run_at = Some(micro(2));
        job.expires_at = Some(micro(999_999));
        job.limits.timeout = Duration::from_hours(24);
    });
    let job = fixture.add(job, instance).await;
    let claim = fixture.claim_one(job.id, instance, micro(3)).await.unwrap();
    assert!(fixture.finish_one(&claim, succeeded(), micro(4)).await);
    let found = fixture.job(job.id).await;
    assert_eq!((found.created_at, found.expires_at), (micro(1), Some(micro(999_999))));
    assert_eq!((found.started_at, found.finished_at), (Some(micro(3)), Some(micro(4))));
    let attempt = &fixture.list_attempts(job.id).await.unwrap()[0];
    assert_eq!((attempt.started_at, attempt.finished_at), (micro(3), micro(4)));
}

pub async fn an_empty_usage_stays_empty(fixture: Fixture) {
    let instance = fixture.instance().await;
    let claim = fixture.running(a_job(), instance).await;
    assert!(fixture.finish_one(&claim, failed(), at(2)).await);
    assert_eq!(fixture.result(claim.job.id).await.usage, Usage::default());
}
