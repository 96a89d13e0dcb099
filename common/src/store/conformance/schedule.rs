use std::{collections::HashSet, time::Duration};

use super::{Fixture, a_job, acme, at, failed, retry_at, succeeded};
use crate::{
    error::ErrorClass,
    id::{InstanceId, JobId},
    job::{AttemptOutcome, JobStatus, Lane, Limits, Outcome, Priority},
    store::{LaneCount, Rescued, Wakeup},
    vendor::Vendor,
};

fn jobs_of(wakeups: &[Wakeup]) -> Vec<JobId> {
    wakeups.iter().map(|wakeup| wakeup.job_id).collect()
}

const NORMAL: Lane = Lane { vendor: Vendor::OpenAi, priority: Priority::Normal };

pub async fn due_jobs_are_taken_once_and_only_when_due(fixture: Fixture) {
    let (one, two) = (fixture.instance().await, fixture.instance().await);
    let waiting = |seconds| a_job().with(move |job| job.run_at = Some(at(seconds)));
    let soon = fixture.add(waiting(10), one).await.id;
    let later = fixture.add(waiting(20), one).await.id;
    let reply_to = Some(one);
    let answering = waiting(5).with(|job| {
        job.reply_to = reply_to;
        job.vendor = Vendor::ModelZoo;
        job.priority = Priority::Low;
    });
    let first = fixture.add(answering, one).await.id;
    fixture.add(a_job(), one).await;
    assert!(fixture.take_due(two, at(4), 10).await.unwrap().is_empty());
    let due = fixture.take_due(two, at(10), 1).await.unwrap();
    let lane = Lane { vendor: Vendor::ModelZoo, priority: Priority::Low };
    assert_eq!(due, [Wakeup { job_id: first, lane, attempt: 0, reply_to }], "the oldest first");
    assert_eq!(jobs_of(&fixture.take_due(two, at(10), 10).await.unwrap()), [soon]);
    assert!(fixture.take_due(two, at(10), 10).await.unwrap().is_empty());
    assert_eq!(fixture.job(soon).await.run_at, None);
    assert_eq!(fixture.job(later).await.run_at, Some(at(20)));
    // The new publisher answers for it: when it is lost, another one publishes.
    fixture.retire(two).await.unwrap();
    let rescued = fixture.rescue(one, at(11), 10).await.unwrap();
    assert_eq!(jobs_of(&rescued.wakeups).into_iter().collect::<HashSet<_>>(), [first, soon].into());
}

pub async fn overdue_jobs_are_found_lane_by_lane(fixture: Fixture) {
    let instance = fixture.instance().await;
    let newer = fixture.add(a_job().made_at(5), instance).await.id;
    let older = fixture.add(a_job().made_at(3), instance).await.id;
    fixture.add(a_job().made_at(9), instance).await;
    fixture.add(a_job().with(|job| job.priority = Priority::High), instance).await;
    fixture.add(a_job().with(|job| job.vendor = Vendor::ModelZoo), instance).await;
    fixture.add(a_job().with(|job| job.run_at = Some(at(1))), instance).await;
    fixture.running(a_job(), instance).await;
    fixture.ended(a_job(), instance).await;
    let found = fixture.overdue(NORMAL, at(9), 10).await.unwrap();
    assert_eq!(jobs_of(&found), [older, newer]);
    assert_eq!(found[0].lane, NORMAL);
    assert_eq!(jobs_of(&fixture.overdue(NORMAL, at(9), 1).await.unwrap()), [older]);
    // Looking changes nothing.
    assert_eq!(fixture.overdue(NORMAL, at(9), 10).await.unwrap(), found);
}

pub async fn a_job_is_overdue_from_when_it_was_last_ready(fixture: Fixture) {
    let (one, two) = (fixture.instance().await, fixture.instance().await);
    let scheduled = fixture.add(a_job().with(|job| job.run_at = Some(at(50))), one).await.id;
    fixture.take_due(one, at(51), 10).await.unwrap();
    let claim = fixture.running(a_job(), one).await;
    fixture.finish_one(&claim, retry_at(at(60)), at(2)).await;
    fixture.take_due(one, at(61), 10).await.unwrap();
    let lost = fixture.running(a_job(), one).await.job.id;
    fixture.retire(one).await.unwrap();
    fixture.rescue(two, at(70), 10).await.unwrap();
    let overdue = async |before| jobs_of(&fixture.overdue(NORMAL, at(before), 10).await.unwrap());
    assert!(overdue(50).await.is_empty());
    assert_eq!(overdue(60).await, [scheduled]);
    assert_eq!(overdue(70).await, [scheduled, claim.job.id]);
    assert_eq!(overdue(71).await, [scheduled, claim.job.id, lost]);
}

pub async fn a_queued_job_expires_at_its_deadline(fixture: Fixture) {
    let instance = fixture.instance().await;
    let due = |seconds| a_job().with(move |job| job.expires_at = Some(at(seconds)));
    let second = fixture.add(due(6), instance).await.id;
    let first = fixture.add(due(5), instance).await.id;
    let waiting = fixture.add(due(7).with(|job| job.run_at = Some(at(90))), instance).await.id;
    let later = fixture.add(due(8), instance).await.id;
    let running = fixture.running(due(5), instance).await.job.id;
    fixture.add(a_job(), instance).await;
    assert!(fixture.expire(at(4), 10).await.unwrap().is_empty());
    let expired = fixture.expire(at(7), 1).await.unwrap();
    assert_eq!(expired, [fixture.job(first).await], "the earliest deadline first");
    let expired = fixture.expire(at(7), 10).await.unwrap();
    let ids: HashSet<_> = expired.iter().map(|job| job.id).collect();
    assert_eq!(ids, [second, waiting].into());
    let job = fixture.job(waiting).await;
    assert_eq!((job.status, job.finished_at), (JobStatus::Expired, Some(at(7))));
    assert_eq!(job.run_at, None);
    assert_eq!(fixture.result(waiting).await.error.unwrap().class, ErrorClass::Expired);
    assert!(fixture.list_attempts(waiting).await.unwrap().is_empty());
    assert_eq!(fixture.status(later).await, JobStatus::Queued);
    assert_eq!(fixture.status(running).await, JobStatus::Running);
    assert!(fixture.claim_one(first, instance, at(4)).await.is_none());
}

pub async fn a_job_that_has_started_no_longer_expires(fixture: Fixture) {
    let instance = fixture.instance().await;
    let claim = fixture.running(a_job().with(|job| job.expires_at = Some(at(5))), instance).await;
    assert!(fixture.finish_one(&claim, retry_at(at(10)), at(2)).await);
    assert!(fixture.expire(at(20), 10).await.unwrap().is_empty());
    assert!(fixture.claim_one(claim.job.id, instance, at(20)).await.is_some());
}

pub async fn lanes_count_what_is_unfinished(fixture: Fixture) {
    let instance = fixture.instance().await;
    assert_eq!(fixture.count_lanes().await.unwrap(), []);
    fixture.add(a_job(), instance).await;
    fixture.add(a_job().with(|job| job.run_at = Some(at(90))), instance).await;
    fixture.running(a_job(), instance).await;
    fixture.ended(a_job(), instance).await;
    fixture.running(a_job().with(|job| job.priority = Priority::Low), instance).await;
    fixture.ended(a_job().with(|job| job.vendor = Vendor::ModelZoo), instance).await;
    let mut counts = fixture.count_lanes().await.unwrap();
    counts.sort_by_key(|count| count.lane);
    let low = Lane { vendor: Vendor::OpenAi, priority: Priority::Low };
    assert_eq!(
        counts,
        [
            LaneCount { lane: NORMAL, queued: 2, running: 1 },
            LaneCount { lane: low, queued: 0, running: 1 },
        ]
    );
}

pub async fn the_jobs_of_a_lost_instance_run_elsewhere(fixture: Fixture) {
    let (lost, alive) = (fixture.instance().await, fixture.instance().await);
    let reply_to = Some(alive);
    let running = fixture.running(a_job().with(|job| job.reply_to = reply_to), lost).await;
    let queued = fixture.add(a_job(), lost).await.id;
    let untouched = fixture.running(a_job(), alive).await.job.id;
    fixture.ended(a_job(), lost).await;
    assert_eq!(fixture.rescue(alive, at(5), 10).await.unwrap(), Rescued::default());
    fixture.retire(lost).await.unwrap();
    let rescued = fixture.rescue(alive, at(5), 10).await.unwrap();
    assert_eq!((rescued.requeued, rescued.deliveries), (1, 0));
    assert!(rescued.failed.is_empty());
    let id = running.job.id;
    assert_eq!(rescued.wakeups.len(), 2);
    assert!(jobs_of(&rescued.wakeups).contains(&queued));
    assert!(rescued.wakeups.contains(&Wakeup { job_id: id, lane: NORMAL, attempt: 1, reply_to }));
    let job = fixture.job(id).await;
    assert_eq!((job.status, job.attempt, job.lost_attempts), (JobStatus::Queued, 1, 1));
    assert_eq!((job.run_at, job.finished_at), (None, None));
    let attempts = fixture.list_attempts(id).await.unwrap();
    assert_eq!(attempts.len(), 1);
    assert_eq!((attempts[0].number, attempts[0].outcome), (1, AttemptOutcome::Lost));
    assert_eq!(attempts[0].instance, Some(lost));
    assert_eq!((attempts[0].started_at, attempts[0].finished_at), (at(1), at(5)));
    assert_eq!(attempts[0].error.as_ref().unwrap().class, ErrorClass::Lost);
    assert_eq!(fixture.status(untouched).await, JobStatus::Running);
    assert!(!fixture.finish_one(&running, succeeded(), at(6)).await);
    assert_eq!(fixture.rescue(alive, at(6), 10).await.unwrap(), Rescued::default());
    assert_eq!(fixture.claim_one(id, alive, at(6)).await.unwrap().attempt(), 2);
}

pub async fn a_rescued_job_that_waits_goes_on_waiting(fixture: Fixture) {
    let (lost, alive) = (fixture.instance().await, fixture.instance().await);
    let job = fixture.add(a_job().with(|job| job.run_at = Some(at(60))), lost).await;
    fixture.retire(lost).await.unwrap();
    assert!(fixture.rescue(alive, at(5), 10).await.unwrap().wakeups.is_empty());
    assert_eq!(fixture.job(job.id).await.run_at, Some(at(60)));
    assert_eq!(jobs_of(&fixture.take_due(alive, at(60), 10).await.unwrap()), [job.id]);
}

pub async fn a_rescue_is_done_in_steps_and_by_one_of_many(fixture: Fixture) {
    let (lost, one, two) =
        (fixture.instance().await, fixture.instance().await, fixture.instance().await);
    let mut all = HashSet::new();
    for _ in 0..10 {
        all.insert(fixture.running(a_job(), lost).await.job.id);
        all.insert(fixture.add(a_job(), lost).await.id);
    }
    fixture.retire(lost).await.unwrap();
    let mut rescued = Vec::new();
    for _ in 0..20 {
        let (by_one, by_two) =
            futures::join!(fixture.rescue(one, at(5), 3), fixture.rescue(two, at(5), 3));
        for step in [by_one.unwrap(), by_two.unwrap()] {
            assert!(step.wakeups.len() <= 3);
            rescued.extend(jobs_of(&step.wakeups));
        }
    }
    assert_eq!(rescued.len(), 20, "each once");
    assert_eq!(rescued.into_iter().collect::<HashSet<_>>(), all);
}

pub async fn a_lost_instance_rescues_nothing(fixture: Fixture) {
    let (lost, also_lost) = (fixture.instance().await, fixture.instance().await);
    let id = fixture.running(a_job(), lost).await.job.id;
    fixture.retire(lost).await.unwrap();
    fixture.retire(also_lost).await.unwrap();
    assert_eq!(fixture.rescue(also_lost, at(5), 10).await.unwrap(), Rescued::default());
    let unknown = InstanceId::new(at(0));
    assert_eq!(fixture.rescue(unknown, at(5), 10).await.unwrap(), Rescued::default());
    assert_eq!(fixture.status(id).await, JobStatus::Running);
}

pub async fn a_job_that_lost_too_many_processes_fails(fixture: Fixture) {
    let sweeper = fixture.instance().await;
    let job = a_job().calling_back("https://example.com");
    let id = fixture.add(job, sweeper).await.id;
    for n in 1..=Limits::MAX_LOST_ATTEMPTS {
        let victim = fixture.instance().await;
        assert_eq!(fixture.claim_one(id, victim, at(1)).await.unwrap().attempt(), n);
        fixture.retire(victim).await.unwrap();
        let rescued = fixture.rescue(sweeper, at(2), 10).await.unwrap();
        if n < Limits::MAX_LOST_ATTEMPTS {
            assert_eq!((rescued.requeued, rescued.failed.len()), (1, 0));
        } else {
            assert_eq!(rescued.requeued, 0);
            assert_eq!(rescued.failed, [fixture.job(id).await]);
            assert!(rescued.wakeups.is_empty());
        }
    }
    let job = fixture.job(id).await;
    assert_eq!((job.status, job.finished_at), (JobStatus::Failed, Some(at(2))));
    assert_eq!(job.lost_attempts, Limits::MAX_LOST_ATTEMPTS);
    assert_eq!(fixture.result(id).await.error.unwrap().class, ErrorClass::Lost);
    let attempts = fixture.list_attempts(id).await.unwrap();
    assert_eq!(attempts.len(), 5);
    assert!(attempts.iter().all(|attempt| attempt.outcome == AttemptOutcome::Lost));
    assert_eq!(fixture.list_deliveries(id).await.unwrap().len(), 1);
}

pub async fn a_claim_that_nobody_holds_is_found(fixture: Fixture) {
    let (instance, other) = (fixture.instance().await, fixture.instance().await);
    let held = fixture.running(a_job(), instance).await;
    let stray = fixture.running(a_job(), instance).await;
    fixture.running(a_job(), other).await;
    fixture.add(a_job(), instance).await;
    fixture.ended(a_job(), instance).await;
    let holding = [(held.job.id, 1), (stray.job.id, 2)];
    let young = fixture.strays(instance, &holding, at(1), 10).await.unwrap();
    assert!(young.is_empty(), "all were claimed at 1 s: {young:?}");
    let strays = fixture.strays(instance, &holding, at(2), 10).await.unwrap();
    let [found] = &strays[..] else { panic!("{strays:?}") };
    assert_eq!((&found.job, found.instance), (&stray.job, instance));
    assert_eq!((found.args.as_str(), found.ready_at), (stray.args.as_str(), stray.ready_at));
    assert_eq!(fixture.strays(instance, &[], at(2), 1).await.unwrap().len(), 1);
    assert!(fixture.finish_one(found, Outcome::HandedBack, at(3)).await);
    assert!(fixture.strays(instance, &holding, at(9), 10).await.unwrap().is_empty());
    assert_eq!(fixture.claim_one(stray.job.id, other, at(4)).await.unwrap().attempt(), 2);
}

pub async fn a_claim_says_since_when_its_job_was_ready(fixture: Fixture) {
    let instance = fixture.instance().await;
    let claim = fixture.running(a_job(), instance).await;
    assert_eq!(claim.ready_at, claim.job.created_at);
    assert!(fixture.finish_one(&claim, retry_at(at(30)), at(2)).await);
    let again = fixture.claim_one(claim.job.id, instance, at(40)).await.unwrap();
    assert_eq!(again.ready_at, at(30));
}

pub async fn a_failure_between_losses_does_not_count_as_one(fixture: Fixture) {
    let (instance, sweeper) = (fixture.instance().await, fixture.instance().await);
    let claim = fixture.running(a_job(), instance).await;
    assert!(fixture.finish_one(&claim, retry_at(at(3)), at(2)).await);
    let again = fixture.claim_one(claim.job.id, instance, at(3)).await.unwrap();
    fixture.retire(instance).await.unwrap();
    fixture.rescue(sweeper, at(4), 10).await.unwrap();
    let job = fixture.job(again.job.id).await;
    assert_eq!((job.attempt, job.lost_attempts), (2, 1));
    let last = fixture.claim_one(job.id, sweeper, at(5)).await.unwrap();
    assert!(fixture.finish_one(&last, failed(), at(6)).await);
    let numbers: Vec<_> =
        fixture.list_attempts(job.id).await.unwrap().iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

pub async fn a_job_cancelled_before_the_rescue_stays_cancelled(fixture: Fixture) {
    let (lost, alive) = (fixture.instance().await, fixture.instance().await);
    let id = fixture.running(a_job(), lost).await.job.id;
    fixture.retire(lost).await.unwrap();
    fixture.cancel(id, &acme(), at(2)).await.unwrap();
    assert_eq!(fixture.rescue(alive, at(3), 10).await.unwrap(), Rescued::default());
    assert_eq!(fixture.status(id).await, JobStatus::Cancelled);
    assert_eq!(fixture.forget_instances(Duration::ZERO).await.unwrap(), 1);
}
