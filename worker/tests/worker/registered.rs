//! What registered models ask of the attempts at them.

use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use inferq_common::{
    error::ErrorClass,
    id::{AccountId, JobId, ModelId},
    job::{JobStatus, Json},
    model::{IdentityType, Model, ModelStatus, ModelType, Sighting},
    store::{AccountStore as _, ModelStore as _, ServingStore as _},
    vendor::Vendor,
};
use tokio::time::timeout;

use crate::platform::{Platform, SOON, eventually};

/// Registers a model of `vendor` with this configuration.
pub(crate) async fn register(platform: &Platform, vendor: Vendor, configuration: &str) -> ModelId {
    register_for(platform, platform.account.clone(), vendor, configuration).await
}

async fn register_for(
    platform: &Platform,
    account: AccountId,
    vendor: Vendor,
    configuration: &str,
) -> ModelId {
    let now = platform.clock.now();
    let model = Model {
        id: ModelId::new(now),
        account,
        name: "m".into(),
        vendor,
        model_type: ModelType::Generic,
        vendor_configuration: Some(Json::parse(configuration).unwrap()),
        metadata: None,
        status: ModelStatus::Ready,
        status_reason: None,
        default_callback_url: None,
        created_at: now,
        created_by_user_id: "user-1".into(),
        created_by_identity_type: IdentityType::User,
    };
    platform.store.add_model(&model, false).await.unwrap();
    model.id
}

async fn submit(platform: &Platform, name: &str, model: ModelId) -> JobId {
    platform.submit(name, |job| job.model_id = Some(model)).await
}

async fn sees(platform: &Platform, model: ModelId, available: bool) -> Sighting {
    let seen = eventually(async || {
        let long_ago = DateTime::UNIX_EPOCH;
        let seen = platform.store.sightings(&[model], long_ago).await.unwrap();
        seen.into_iter().find(|it| it.available == available)
    });
    timeout(SOON, seen).await.expect("it is noted in time")
}

#[tokio::test]
async fn no_more_calls_of_a_model_run_at_once_than_it_bears() {
    let platform = Platform::start().await;
    let model = register(&platform, Vendor::LlmEngine, r#"{"per_worker":2}"#).await;
    let mut ids = Vec::new();
    for _ in 0..12 {
        ids.push(submit(&platform, "waits", model).await);
    }
    let worker = platform.worker().await;
    platform.vendor.has_open(2).await;
    // Other models of the vendor have their own room.
    let other = platform.submit("echo", |_| {}).await;
    platform.reaches(other, JobStatus::Succeeded).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    platform.vendor.has_open(2).await;
    platform.vendor.open_gate();
    for id in ids {
        let (job, _) = platform.reaches(id, JobStatus::Succeeded).await;
        assert_eq!(job.attempt, 1, "waiting for a place is no attempt");
    }
    worker.stop().await;
}

#[tokio::test]
async fn a_response_that_does_not_fit_its_schema_fails_the_job_at_once() {
    let platform = Platform::start().await;
    let configuration = |kind: &str| {
        format!(
            r#"{{"model_image":{{"request_schema":{{}},"response_schema":{{"type":"{kind}"}}}},
                "model_infra":{{"per_worker":10}}}}"#
        )
    };
    let model = register(&platform, Vendor::Launch, &configuration("array")).await;
    let worker = platform.worker().await;
    let id = submit(&platform, "echo", model).await;
    let (job, result) = platform.reaches(id, JobStatus::Failed).await;
    let error = result.error.unwrap();
    assert_eq!((job.attempt, error.class), (1, ErrorClass::Protocol));
    assert!(error.message.contains("response_schema"), "{}", error.message);
    let old = platform.store.find_any_model(model).await.unwrap().unwrap();
    let configuration = Some(Json::parse(configuration("object")).unwrap());
    let new = Model { vendor_configuration: configuration, ..old.clone() };
    platform.store.replace_model(&old, &new).await.unwrap();
    let fits = eventually(async || {
        let id = submit(&platform, "echo", model).await;
        let ended = eventually(async || {
            let (job, _) = platform.find(id).await;
            job.status.is_final().then_some(job.status)
        });
        (ended.await == JobStatus::Succeeded).then_some(())
    });
    timeout(SOON, fits).await.expect("workers go by the new schema soon");
    worker.stop().await;
}

#[tokio::test]
async fn a_model_that_cannot_be_called_is_noted_as_such_until_it_can() {
    let platform = Platform::start().await;
    let model = register(&platform, Vendor::LlmEngine, r#"{"per_worker":2}"#).await;
    let worker = platform.worker().await;
    let id = submit(&platform, "echo", model).await;
    platform.reaches(id, JobStatus::Succeeded).await;
    let seen = sees(&platform, model, true).await;
    assert_eq!((seen.instance, seen.reason), (worker.instance.id(), None));
    // One failure more than retries.
    let id = platform
        .submit("fails_9", |job| {
            job.model_id = Some(model);
            job.limits.num_retries = 2;
        })
        .await;
    platform.reaches(id, JobStatus::Failed).await;
    let seen = sees(&platform, model, false).await;
    let reason = seen.reason.unwrap();
    assert_eq!(reason, "3 attempts in a row failed; the last: transient: not now");
    let id = submit(&platform, "echo", model).await;
    platform.reaches(id, JobStatus::Succeeded).await;
    let again = sees(&platform, model, true).await;
    assert!(again.since - seen.since >= TimeDelta::zero());
    worker.stop().await;
}

#[tokio::test]
async fn a_job_whose_model_was_deleted_or_closed_to_it_is_not_called_with_another_key() {
    let platform = Platform::start().await;
    let model = register(&platform, Vendor::LlmEngine, r#"{"per_worker":1}"#).await;
    let id = submit(&platform, "echo", model).await;
    platform.store.delete_model(model, &platform.account).await.unwrap();
    let owner: AccountId = "owner".parse().unwrap();
    platform.store.ensure_account(&owner, &"x".into(), platform.clock.now()).await.unwrap();
    let of_owner = async |configuration: &str| {
        let vendor = Vendor::LlmEngine;
        register_for(&platform, owner.clone(), vendor, configuration).await
    };
    let closed = of_owner(r#"{"per_worker":1}"#).await;
    let closed = submit(&platform, "echo", closed).await;
    let worker = platform.worker().await;
    for id in [id, closed] {
        let (job, result) = platform.reaches(id, JobStatus::Failed).await;
        let error = result.error.unwrap();
        assert_eq!((job.attempt, error.class), (1, ErrorClass::NotFound));
        assert!(error.message.contains("was deleted, or is no longer open"), "{}", error.message);
    }
    worker.stop().await;
}
