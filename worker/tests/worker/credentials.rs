//! The credential that an attempt is made with, or why it cannot be made.

use std::sync::Arc;

use inferq_common::{
    credential::{CredentialMember, CredentialName, CredentialSecret, MasterKey, MasterKeys},
    error::ErrorClass,
    id::CredentialId,
    store::{CredentialStore as _, NewCredential},
    vendor::Vendor,
};
use inferq_vendors::VendorError;
use inferq_worker::Worker;
use rand::{SeedableRng as _, rngs::StdRng};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::value::RawValue;

use crate::platform::Platform;

fn keys(byte: u8) -> Arc<MasterKeys> {
    let key = MasterKey::parse(&SecretString::from(format!("{byte:02x}").repeat(32))).unwrap();
    Arc::new(MasterKeys::new(Some(key), Vec::new()))
}

fn name(text: &str) -> CredentialName {
    text.parse().unwrap()
}

async fn put(platform: &Platform, text: &str, vendor: Vendor, default: bool) {
    let raw: Box<RawValue> = serde_json::from_str(&format!("\"key-{text}\"")).unwrap();
    let secret = CredentialSecret::read(vendor, [("api_key", &*raw)]).unwrap();
    let (account, name, now) = (platform.account.clone(), name(text), platform.clock.now());
    let mut rng = StdRng::seed_from_u64(1);
    let secret = keys(7).seal(&secret, (&account, &name, vendor), &mut rng).unwrap();
    let (id, default) = (CredentialId::new(now), Some(default));
    let new = NewCredential { id, account, name, vendor, secret, default, now };
    platform.store.put_credential(&new).await.unwrap();
}

/// The key that a job whose model names `wanted` would be run with.
async fn key(
    platform: &Platform,
    worker: &Worker,
    wanted: Option<&str>,
) -> Result<Option<String>, VendorError> {
    let job = platform.add("echo", |job| job.credential = wanted.map(name)).await;
    let found = worker.credential(&job, &job.account).await?;
    let key = |secret: &CredentialSecret| {
        secret.get(CredentialMember::ApiKey).unwrap().expose_secret().to_owned()
    };
    Ok(found.map(|open| key(&open.secret)))
}

#[tokio::test]
async fn the_one_the_model_names_goes_before_the_default() {
    let platform = Platform::start().await;
    let fresh = || platform.idle_worker(keys(7));
    assert_eq!(key(&platform, &fresh(), None).await, Ok(None));
    put(&platform, "a", Vendor::OpenAi, false).await;
    put(&platform, "b", Vendor::OpenAi, true).await;
    assert_eq!(key(&platform, &fresh(), Some("a")).await, Ok(Some("key-a".into())));
    assert_eq!(key(&platform, &fresh(), None).await, Ok(Some("key-b".into())));
}

#[tokio::test]
async fn one_that_was_deleted_fails_the_attempt_and_is_not_replaced_by_another() {
    let platform = Platform::start().await;
    put(&platform, "b", Vendor::OpenAi, true).await;
    let worker = platform.idle_worker(keys(7));
    let error = key(&platform, &worker, Some("a")).await.unwrap_err().error;
    assert_eq!(error.class, ErrorClass::Auth);
    assert!(
        error.message.starts_with("credential 'a' was deleted before the attempt"),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_job_of_another_account_is_not_told_what_is_wrong_with_the_owner_s() {
    let platform = Platform::start().await;
    put(&platform, "secretive", Vendor::Xai, false).await;
    let worker = platform.idle_worker(keys(7));
    for wanted in ["gone", "secretive"] {
        let mut job = platform.add("echo", |job| job.credential = Some(name(wanted))).await;
        job.account = "other".parse().unwrap();
        let error = worker.credential(&job, &platform.account).await.unwrap_err().error;
        assert_eq!(error.class, ErrorClass::Auth);
        assert_eq!(error.message, "the model cannot be called; its owner must mend it");
    }
}

#[tokio::test]
async fn one_that_cannot_be_used_fails_the_attempt_with_its_name() {
    let platform = Platform::start().await;
    put(&platform, "a", Vendor::OpenAi, true).await;
    put(&platform, "x", Vendor::Xai, false).await;
    for (keys, wanted, words) in [
        (keys(8), None, "credential 'a' cannot be used: it is sealed with master key"),
        (Arc::default(), Some("a"), "credential 'a' cannot be used: this server has no master key"),
        (keys(7), Some("x"), "credential 'x' is for xai, not for openai"),
    ] {
        let worker = platform.idle_worker(keys);
        let error = key(&platform, &worker, wanted).await.unwrap_err().error;
        assert_eq!(error.class, ErrorClass::Auth);
        assert!(error.message.starts_with(words), "{error:?}");
    }
}

#[tokio::test]
async fn while_the_store_is_away_the_attempt_can_be_tried_again() {
    let platform = Platform::start().await;
    put(&platform, "a", Vendor::OpenAi, true).await;
    let worker = platform.idle_worker(keys(7));
    let job = platform.add("echo", |_| {}).await;
    platform.store.set_down(true);
    let error = worker.credential(&job, &job.account).await.unwrap_err().error;
    assert_eq!(error.class, ErrorClass::Transient);
    platform.store.set_down(false);
    assert!(worker.credential(&job, &job.account).await.unwrap().is_some());
}
