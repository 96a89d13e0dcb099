//! What cases are made of.

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;

use super::Fixture;
use crate::{
    error::{ErrorClass, JobError},
    id::{AccountId, InstanceId, JobId},
    job::{IdempotencyKey, Job, JobResult, JobStatus, Json, NewJob, Outcome},
    store::{Claim, NewInstance, Submitted},
    testing::queued_job,
    usage::Usage,
};

/// The moment cases begin at, plus seconds; with microseconds, which must survive.
pub(super) fn at(seconds: i64) -> DateTime<Utc> {
    let start = DateTime::from_timestamp_micros(1_800_000_000_678_901).unwrap();
    start + TimeDelta::seconds(seconds)
}

pub(super) fn account(name: &str) -> AccountId {
    name.parse().unwrap()
}

pub(super) fn acme() -> AccountId {
    account("acme")
}

/// A plain job of `acme`, made at [`at`] zero.
pub(super) fn a_job() -> JobBuilder {
    let args = Json::parse(r#"{"messages":[]}"#).unwrap();
    JobBuilder(NewJob { job: queued_job(at(0)), args, idempotency: None, lend_to: None })
}

/// A plain job, for the tests of one store.
pub fn plain_job() -> NewJob {
    a_job().build()
}

/// Builds a [`NewJob`].
pub(super) struct JobBuilder(pub(super) NewJob);

impl JobBuilder {
    pub(super) fn with(mut self, change: impl FnOnce(&mut Job)) -> Self {
        change(&mut self.0.job);
        self
    }

    pub(super) fn of(self, account: &AccountId) -> Self {
        self.with(|job| job.account = account.clone())
    }

    /// Made at [`at`] `seconds`, and so sorted.
    pub(super) fn made_at(self, seconds: i64) -> Self {
        self.with(|job| {
            job.id = JobId::new(at(seconds));
            job.created_at = at(seconds);
        })
    }

    pub(super) fn calling_back(self, url: &str) -> Self {
        self.with(|job| job.callback_url = Some(url.to_owned()))
    }

    pub(super) fn with_args(mut self, text: &str) -> Self {
        self.0.args = Json::parse(text).unwrap();
        self
    }

    pub(super) fn keyed(mut self, key: &str, fingerprint: u8) -> Self {
        self.0.idempotency =
            Some(IdempotencyKey { key: key.to_owned(), fingerprint: [fingerprint; 32] });
        self
    }

    pub(super) fn lent_to(mut self, instance: InstanceId) -> Self {
        self.0.lend_to = Some(instance);
        self
    }

    pub(super) fn build(self) -> NewJob {
        self.0
    }
}

pub(super) fn succeeded() -> Outcome {
    Outcome::Succeeded {
        response: Json::parse(r#"{"ok":true}"#).unwrap(),
        usage: some_usage(),
        vendor_request_id: Some("req_1".into()),
    }
}

pub(super) fn failed() -> Outcome {
    Outcome::Failed { error: an_error(), usage: Usage::default() }
}

pub(super) fn retry_at(run_at: DateTime<Utc>) -> Outcome {
    Outcome::Retry { error: an_error(), usage: Usage::default(), run_at }
}

pub(super) fn deferred_with(seconds: i64, ticket: Option<&str>) -> Outcome {
    Outcome::Deferred { run_at: at(seconds), ticket: ticket.map(Into::into) }
}

pub(super) fn some_usage() -> Usage {
    Usage { input_tokens: Some(12), output_tokens: Some(34), ..Usage::default() }
}

pub(super) fn an_error() -> JobError {
    JobError {
        class: ErrorClass::RateLimited,
        message: "the vendor asks to slow down: \"später\"".into(),
        vendor_status: Some(429),
        vendor_code: Some("rate_limit_exceeded".into()),
        vendor_request_id: Some("req_2".into()),
        hint: Some("try again later".into()),
    }
}

pub(super) fn a_secret(name: &str) -> SecretString {
    SecretString::from(format!("whsec_{name}"))
}

impl Fixture {
    /// Registers a new instance.
    pub(super) async fn instance(&self) -> InstanceId {
        let id = InstanceId::new(at(0));
        let instance = NewInstance { id, role: "worker", host: "host-1".into() };
        self.register(&instance).await.unwrap();
        id
    }

    /// Stores a job that `publisher` answers for.
    pub(super) async fn add(&self, builder: JobBuilder, publisher: InstanceId) -> Job {
        let new = builder.build();
        let job = new.job.clone();
        assert_eq!(self.submit(&[new], publisher).await.unwrap(), [Submitted::Added]);
        job
    }

    pub(super) async fn claim_one(
        &self,
        id: JobId,
        instance: InstanceId,
        now: DateTime<Utc>,
    ) -> Option<Claim> {
        let mut claims = self.claim(&[id], instance, now).await.unwrap();
        assert!(claims.len() <= 1);
        claims.pop()
    }

    /// Stores a job and claims it at [`at`] one.
    pub(super) async fn running(&self, builder: JobBuilder, instance: InstanceId) -> Claim {
        let job = self.add(builder, instance).await;
        self.claim_one(job.id, instance, at(1)).await.unwrap()
    }

    pub(super) async fn finish_one(
        &self,
        claim: &Claim,
        outcome: Outcome,
        now: DateTime<Utc>,
    ) -> bool {
        self.finish(&[(claim.clone(), outcome)], now).await.unwrap() == [true]
    }

    /// Stores a job that has succeeded at [`at`] two.
    pub(super) async fn ended(&self, builder: JobBuilder, instance: InstanceId) -> Job {
        let claim = self.running(builder, instance).await;
        assert!(self.finish_one(&claim, succeeded(), at(2)).await);
        self.job(claim.job.id).await
    }

    /// A job of `acme` as it is now.
    pub(super) async fn job(&self, id: JobId) -> Job {
        self.find_job(id, &acme()).await.unwrap().expect("the job is there").0
    }

    pub(super) async fn result(&self, id: JobId) -> JobResult {
        let (_, result) = self.find_job(id, &acme()).await.unwrap().expect("the job is there");
        result.expect("the job has ended")
    }

    pub(super) async fn status(&self, id: JobId) -> JobStatus {
        self.job(id).await.status
    }
}
