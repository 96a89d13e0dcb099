use super::{Fixture, a_job, acme, at, deferred_with, failed, retry_at, succeeded};
use crate::{
    error::ErrorClass,
    job::{AttemptOutcome, JobStatus, Limits, Outcome},
    store::Cancelled,
    ticket::Ticket,
};

fn deferred_to(seconds: i64) -> Outcome {
    deferred_with(seconds, None)
}

pub async fn a_deferred_job_is_as_it_was_before_its_claim(fixture: Fixture) {
    let instance = fixture.instance().await;
    let job = fixture.add(a_job().calling_back("https://example.com"), instance).await;
    let claim = fixture.claim_one(job.id, instance, at(1)).await.unwrap();
    assert!(fixture.finish_one(&claim, deferred_to(30), at(2)).await);
    let mut expected = job.clone();
    (expected.run_at, expected.deferred) = (Some(at(30)), true);
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

pub async fn a_ticket_is_shown_until_its_attempt_has_failed(fixture: Fixture) {
    let (instance, lost) = (fixture.instance().await, fixture.instance().await);
    let claim = fixture.running(a_job(), instance).await;
    let id = claim.job.id;
    assert_eq!((claim.job.ticket.as_deref(), claim.job.deferred), (None, false));
    assert!(fixture.finish_one(&claim, deferred_with(3, Some("täsk-1")), at(2)).await);
    assert_eq!(fixture.job(id).await.ticket.as_deref(), Some("täsk-1"));
    let ticket_at = async |seconds, instance| {
        let claim = fixture.claim_one(id, instance, at(seconds)).await.unwrap();
        assert!(claim.job.deferred);
        (claim.job.ticket.clone(), claim)
    };
    let (ticket, claim) = ticket_at(3, instance).await;
    assert_eq!(ticket.as_deref(), Some("täsk-1"));
    assert!(fixture.finish_one(&claim, deferred_with(5, None), at(4)).await);
    let (ticket, claim) = ticket_at(5, instance).await;
    assert_eq!(ticket.as_deref(), Some("täsk-1"), "none given: it stays");
    assert!(fixture.finish_one(&claim, deferred_with(7, Some("task-2")), at(6)).await);
    let (ticket, claim) = ticket_at(7, instance).await;
    assert_eq!(ticket.as_deref(), Some("task-2"));
    assert!(fixture.finish_one(&claim, Outcome::HandedBack, at(8)).await);
    let (ticket, claim) = ticket_at(8, lost).await;
    assert_eq!((ticket.as_deref(), claim.attempt()), (Some("task-2"), 2), "handed back");
    let strays = fixture.strays(lost, &[], at(9), 10).await.unwrap();
    assert_eq!(strays[0].job, claim.job);
    fixture.retire(lost).await.unwrap();
    fixture.rescue(instance, at(9), 10).await.unwrap();
    let (ticket, claim) = ticket_at(9, instance).await;
    assert_eq!((ticket.as_deref(), claim.attempt()), (Some("task-2"), 3), "lost");
    assert!(fixture.finish_one(&claim, retry_at(at(11)), at(10)).await);
    let (ticket, _) = ticket_at(11, instance).await;
    assert_eq!(ticket, None, "the next attempt asks anew");
}

pub async fn a_ticket_ends_with_its_job(fixture: Fixture) {
    let sweeper = fixture.instance().await;
    let park = async |instance| {
        let claim = fixture.running(a_job(), instance).await;
        assert!(fixture.finish_one(&claim, deferred_with(3, Some("task")), at(2)).await);
        claim.job.id
    };
    for outcome in [succeeded(), failed()] {
        let id = park(sweeper).await;
        let claim = fixture.claim_one(id, sweeper, at(3)).await.unwrap();
        assert!(fixture.finish_one(&claim, outcome, at(4)).await);
        let job = fixture.job(id).await;
        assert_eq!((job.ticket, job.deferred), (None, true));
    }
    let id = park(sweeper).await;
    let answer = fixture.cancel(id, &acme(), at(3)).await.unwrap().unwrap();
    let job = fixture.job(id).await;
    assert_eq!(job.ticket, None);
    assert_eq!(answer, Cancelled::Now { job: Box::new(job), ran_at: None });
    let id = park(sweeper).await;
    for n in 1..=Limits::MAX_LOST_ATTEMPTS {
        let victim = fixture.instance().await;
        assert!(fixture.claim_one(id, victim, at(4)).await.is_some());
        fixture.retire(victim).await.unwrap();
        let rescued = fixture.rescue(sweeper, at(5), 10).await.unwrap();
        if n == Limits::MAX_LOST_ATTEMPTS {
            assert_eq!(rescued.failed, [fixture.job(id).await]);
        }
    }
    assert_eq!(fixture.job(id).await.ticket, None);
}

/// That of a task started at [`at`] `seconds`.
fn ticket_of(seconds: i64) -> String {
    let task = Some("task".to_owned());
    Ticket { key: "configured".to_owned(), started_at: at(seconds), task }.to_string()
}

pub async fn an_attempt_that_was_parked_shows_its_whole_time(fixture: Fixture) {
    let (instance, lost) = (fixture.instance().await, fixture.instance().await);
    let park = async |seconds: i64| {
        let claim = fixture.running(a_job(), instance).await;
        let ticket = ticket_of(seconds);
        assert!(fixture.finish_one(&claim, deferred_with(3, Some(&ticket)), at(3)).await);
        // To ask for it without an answer changes nothing.
        let again = fixture.claim_one(claim.job.id, instance, at(4)).await.unwrap();
        assert!(fixture.finish_one(&again, deferred_with(5, None), at(5)).await);
        let job = fixture.job(claim.job.id).await;
        assert_eq!((job.attempt, job.started_at), (0, Some(at(1))), "its vendor is at work");
        claim.job.id
    };
    let times = async |id| -> Vec<_> {
        let attempts = fixture.list_attempts(id).await.unwrap();
        attempts.iter().map(|attempt| (attempt.started_at, attempt.finished_at)).collect()
    };
    for outcome in [succeeded(), failed(), retry_at(at(9))] {
        let id = park(2).await;
        let claim = fixture.claim_one(id, instance, at(7)).await.unwrap();
        assert!(fixture.finish_one(&claim, outcome, at(8)).await);
        assert_eq!(times(id).await, [(at(2), at(8))]);
        assert_eq!(fixture.job(id).await.started_at, Some(at(1)));
    }
    let cancelled = park(2).await;
    fixture.claim_one(cancelled, instance, at(7)).await.unwrap();
    fixture.cancel(cancelled, &acme(), at(8)).await.unwrap();
    assert_eq!(times(cancelled).await, [(at(2), at(8))]);
    // Another clock went ahead of ours.
    let ahead = park(20).await;
    let claim = fixture.claim_one(ahead, lost, at(7)).await.unwrap();
    assert_eq!(claim.job.attempt_started_at, Some(at(7)), "by which it is told from others");
    fixture.retire(lost).await.unwrap();
    fixture.rescue(instance, at(8), 10).await.unwrap();
    assert_eq!(times(ahead).await, [(at(7), at(8))]);
}

pub async fn an_attempt_without_a_task_of_its_own_began_with_its_claim(fixture: Fixture) {
    let instance = fixture.instance().await;
    let claim = fixture.running(a_job(), instance).await;
    let id = claim.job.id;
    assert!(fixture.finish_one(&claim, deferred_with(3, Some(&ticket_of(1))), at(2)).await);
    let claim = fixture.claim_one(id, instance, at(3)).await.unwrap();
    assert!(fixture.finish_one(&claim, retry_at(at(5)), at(4)).await);
    let claim = fixture.claim_one(id, instance, at(5)).await.unwrap();
    assert!(fixture.finish_one(&claim, failed(), at(6)).await);
    let attempts = fixture.list_attempts(id).await.unwrap();
    let began: Vec<_> = attempts.iter().map(|attempt| attempt.started_at).collect();
    assert_eq!(began, [at(1), at(5)]);
}

pub async fn a_job_with_a_ticket_has_started_and_does_not_expire(fixture: Fixture) {
    let instance = fixture.instance().await;
    let claim = fixture.running(a_job().with(|job| job.expires_at = Some(at(5))), instance).await;
    assert!(fixture.finish_one(&claim, deferred_with(9, Some("task")), at(2)).await);
    assert!(fixture.expire(at(10), 10).await.unwrap().is_empty());
    assert!(fixture.claim_one(claim.job.id, instance, at(10)).await.is_some());
}
