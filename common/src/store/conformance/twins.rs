use super::{Fixture, a_job, account, acme, at, builders::JobBuilder, retry_at};
use crate::{
    id::JobId,
    job::{Job, Json, Operation},
    store::Twin,
    vendor::Vendor,
};

const ARGS: &str = r#"{"messages":[], "n":1.0}"#;

/// The twin that [`equal`] jobs have.
fn twin() -> Twin {
    Twin {
        account: acme(),
        operation: Operation::Inference,
        alias: None,
        vendor: Vendor::OpenAi,
        model: "gpt-5".into(),
        stream: false,
        args: Json::parse(ARGS).unwrap(),
    }
}

fn equal() -> JobBuilder {
    a_job().with_args(ARGS)
}

impl Fixture {
    async fn twin_since(&self, twin: &Twin, seconds: i64) -> Option<JobId> {
        self.find_twin(twin, at(seconds)).await.unwrap().map(|job| job.id)
    }
}

pub async fn the_latest_unfinished_twin_is_found(fixture: Fixture) {
    let instance = fixture.instance().await;
    assert_eq!(fixture.twin_since(&twin(), 0).await, None);
    let first = fixture.add(equal().made_at(1), instance).await;
    assert_eq!(fixture.find_twin(&twin(), at(1)).await.unwrap().as_ref(), Some(&first));
    assert_eq!(fixture.twin_since(&twin(), 2).await, None, "it was made before");
    let second = fixture.add(equal().made_at(2), instance).await.id;
    assert_eq!(fixture.twin_since(&twin(), 1).await, Some(second));
    let claim = fixture.claim_one(second, instance, at(3)).await.unwrap();
    let found = fixture.find_twin(&twin(), at(1)).await.unwrap();
    assert_eq!(found, Some(claim.job.clone()), "as it is now: running");
    assert!(fixture.finish_one(&claim, retry_at(at(9)), at(4)).await);
    assert_eq!(fixture.twin_since(&twin(), 1).await, Some(second), "it waits");
    fixture.cancel(second, &acme(), at(5)).await.unwrap();
    assert_eq!(fixture.twin_since(&twin(), 1).await, Some(first.id));
    fixture.cancel(first.id, &acme(), at(5)).await.unwrap();
    assert_eq!(fixture.twin_since(&twin(), 1).await, None, "what has ended is no twin");
}

pub async fn a_twin_is_equal_in_every_member(fixture: Fixture) {
    let instance = fixture.instance().await;
    fixture.add(equal(), instance).await;
    let alias = |job: &mut Job| job.alias = Some("bot".into());
    let aliased = fixture.add(equal().with(alias).made_at(-1), instance).await.id;
    let others: [fn(&mut Twin); 9] = [
        |twin| twin.account = account("other"),
        |twin| twin.operation = Operation::Execute,
        |twin| twin.alias = Some("other".into()),
        |twin| twin.alias = Some(String::new()),
        |twin| twin.vendor = Vendor::ModelZoo,
        |twin| twin.model = "gpt-5-mini".into(),
        |twin| twin.stream = true,
        // The same value in other words.
        |twin| twin.args = Json::parse(r#"{"messages":[],"n":1.0}"#).unwrap(),
        |twin| twin.args = Json::parse(r#"{"messages":[], "n":2.0}"#).unwrap(),
    ];
    for (n, change) in others.into_iter().enumerate() {
        let mut other = twin();
        change(&mut other);
        assert_eq!(fixture.twin_since(&other, -5).await, None, "change {n}");
        // It can be found: a job of that kind is.
        let job = equal().made_at(-2).with(|job| {
            (job.account, job.operation) = (other.account.clone(), other.operation);
            (job.alias, job.vendor) = (other.alias.clone(), other.vendor);
            (job.model, job.stream) = (other.model.clone(), other.stream);
        });
        let job = fixture.add(job.with_args(other.args.as_str()), instance).await.id;
        assert_eq!(fixture.twin_since(&other, -5).await, Some(job), "change {n}");
    }
    assert!(fixture.twin_since(&twin(), -5).await.is_some());
    assert_eq!(
        fixture.twin_since(&Twin { alias: Some("bot".into()), ..twin() }, -5).await,
        Some(aliased)
    );
}

pub async fn a_twin_behind_many_other_jobs_is_not_looked_for(fixture: Fixture) {
    let instance = fixture.instance().await;
    let old = fixture.add(equal().made_at(1), instance).await.id;
    let others: Vec<_> = (0..9_999).map(|_| a_job().made_at(2).build()).collect();
    for some in others.chunks(1000) {
        fixture.submit(some, instance).await.unwrap();
    }
    assert_eq!(fixture.twin_since(&twin(), 0).await, Some(old));
    fixture.add(a_job().made_at(3), instance).await;
    assert_eq!(fixture.twin_since(&twin(), 0).await, None);
}
