//! A store, a broker and as many workers as a story needs.

use std::{future::Future, slice::from_ref, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use inferq_common::{
    broker::{Event, Message, SharedBroker, memory::MemoryBroker},
    clock::{Clock, SystemClock, to_micros},
    config::{Config, RetentionConfig},
    credential::MasterKeys,
    credential_source::CredentialSource,
    id::{AccountId, InstanceId, JobId},
    inbox::{Handlers, InboxHub},
    instance::{CurrentInstance, Identity, keep_alive},
    job::{Attempt, Job, JobResult, JobStatus, Json, Lane, NewJob, Priority},
    publisher::Publisher,
    shutdown::Shutdown,
    store::{
        AccountStore as _, Cancelled, Claim, JobStore as _, NewInstance, SharedStore, Store as _,
        Submitted, Wakeup, path::JobPath, sqlite::SqliteStore,
    },
    sweeper::Sweeper,
    testing::queued_job,
    vendor::Vendor,
};
use inferq_vendors::{Adapter, Registry};
use inferq_worker::{Intake, Running, Worker};
use secrecy::SecretString;
use tokio::{
    runtime::{Builder, EnterGuard, Handle, Runtime},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{flaky::FlakyStore, vendor::TestVendor};

/// Longer than anything here takes.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// The lane of jobs, unless they have another priority.
const LANE: Lane = Lane { vendor: Vendor::OpenAi, priority: Priority::Normal };

pub(crate) struct Platform {
    pub(crate) store: Arc<FlakyStore>,
    pub(crate) broker: SharedBroker,
    pub(crate) vendor: Arc<TestVendor>,
    pub(crate) publisher: Publisher,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) account: AccountId,
    /// Who submits: an api that is alive and does nothing else.
    pub(crate) api: InstanceId,
    config: Config,
    /// An adapter for each of the vendor's keys.
    keys: Vec<Arc<dyn Adapter>>,
    /// Whether workers run on the test's own runtime.
    still: bool,
    _tasks: JoinSet<()>,
    _folder: tempfile::TempDir,
}

impl Platform {
    pub(crate) async fn start() -> Self {
        let vendor = TestVendor::new();
        let keys = vec![Arc::clone(&vendor) as Arc<_>];
        Self::start_on(Arc::new(SystemClock), vendor, keys, false).await
    }

    /// With `adapter` for a vendor.
    pub(crate) async fn start_with(adapter: Arc<dyn Adapter>) -> Self {
        Self::start_on(Arc::new(SystemClock), TestVendor::new(), vec![adapter], false).await
    }

    /// On the test's own runtime, whose time is paused from now on, with `adapter` for a vendor.
    pub(crate) async fn start_still(adapter: Arc<dyn Adapter>) -> Self {
        Self::start_still_with_keys(vec![adapter]).await
    }

    /// As [`Self::start_still`], with an adapter for each of the vendor's keys.
    pub(crate) async fn start_still_with_keys(keys: Vec<Arc<dyn Adapter>>) -> Self {
        let clock = Arc::new(TokioClock(Instant::now(), Handle::current()));
        Self::start_on(clock, TestVendor::new(), keys, true).await
    }

    async fn start_on(
        clock: Arc<dyn Clock>,
        vendor: Arc<TestVendor>,
        keys: Vec<Arc<dyn Adapter>>,
        still: bool,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::load(None).unwrap();
        let file = folder.path().join("inferq.db");
        config.database.url = SecretString::from(format!("sqlite://{}", file.display()));
        config.worker.shutdown_grace_secs = 10;
        let store = SqliteStore::open_with_clock(&config.database, Arc::clone(&clock)).unwrap();
        store.migrate().await.unwrap();
        let account: AccountId = "acme".parse().unwrap();
        let secret = SecretString::from("whsec_c2VjcmV0".to_owned());
        store.ensure_account(&account, &secret, clock.now()).await.unwrap();
        let api = CurrentInstance::new(InstanceId::new(clock.now()));
        if still {
            tokio::time::pause();
        }
        let inner: SharedStore = Arc::new(store);
        let store = Arc::new(FlakyStore::over(Arc::clone(&inner), still));
        // The api lives on though the workers' store is away.
        let of_api = if still { Arc::clone(&store) as SharedStore } else { inner };
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_alive(
            of_api,
            Arc::clone(&clock),
            Identity { role: "api", host: "test".into(), alone: false },
            api.clone(),
            CancellationToken::new(),
        ));
        timeout(SOON, api.fresh()).await.expect("it registers");
        let broker: SharedBroker = Arc::new(MemoryBroker::new());
        Self {
            store,
            publisher: Publisher::start(Arc::clone(&broker)),
            broker,
            keys,
            vendor,
            still,
            clock,
            account,
            api: api.id(),
            config,
            _tasks: tasks,
            _folder: folder,
        }
    }

    pub(crate) fn shared_store(&self) -> SharedStore {
        Arc::clone(&self.store) as SharedStore
    }

    /// Stores a job for `model` and publishes it.
    pub(crate) async fn submit(&self, model: &str, edit: impl FnOnce(&mut Job)) -> JobId {
        let job = self.add(model, edit).await;
        self.publish(&job);
        job.id
    }

    pub(crate) fn publish(&self, job: &Job) {
        let (job_id, lane, reply_to) = (job.id, job.lane(), job.reply_to);
        self.publisher.publish(Wakeup { job_id, lane, attempt: 0, reply_to }, None);
    }

    /// Publishes for a job that need not be stored yet, before it returns.
    pub(crate) async fn publish_ahead(&self, job_id: JobId) {
        let message = Message { job_id, attempt: 0, reply_to: None, trace: None, ahead: true };
        self.broker.publish(LANE, &message).await.unwrap();
    }

    /// How many messages wait in the lane of jobs.
    pub(crate) async fn depth(&self) -> u64 {
        self.broker.depth(LANE).await.unwrap().ready
    }

    /// Stores a job for `model`, and no one is told.
    pub(crate) async fn add(&self, model: &str, edit: impl FnOnce(&mut Job)) -> Job {
        let new = self.a_job(model, edit);
        assert_eq!(self.store.submit(from_ref(&new), self.api).await.unwrap(), [Submitted::Added]);
        new.job
    }

    /// Stores a job for `model` that is lent to `worker`, and no one is told.
    pub(crate) async fn lend(
        &self,
        model: &str,
        worker: InstanceId,
        edit: impl FnOnce(&mut Job),
    ) -> Claim {
        let new = NewJob { lend_to: Some(worker), ..self.a_job(model, edit) };
        assert_eq!(self.store.submit(from_ref(&new), self.api).await.unwrap(), [Submitted::Lent]);
        Claim::lent(&new, worker)
    }

    fn a_job(&self, model: &str, edit: impl FnOnce(&mut Job)) -> NewJob {
        let now = self.clock.now();
        let mut job =
            Job { account: self.account.clone(), model: model.to_owned(), ..queued_job(now) };
        edit(&mut job);
        let args = Json::parse(format!(r#"{{"job":"{}"}}"#, job.id)).unwrap();
        NewJob { job, args, idempotency: None, lend_to: None }
    }

    pub(crate) async fn find(&self, id: JobId) -> (Job, JobResult) {
        let (job, result) = self.store.find_job(id, &self.account).await.unwrap().unwrap();
        (job, result.unwrap_or_default())
    }

    /// Waits until the job has `status`.
    pub(crate) async fn reaches(&self, id: JobId, status: JobStatus) -> (Job, JobResult) {
        let reached = eventually(async || {
            let (job, result) = self.find(id).await;
            (job.status == status).then_some((job, result))
        });
        if let Ok(found) = timeout(SOON, reached).await {
            return found;
        }
        panic!("job is {} and not {status}", self.find(id).await.0.status)
    }

    pub(crate) async fn attempts(&self, id: JobId) -> Vec<Attempt> {
        self.store.list_attempts(id).await.unwrap()
    }

    pub(crate) async fn cancel(&self, id: JobId) -> Option<InstanceId> {
        match self.store.cancel(id, &self.account, self.clock.now()).await.unwrap().unwrap() {
            Cancelled::Now { ran_at, .. } => ran_at,
            Cancelled::Already(job) => panic!("job is {} already", job.status),
        }
    }

    /// A worker process, with its sweeper.
    pub(crate) async fn worker(&self) -> TestWorker {
        self.worker_with(|_| {}).await
    }

    pub(crate) async fn worker_with(&self, edit: impl FnOnce(&mut Config)) -> TestWorker {
        let worker = self.build(edit);
        timeout(SOON, worker.instance.fresh()).await.expect("it registers");
        worker
    }

    fn build(&self, edit: impl FnOnce(&mut Config)) -> TestWorker {
        let mut config = self.config.clone();
        edit(&mut config);
        let process = if self.still { Process(None) } else { Process::start() };
        let _on_it = process.enter();
        let (store, clock) = (self.shared_store(), Arc::clone(&self.clock));
        let instance = CurrentInstance::new(InstanceId::new(clock.now()));
        let running = Running::default();
        let intake = Intake::default();
        let worker = Worker {
            intake: intake.clone(),
            ..self.assemble(config, instance.clone(), running.clone(), Arc::default())
        };
        let (shutdown, retire) = (Shutdown::new(), CancellationToken::new());
        let hub = InboxHub::start(
            Arc::clone(&self.broker),
            instance.clone(),
            Handlers {
                cancel: Arc::new(move |job, attempt| running.cancel(job, attempt)),
                lent: Arc::new(move |event| intake.take(event)),
                ..Handlers::default()
            },
            shutdown.clone(),
        );
        let identity = Identity { role: "worker", host: "test".into(), alone: false };
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_alive(store, clock, identity, instance.clone(), retire.clone()));
        tasks.spawn(self.sweeper(instance.clone()).run(shutdown.clone()));
        let mut work = JoinSet::new();
        work.spawn(inferq_worker::run(worker, shutdown.clone()));
        TestWorker { process, instance, shutdown, retire, work, tasks, hub }
    }

    /// The parts of a worker, of which none is at work.
    pub(crate) fn idle_worker(&self, keys: Arc<MasterKeys>) -> Worker {
        let instance = CurrentInstance::new(self.api);
        self.assemble(self.config.clone(), instance, Running::default(), keys)
    }

    fn assemble(
        &self,
        config: Config,
        instance: CurrentInstance,
        running: Running,
        keys: Arc<MasterKeys>,
    ) -> Worker {
        let (store, clock) = (self.shared_store(), Arc::clone(&self.clock));
        let registry = Registry::of_keys([(Vendor::OpenAi, self.keys.clone())]);
        let path = JobPath::start(Arc::clone(&store), Arc::clone(&clock), instance.clone(), 64);
        Worker {
            credentials: CredentialSource::new(Arc::clone(&store), keys),
            store,
            broker: Arc::clone(&self.broker),
            publisher: self.publisher.clone(),
            path,
            instance,
            running,
            intake: Intake::default(),
            registry,
            config: config.worker,
            callbacks: config.callbacks,
            public_url: "http://127.0.0.1:8080".parse().unwrap(),
            clock,
        }
    }

    pub(crate) fn sweeper(&self, instance: CurrentInstance) -> Sweeper {
        Sweeper {
            store: self.shared_store(),
            broker: Arc::clone(&self.broker),
            publisher: self.publisher.clone(),
            instance,
            clock: Arc::clone(&self.clock),
            retention: RetentionConfig { job_hours: 1 },
        }
    }

    /// The events for one instance, from now on.
    pub(crate) async fn inbox_of(&self, id: InstanceId) -> Events {
        Events(self.broker.inbox(id).await.unwrap())
    }
}

pub(crate) struct Events(Box<dyn inferq_common::broker::Inbox>);

impl Events {
    pub(crate) async fn next(&mut self) -> Event {
        timeout(SOON, self.0.next()).await.expect("an event comes in time").unwrap()
    }
}

/// A clock that goes with tokio's, which tests pause; also for threads that are none of tokio's.
#[derive(Debug)]
struct TokioClock(Instant, Handle);

impl Clock for TokioClock {
    fn now(&self) -> DateTime<Utc> {
        let _paused = self.1.enter();
        let start = DateTime::from_timestamp(1_900_000_000, 0).unwrap();
        to_micros(start + TimeDelta::from_std(self.0.elapsed()).unwrap())
    }
}

/// A runtime of its own, so that all of it can vanish at once; `None`: the test's.
struct Process(Option<Runtime>);

impl Process {
    fn start() -> Self {
        Self(Some(Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()))
    }

    fn enter(&self) -> Option<EnterGuard<'_>> {
        self.0.as_ref().map(Runtime::enter)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) struct TestWorker {
    process: Process,
    pub(crate) instance: CurrentInstance,
    pub(crate) shutdown: Shutdown,
    retire: CancellationToken,
    work: JoinSet<()>,
    tasks: JoinSet<()>,
    hub: InboxHub,
}

impl TestWorker {
    /// Stops as a process does: the worker, then all that serves it.
    pub(crate) async fn stop(mut self) {
        self.shutdown.soft.cancel();
        timeout(SOON, self.work.join_next()).await.expect("it stops in time").unwrap().unwrap();
        self.retire.cancel();
        timeout(SOON, self.tasks.join_all()).await.expect("all else stops in time");
        self.hub.close().await;
    }

    pub(crate) async fn hard_stop(self) {
        self.shutdown.hard.cancel();
        self.stop().await;
    }

    /// Is gone without a word, like a process that was killed.
    pub(crate) fn kill(self) {
        drop(self.process);
    }
}

pub(crate) fn instance(id: InstanceId) -> NewInstance {
    NewInstance { id, role: "api", host: "test".into() }
}

/// Asks again and again until there is an answer; put it under a timeout.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(mut ask: impl FnMut() -> F) -> T {
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
