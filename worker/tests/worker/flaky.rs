//! A store that can be away.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use inferq_common::{
    account::{ApiKey, KeyHash},
    callback::{Delivery, DeliveryAttempt},
    credential::{CredentialName, Envelope, SealedCredential},
    id::{
        AccountId, ApiKeyId, CredentialId, DeliveryId, InstanceId, JobId, ModelId, ModelServerId,
    },
    job::{Attempt, Job, Json, Lane, NewJob, Outcome},
    model::{Model, ModelServer, ServerBackend, Sighting},
    store::{
        AccountStore, Added, Cancelled, Claim, CredentialStore, DeliveryClaim, DeliveryOutcome,
        DeliveryStore, FoundJob, InstanceStore, JobFilter, JobStore, LaneCount, ModelFilter,
        ModelStore, NewCredential, NewInstance, Page, PageRequest, Rescued, SharedStore, Store,
        StoreError, Submitted, Twin, Wakeup, WebhookSecret,
        serving::{Changed, Removed, Renamed, RolledBack, ServingStore, Switched, Switching},
    },
    stream::{ChunkGroup, Outline},
    vendor::Vendor,
};
use secrecy::SecretString;
use tokio::sync::watch;

use crate::platform::SOON;

/// Passes everything on to a real store while it is up.
#[derive(Debug)]
pub(crate) struct FlakyStore {
    inner: SharedStore,
    down: AtomicBool,
    /// How many calls found it down.
    refused: AtomicUsize,
    /// The next call of this name is done, and its answer lost.
    mute: Mutex<Option<&'static str>>,
    /// Calls of this name are not answered.
    stuck: watch::Sender<Option<&'static str>>,
    /// Calls of this name are refused.
    refusing: Mutex<Option<&'static str>>,
    /// Whether paused time stands still during a call.
    still: bool,
}

/// Keeps paused time from running on while a database is at work, which the runtime cannot see.
struct Still {
    _end: std::sync::mpsc::Sender<()>,
}

impl Still {
    fn begin() -> Self {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        // Time stands still while the runtime has a blocking task.
        tokio::task::spawn_blocking(move || ended.recv());
        Self { _end: end }
    }
}

impl FlakyStore {
    pub(crate) fn over(inner: SharedStore, still: bool) -> Self {
        Self {
            inner,
            still,
            down: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
            mute: Mutex::new(None),
            stuck: watch::Sender::new(None),
            refusing: Mutex::new(None),
        }
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// Waits until so many more calls have been refused.
    pub(crate) async fn refuses(&self, n: usize) {
        let enough = self.refused() + n;
        let refused = async {
            while self.refused() < enough {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, refused).await.expect("it is asked again");
    }

    /// The next call of `method` will be done and answered with an error.
    pub(crate) fn lose_answer_of(&self, method: &'static str) {
        *self.mute.lock().unwrap() = Some(method);
    }

    /// The calls of `method` are not answered from now on; `None`: all are again.
    pub(crate) fn get_stuck_at(&self, method: Option<&'static str>) {
        self.stuck.send_replace(method);
    }

    /// The calls of `method` are refused from now on.
    pub(crate) fn refuse(&self, method: &'static str) {
        *self.refusing.lock().unwrap() = Some(method);
    }

    async fn check_method(&self, method: &'static str) -> Result<(), StoreError> {
        self.stuck.subscribe().wait_for(|stuck| *stuck != Some(method)).await.unwrap();
        if *self.refusing.lock().unwrap() == Some(method) {
            return Err(StoreError::Other("refused for a test".into()));
        }
        Ok(())
    }

    fn check_answer(&self, method: &'static str) -> Result<(), StoreError> {
        match self.mute.lock().unwrap().take_if(|mute| *mute == method) {
            Some(_) => Err(StoreError::Unavailable("the answer was lost for a test".into())),
            None => Ok(()),
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.down.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(StoreError::Unavailable("it is down for a test".into()));
        }
        Ok(())
    }
}

macro_rules! forward {
    ($trait:ident { $($name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)+ }) => {
        #[async_trait]
        impl $trait for FlakyStore {
            $(async fn $name(&self, $($arg: $ty),*) -> Result<$out, StoreError> {
                self.check()?;
                self.check_method(stringify!($name)).await?;
                let still = self.still.then(Still::begin);
                let answer = self.inner.$name($($arg),*).await?;
                drop(still);
                self.check_answer(stringify!($name))?;
                Ok(answer)
            })+
        }
    };
}

forward!(JobStore {
    submit(jobs: &[NewJob], publisher: InstanceId) -> Vec<Submitted>;
    claim(ids: &[JobId], instance: InstanceId, now: DateTime<Utc>) -> Vec<Claim>;
    finish(outcomes: &[(Claim, Outcome)], now: DateTime<Utc>) -> Vec<bool>;
    revoked(instance: InstanceId, held: &[(JobId, u32)]) -> Vec<JobId>;
    lent(ids: &[JobId], instance: InstanceId) -> Vec<Claim>;
    strays(
        instance: InstanceId, held: &[(JobId, u32)], before: DateTime<Utc>, limit: u32
    ) -> Vec<Claim>;
    cancel(id: JobId, account: &AccountId, now: DateTime<Utc>) -> Option<Cancelled>;
    expire(now: DateTime<Utc>, limit: u32) -> Vec<Job>;
    take_due(publisher: InstanceId, now: DateTime<Utc>, limit: u32) -> Vec<Wakeup>;
    overdue(lane: Lane, ready_before: DateTime<Utc>, limit: u32) -> Vec<Wakeup>;
    find_jobs(wanted: &[(JobId, AccountId)]) -> Vec<Option<FoundJob>>;
    find_args(id: JobId, account: &AccountId) -> Option<Json>;
    list_jobs(account: &AccountId, filter: &JobFilter, page: &PageRequest<JobId>) -> Page<Job>;
    list_attempts(id: JobId) -> Vec<Attempt>;
    append_chunks(groups: &[(InstanceId, ChunkGroup)]) -> Vec<bool>;
    read_chunks(id: JobId, attempt: u32, from: u64, max_bytes: usize) -> Vec<ChunkGroup>;
    outline(id: JobId, account: &AccountId) -> Option<Outline>;
    find_twin(twin: &Twin, since: DateTime<Utc>) -> Option<Job>;
    count_lanes() -> Vec<LaneCount>;
    remove_finished(before: DateTime<Utc>, limit: u32) -> u64;
});

forward!(InstanceStore {
    register(instance: &NewInstance) -> ();
    heartbeat(id: InstanceId) -> bool;
    judge(grace: Duration) -> Vec<InstanceId>;
    retire(id: InstanceId) -> ();
    retire_others(id: InstanceId) -> ();
    rescue(to: InstanceId, now: DateTime<Utc>, limit: u32) -> Rescued;
    forget_instances(age: Duration) -> u64;
});

forward!(DeliveryStore {
    claim_deliveries(
        instance: InstanceId, now: DateTime<Utc>, limit: u32, per_host: u32, busy: &[String]
    ) -> Vec<DeliveryClaim>;
    finish_delivery(
        claim: &DeliveryClaim, attempt: &DeliveryAttempt, outcome: DeliveryOutcome
    ) -> bool;
    list_deliveries(job: JobId) -> Vec<Delivery>;
    find_delivery(id: DeliveryId, account: &AccountId) -> Option<Delivery>;
    list_delivery_attempts(id: DeliveryId) -> Vec<DeliveryAttempt>;
    redeliver(id: DeliveryId, account: &AccountId, now: DateTime<Utc>) -> Option<Delivery>;
    oldest_due_delivery(now: DateTime<Utc>) -> Option<DateTime<Utc>>;
});

forward!(ModelStore {
    add_model(model: &Model, update: bool) -> Added<Model>;
    find_model(id: ModelId, account: &AccountId) -> Option<Model>;
    find_model_by_name(account: &AccountId, vendor: Vendor, name: &str) -> Option<Model>;
    list_models(
        account: &AccountId, filter: &ModelFilter, page: &PageRequest<ModelId>
    ) -> Page<Model>;
    count_models(account: &AccountId, filter: &ModelFilter) -> u64;
    add_model_server(server: &ModelServer, by: Option<&str>) -> Option<Added<ModelServer>>;
    find_model_server(id: ModelServerId, account: &AccountId) -> Option<ModelServer>;
    find_model_server_by_alias(alias: &str, account: &AccountId) -> Option<ModelServer>;
    list_model_servers(account: &AccountId) -> Vec<ModelServer>;
});

forward!(ServingStore {
    find_any_model(id: ModelId) -> Option<Model>;
    replace_model(old: &Model, new: &Model) -> Changed;
    rename_model(id: ModelId, account: &AccountId, name: &str, swap: bool) -> Renamed;
    delete_model(id: ModelId, account: &AccountId) -> Removed;
    switch_model_server(
        id: ModelServerId, account: &AccountId, to: &str, switching: Switching<'_>
    ) -> Switched;
    roll_back_model_server(
        id: ModelServerId, account: &AccountId, switching: Switching<'_>
    ) -> RolledBack;
    delete_model_server(id: ModelServerId, account: &AccountId) -> bool;
    list_backends(id: ModelServerId) -> Vec<ServerBackend>;
    put_sighting(sighting: &Sighting) -> ();
    sightings(models: &[ModelId], since: DateTime<Utc>) -> Vec<Sighting>;
});

forward!(CredentialStore {
    put_credential(new: &NewCredential) -> Added<SealedCredential>;
    find_credential(account: &AccountId, name: &CredentialName) -> Option<SealedCredential>;
    find_default_credential(account: &AccountId, vendor: Vendor) -> Option<SealedCredential>;
    list_credentials(
        account: &AccountId, vendor: Option<Vendor>, page: &PageRequest<CredentialId>
    ) -> Page<SealedCredential>;
    all_credentials(after: Option<CredentialId>, limit: u32) -> Vec<SealedCredential>;
    reseal_credential(id: CredentialId, version: i64, envelope: &Envelope) -> bool;
    delete_credential(account: &AccountId, name: &CredentialName) -> Option<CredentialId>;
});

forward!(AccountStore {
    ensure_account(id: &AccountId, secret: &SecretString, now: DateTime<Utc>) -> ();
    account_exists(id: &AccountId) -> bool;
    add_key(key: &ApiKey) -> bool;
    find_key(hash: &KeyHash) -> Option<ApiKey>;
    list_keys(account: Option<&AccountId>) -> Vec<ApiKey>;
    revoke_key(id: ApiKeyId, now: DateTime<Utc>) -> bool;
    rotate_webhook_secret(
        account: &AccountId, new: &SecretString, now: DateTime<Utc>, old_expires_at: DateTime<Utc>
    ) -> bool;
    list_webhook_secrets(account: &AccountId, now: DateTime<Utc>) -> Vec<WebhookSecret>;
});

#[async_trait]
impl Store for FlakyStore {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.check()?;
        self.inner.ping().await
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        self.inner.migrate().await
    }

    async fn check_migrated(&self) -> Result<(), StoreError> {
        self.inner.check_migrated().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
