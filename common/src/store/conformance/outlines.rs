use super::{
    Fixture, account, acme, at, deferred_with, failed, retry_at, streams::streaming, succeeded,
};
use crate::{
    error::ErrorClass,
    id::{InstanceId, JobId},
    job::{AttemptOutcome, JobStatus, Outcome},
    store::{Claim, Rescued},
    stream::Outline,
};

impl Fixture {
    async fn outlined(&self, id: JobId) -> Outline {
        let outline = self.outline(id, &acme()).await.unwrap().unwrap();
        let (job, result) = self.find_job(id, &acme()).await.unwrap().unwrap();
        assert_eq!((&outline.job, &outline.result), (&job, &result));
        assert_eq!(outline.attempts, self.list_attempts(id).await.unwrap());
        outline
    }

    /// Stores a streaming job with a callback, of whose running attempt three chunks are stored.
    async fn streamed(&self, instance: InstanceId) -> Claim {
        let job = streaming().calling_back("https://example.com");
        let claim = self.running(job, instance).await;
        assert!(self.append_one(&claim, 0, &["1", "2"]).await);
        assert!(self.append_one(&claim, 2, &["3"]).await);
        claim
    }

    /// Checks that the job failed because part of its stream had been passed on.
    async fn assert_stream_lost(&self, claim: &Claim, seconds: i64) {
        let id = claim.job.id;
        let outline = self.outlined(id).await;
        let job = &outline.job;
        assert_eq!((job.status, job.finished_at), (JobStatus::Failed, Some(at(seconds))));
        assert_eq!((job.lost_attempts, job.run_at, &job.ticket), (1, None, &None));
        let error = outline.result.unwrap().error.unwrap();
        assert_eq!(error.class, ErrorClass::Lost);
        assert!(error.message.contains("part of its stream"), "{}", error.message);
        assert!(error.message.contains(&format!("/v5/jobs/{id}/retry")), "{}", error.message);
        let attempt = outline.attempts.last().unwrap();
        assert_eq!((attempt.number, attempt.outcome), (claim.attempt(), AttemptOutcome::Lost));
        assert_eq!(attempt.error.as_ref().unwrap().class, ErrorClass::Lost);
        assert_eq!(self.list_deliveries(id).await.unwrap().len(), 1);
        assert_eq!(self.chunks_from(id, claim.attempt(), 0).await, ["1", "2", "3"]);
        assert!(!self.append_one(claim, 3, &["4"]).await);
    }
}

pub async fn an_outline_tells_each_phase_of_a_job(fixture: Fixture) {
    let instance = fixture.instance().await;
    let id = fixture.add(streaming(), instance).await.id;
    let outline = fixture.outlined(id).await;
    assert_eq!(outline.job.status, JobStatus::Queued);
    assert!(outline.attempts.is_empty() && outline.chunks.is_empty());
    let first = fixture.claim_one(id, instance, at(1)).await.unwrap();
    assert_eq!(fixture.outlined(id).await.job, first.job);
    assert!(fixture.append_one(&first, 0, &["1", "2"]).await);
    assert_eq!(fixture.outlined(id).await.chunks, [(1, 2)]);
    assert!(fixture.finish_one(&first, retry_at(at(3)), at(2)).await);
    let outline = fixture.outlined(id).await;
    assert_eq!((outline.attempts.len(), &outline.chunks[..]), (1, &[(1, 2)][..]));
    let second = fixture.claim_one(id, instance, at(3)).await.unwrap();
    assert!(fixture.finish_one(&second, retry_at(at(4)), at(4)).await);
    let third = fixture.claim_one(id, instance, at(4)).await.unwrap();
    assert!(fixture.finish_one(&third, deferred_with(5, None), at(4)).await);
    assert!(fixture.outlined(id).await.job.deferred);
    let third = fixture.claim_one(id, instance, at(5)).await.unwrap();
    assert!(fixture.append_one(&third, 0, &["1"]).await);
    assert_eq!(fixture.outlined(id).await.chunks, [(1, 2), (3, 1)]);
    assert!(fixture.finish_one(&third, succeeded(), at(6)).await);
    let outline = fixture.outlined(id).await;
    assert_eq!(outline.attempts.iter().map(|one| one.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(outline.chunks, [(1, 2), (3, 1)]);
    assert!(outline.result.unwrap().response.is_some());
}

pub async fn an_outline_is_of_an_account(fixture: Fixture) {
    let instance = fixture.instance().await;
    let id = fixture.running(streaming(), instance).await.job.id;
    assert_eq!(fixture.outline(id, &account("other")).await.unwrap(), None);
    assert_eq!(fixture.outline(JobId::new(at(0)), &acme()).await.unwrap(), None);
}

pub async fn a_lost_job_whose_stream_had_begun_fails(fixture: Fixture) {
    let (lost, alive) = (fixture.instance().await, fixture.instance().await);
    let begun = fixture.streamed(lost).await;
    let silent = fixture.running(streaming(), lost).await;
    let queued = fixture.add(streaming(), lost).await.id;
    fixture.retire(lost).await.unwrap();
    let rescued = fixture.rescue(alive, at(5), 10).await.unwrap();
    assert_eq!(rescued.failed, [fixture.job(begun.job.id).await]);
    assert_eq!((rescued.requeued, rescued.wakeups.len()), (1, 2));
    fixture.assert_stream_lost(&begun, 5).await;
    for id in [silent.job.id, queued] {
        assert_eq!(fixture.status(id).await, JobStatus::Queued);
    }
    assert_eq!(fixture.rescue(alive, at(6), 10).await.unwrap(), Rescued::default());
}

pub async fn only_the_lost_attempts_own_chunks_fail_its_job(fixture: Fixture) {
    let (lost, alive) = (fixture.instance().await, fixture.instance().await);
    let first = fixture.streamed(alive).await;
    assert!(fixture.finish_one(&first, retry_at(at(3)), at(2)).await);
    assert!(fixture.claim_one(first.job.id, lost, at(3)).await.is_some());
    fixture.retire(lost).await.unwrap();
    assert_eq!(fixture.rescue(alive, at(4), 10).await.unwrap().requeued, 1);
    let third = fixture.claim_one(first.job.id, alive, at(5)).await.unwrap();
    assert!(fixture.finish_one(&third, Outcome::HandedBack, at(6)).await);
    let job = fixture.job(first.job.id).await;
    assert_eq!((job.status, job.lost_attempts), (JobStatus::Queued, 2));
}

pub async fn a_stream_that_had_begun_is_not_given_back(fixture: Fixture) {
    let instance = fixture.instance().await;
    let plain = fixture.running(streaming(), instance).await;
    let over = fixture.streamed(instance).await;
    assert!(fixture.finish_one(&over, failed(), at(2)).await);
    let (one, two) = (fixture.streamed(instance).await, fixture.streamed(instance).await);
    let ends = fixture.streamed(instance).await;
    let batch = [
        (two.clone(), deferred_with(9, Some("task"))),
        (plain.clone(), Outcome::HandedBack),
        (over.clone(), Outcome::HandedBack),
        (one.clone(), Outcome::HandedBack),
        (ends.clone(), succeeded()),
        (one.clone(), Outcome::HandedBack),
    ];
    let held = fixture.finish(&batch, at(3)).await.unwrap();
    assert_eq!(held, [true, true, false, true, true, false]);
    fixture.assert_stream_lost(&one, 3).await;
    fixture.assert_stream_lost(&two, 3).await;
    for (claim, status) in
        [(&plain, JobStatus::Queued), (&over, JobStatus::Failed), (&ends, JobStatus::Succeeded)]
    {
        assert_eq!(fixture.status(claim.job.id).await, status);
    }
    assert!(fixture.outlined(ends.job.id).await.result.unwrap().error.is_none());
}
