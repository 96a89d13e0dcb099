//! A store, a dispatcher and receivers that behave as badly as real ones.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use inferq_common::{
    callback::{Delivery, DeliveryAttempt, DeliveryStatus},
    clock::{Clock as _, ManualClock, SystemClock},
    config::{CallbacksConfig, DatabaseConfig},
    egress::Guard,
    id::{AccountId, DeliveryId, InstanceId, JobId},
    instance::CurrentInstance,
    job::{Job, Json, NewJob, Outcome},
    shutdown::Shutdown,
    store::{NewInstance, SharedStore, sqlite::SqliteStore},
    testing::queued_job,
    usage::Usage,
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::Notify,
    task::JoinSet,
};

use super::super::{Callbacks, run};

/// Nothing in these tests takes longer, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Bench {
    pub(super) store: SharedStore,
    pub(super) clock: Arc<ManualClock>,
    pub(super) instance: InstanceId,
    pub(super) account: AccountId,
    pub(super) secret: SecretString,
    pub(super) due: Arc<Notify>,
    pub(super) shutdown: Shutdown,
    running: JoinSet<()>,
    _folder: tempfile::TempDir,
}

pub(super) fn config() -> CallbacksConfig {
    CallbacksConfig {
        allow_networks: vec!["127.0.0.0/8".parse().unwrap()],
        concurrency: 8,
        per_host: 4,
        timeout_ms: 15_000,
    }
}

impl Bench {
    pub(super) async fn start(config: CallbacksConfig) -> Self {
        // The verifier compares with the real clock.
        Self::start_at(SystemClock.now(), config).await
    }

    /// A store with one account and one instance, and a dispatcher on it.
    pub(super) async fn start_at(now: DateTime<Utc>, config: CallbacksConfig) -> Self {
        let mut bench = Self::idle(now);
        bench.prepare().await;
        bench.run(config);
        bench
    }

    /// A dispatcher on a store without tables.
    pub(super) async fn start_unmigrated(config: CallbacksConfig) -> Self {
        let mut bench = Self::idle(SystemClock.now());
        bench.run(config);
        let asked = bench.store.oldest_due_delivery(bench.clock.now()).await;
        assert!(asked.is_err());
        bench
    }

    fn idle(now: DateTime<Utc>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/jobs.db", folder.path().display());
        let store: SharedStore = Arc::new(
            SqliteStore::open(&DatabaseConfig {
                url: url.into(),
                max_connections: 4,
                acquire_timeout_ms: 5_000,
                max_group: 64,
            })
            .unwrap(),
        );
        Self {
            store,
            clock: Arc::new(ManualClock::at(now)),
            instance: InstanceId::new(now),
            account: "default".parse().unwrap(),
            secret: SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            due: Arc::new(Notify::new()),
            shutdown: Shutdown::new(),
            running: JoinSet::new(),
            _folder: folder,
        }
    }

    pub(super) async fn prepare(&self) {
        self.store.migrate().await.unwrap();
        let host = "test".to_owned();
        let instance = NewInstance { id: self.instance, role: "worker", host };
        self.store.register(&instance).await.unwrap();
        let now = self.clock.now();
        self.store.ensure_account(&self.account, &self.secret, now).await.unwrap();
    }

    fn run(&mut self, config: CallbacksConfig) {
        let parts = Callbacks {
            store: Arc::clone(&self.store),
            instance: CurrentInstance::new(self.instance),
            guard: Arc::new(Guard::new(config.allow_networks.clone())),
            config,
            public_url: "https://inferq.example/base/".parse().unwrap(),
            clock: Arc::clone(&self.clock) as _,
            due: Arc::clone(&self.due),
        };
        self.running.spawn(run(parts, self.shutdown.clone()));
    }

    /// A succeeded job whose callback is owed to `url`.
    pub(super) async fn owe(&self, url: &str) -> DeliveryId {
        self.owe_for(url, r#"{"answer":42}"#).await.1
    }

    pub(super) async fn owe_for(&self, url: &str, response: &str) -> (JobId, DeliveryId) {
        let now = self.clock.now();
        let job = job(&self.account, url, now);
        let id = job.id;
        let args = Json::parse("{}").unwrap();
        self.store
            .submit(&[NewJob { job, args, idempotency: None, lend_to: None }], self.instance)
            .await
            .unwrap();
        let claim = self.store.claim(&[id], self.instance, now).await.unwrap().remove(0);
        let outcome = Outcome::Succeeded {
            response: Json::parse(response).unwrap(),
            usage: Usage { input_tokens: Some(3), ..Usage::default() },
            vendor_request_id: None,
        };
        assert_eq!(self.store.finish(&[(claim, outcome)], now).await.unwrap(), [true]);
        let delivery = self.store.list_deliveries(id).await.unwrap().remove(0).id;
        self.due.notify_one();
        (id, delivery)
    }

    pub(super) async fn delivery(&self, id: DeliveryId) -> Delivery {
        self.store.find_delivery(id, &self.account).await.unwrap().unwrap()
    }

    pub(super) async fn attempts(&self, id: DeliveryId) -> Vec<DeliveryAttempt> {
        self.store.list_delivery_attempts(id).await.unwrap()
    }

    /// Waits until the delivery has `number` recorded attempts, and answers the last.
    #[track_caller]
    pub(super) fn attempt(
        &self,
        id: DeliveryId,
        number: usize,
    ) -> impl Future<Output = DeliveryAttempt> {
        eventually(format!("attempt {number}"), async move || {
            let mut attempts = self.attempts(id).await;
            (attempts.len() >= number).then(|| attempts.remove(number - 1))
        })
    }

    #[track_caller]
    pub(super) fn reaches(
        &self,
        id: DeliveryId,
        status: DeliveryStatus,
    ) -> impl Future<Output = Delivery> {
        eventually(format!("status {status}"), async move || {
            Some(self.delivery(id).await).filter(|delivery| delivery.status == status)
        })
    }

    /// Moves the clock and wakes the dispatcher.
    pub(super) fn advance(&self, by: TimeDelta) {
        self.clock.advance(by);
        self.due.notify_one();
    }

    /// Waits until the dispatcher has looked at all that is due now.
    pub(super) async fn settle(&self, receiver: &str) {
        let fence = self.owe(receiver).await;
        self.reaches(fence, DeliveryStatus::Delivered).await;
    }

    /// Waits for the dispatcher to return.
    pub(super) async fn stopped(&mut self) {
        let ended = tokio::time::timeout(PATIENCE, self.running.join_next()).await;
        ended.expect("it stops").expect("it ran").expect("it did not panic");
    }

    pub(super) fn verifier(&self) -> standardwebhooks::Webhook {
        standardwebhooks::Webhook::new(self.secret.expose_secret()).unwrap()
    }
}

fn job(account: &AccountId, url: &str, now: DateTime<Utc>) -> Job {
    Job {
        account: account.clone(),
        callback_url: Some(url.to_owned()),
        metadata: Some(Json::parse(r#"{"order":12345678901234567890}"#).unwrap()),
        ..queued_job(now)
    }
}

/// Asks until there is an answer.
#[track_caller]
pub(super) fn eventually<T>(
    what: String,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let asking = async {
            loop {
                if let Some(answer) = ask().await {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let answer = tokio::time::timeout(PATIENCE, asking).await;
        answer.unwrap_or_else(|_| panic!("{what} never came ({caller})"))
    }
}

/// A receiver on a plain socket.
pub(super) struct Receiver {
    pub(super) port: u16,
    pub(super) connections: Arc<AtomicUsize>,
    pub(super) bytes_sent: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Receiver {
    /// Takes connections and never answers.
    pub(super) async fn that_hangs(address: &str) -> Self {
        Self::that_sends(address, b"", b"").await
    }

    /// Reads some of each request, sends `head`, then `body` again and again while it is taken;
    /// never closes.
    pub(super) async fn that_sends(
        address: &str,
        head: &'static [u8],
        body: &'static [u8],
    ) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, bytes_sent) = (Arc::<AtomicUsize>::default(), Arc::default());
        let mut tasks = JoinSet::new();
        let (n_connections, n_bytes) = (Arc::clone(&connections), Arc::clone(&bytes_sent));
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                n_connections.fetch_add(1, Ordering::SeqCst);
                let n_bytes: Arc<AtomicUsize> = Arc::clone(&n_bytes);
                open.spawn(async move {
                    let mut request = [0; 1024];
                    let _ = socket.read(&mut request).await;
                    let _ = socket.write_all(head).await;
                    while !body.is_empty() && socket.write_all(body).await.is_ok() {
                        n_bytes.fetch_add(body.len(), Ordering::SeqCst);
                    }
                    if body.is_empty() {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Self { port, connections, bytes_sent, _tasks: tasks }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}
