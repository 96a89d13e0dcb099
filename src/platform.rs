//! What every serving process is made of, put together once.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use inferq_api::{Api, Rooms, UpstreamModels, Waiters};
use inferq_common::{
    account::{self, ApiKey, KeyHash},
    broker::{self, SharedBroker},
    callback,
    clock::{Clock, SystemClock},
    config::{Config, DatabaseConfig},
    credential::MasterKeys,
    credential_source::CredentialSource,
    egress::Guard,
    heartbeat::Heartbeat,
    id::{ApiKeyId, InstanceId},
    inbox::{Handlers, InboxHub},
    instance::{CurrentInstance, Identity},
    publisher::Publisher,
    shutdown::Shutdown,
    store::{self, Reason, SharedStore, StoreError, path::JobPath},
    sweeper::Sweeper,
    telemetry,
};
use inferq_vendors::Registry;
use inferq_worker::{Intake, Running, Worker};
use ipnet::IpNet;
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::info;
use url::Url;

use crate::{
    exit::{Failure, code},
    stop::until_told,
};

/// How long a start waits for a store that is still starting itself.
const STORE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a stop waits for messages that the broker has not confirmed; others publish the rest.
const PUBLISH_GRACE: Duration = Duration::from_secs(2);

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    name: &'static str,
    api: bool,
    worker: bool,
    /// It owns its store alone, and so brings it up to date by itself.
    alone: bool,
}

impl Roles {
    pub const DEV: Self = Self { name: "dev", api: true, worker: true, alone: true };
    pub const API: Self = Self { name: "api", api: true, worker: false, alone: false };
    pub const WORKER: Self = Self { name: "worker", api: false, worker: true, alone: false };
}

/// Loads the configuration of a process that serves.
pub fn load(file: Option<&Path>) -> Result<Config, Failure> {
    Ok(Config::load(file)?)
}

/// `inferq api` and `inferq worker` need a store and a broker that several processes can share.
pub fn refuse_single_process(config: &Config, role: &str) -> Result<(), Failure> {
    let missing = match (config.database.is_sqlite(), config.broker.is_in_process()) {
        (false, false) => return Ok(()),
        (true, true) => "INFERQ__DATABASE__URL (postgres://…) and INFERQ__BROKER__URL (amqp://…)",
        (true, false) => "INFERQ__DATABASE__URL (postgres://…)",
        (false, true) => "INFERQ__BROKER__URL (amqp://…)",
    };
    Err(Failure::new(
        code::CONFIG,
        format!(
            "`inferq {role}` shares a store and a broker with others: set {missing}, or run `inferq dev`"
        ),
    ))
}

/// The networks of this machine itself.
pub fn loopback() -> [IpNet; 2] {
    [
        IpNet::from(ipnet::Ipv4Net::new_assert([127, 0, 0, 0].into(), 8)),
        IpNet::from(std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST)),
    ]
}

/// A process that is ready to serve.
#[derive(Debug)]
pub struct Platform {
    config: Config,
    roles: Roles,
    store: SharedStore,
    broker: SharedBroker,
    publisher: Publisher,
    path: JobPath,
    instance: CurrentInstance,
    clock: Arc<dyn Clock>,
    metrics: PrometheusHandle,
    registry: Registry,
    master_keys: Arc<MasterKeys>,
    credentials: CredentialSource,
    /// Where the api listens, or the worker's health and metrics.
    listener: Option<(TcpListener, SocketAddr)>,
    heartbeat: Heartbeat,
}

impl Platform {
    /// Opens store and broker, and registers this process.
    pub async fn start(config: Config, roles: Roles) -> Result<Self, Failure> {
        telemetry::init(&config.log)?;
        let metrics = telemetry::install_metrics();
        info!(
            role = roles.name,
            version = env!("CARGO_PKG_VERSION"),
            settings = config.redacted(),
            "inferq starts"
        );
        let master_keys = Arc::new(config.secrets.master_keys()?);
        let listen = if roles.api { Some(config.api.listen) } else { config.worker.listen };
        let listener = match listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let registry =
            Registry::new(&config).map_err(|error| Failure::new(code::CONFIG, chain(&error)))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = if roles.alone {
            let store = store::open(&config.database).map_err(|error| store_failure(&error))?;
            store.migrate().await.map_err(|error| database_failure(&config, &error))?;
            store
        } else {
            open_store(&config).await?
        };
        let broker = broker::open(&config.broker);
        let instance = CurrentInstance::new(InstanceId::new(clock.now()));
        let identity = Identity { role: roles.name, host: host_name(), alone: roles.alone };
        let heartbeat = Heartbeat::start(
            &config.database,
            &store,
            Arc::clone(&clock),
            identity,
            instance.clone(),
        )
        .await
        .map_err(|error| Failure::new(code::SYSTEM, chain(&error)))?;
        if timeout(STORE_PATIENCE, instance.fresh()).await.is_err() {
            return Err(Failure::new(code::UNAVAILABLE, "the store did not register this process"));
        }
        let credentials = CredentialSource::new(Arc::clone(&store), Arc::clone(&master_keys));
        let publisher = Publisher::start(Arc::clone(&broker));
        let max_group = config.database.max_group;
        let path =
            JobPath::start(Arc::clone(&store), Arc::clone(&clock), instance.clone(), max_group);
        let platform = Self {
            config,
            roles,
            store,
            broker,
            publisher,
            path,
            instance,
            clock,
            metrics,
            registry,
            master_keys,
            credentials,
            listener,
            heartbeat,
        };
        if let Some(key) = platform.config.auth.bootstrap_key.clone() {
            platform.ensure_key(&key, "bootstrap").await?;
        }
        Ok(platform)
    }

    /// Where the api listens; `--listen 127.0.0.1:0` has chosen a port by now.
    pub fn address(&self) -> SocketAddr {
        self.listener.as_ref().map_or(self.config.api.listen, |(_, address)| *address)
    }

    /// Makes this key of the default account exist. One that was revoked stays revoked.
    pub async fn ensure_key(&self, key: &SecretString, name: &str) -> Result<(), Failure> {
        let now = self.clock.now();
        let account = self.config.auth.default_account.clone();
        let secret = callback::generate_secret(&mut rand::rng());
        let failed = |error| database_failure(&self.config, &error);
        self.store.ensure_account(&account, &secret, now).await.map_err(failed)?;
        let record = ApiKey {
            id: ApiKeyId::new(now),
            account,
            other_accounts: Vec::new(),
            name: name.to_owned(),
            prefix: account::key_prefix(key),
            hash: KeyHash::of(key),
            created_at: now,
            revoked_at: None,
        };
        self.store.add_key(&record).await.map_err(failed)?;
        Ok(())
    }

    /// Serves until the process is told to stop, then stops in good order: first the api, so that
    /// its callers still get their results, then the worker, then what both stand on.
    pub async fn run(mut self) -> Result<(), Failure> {
        let (api_stop, worker_stop) = (Shutdown::new(), Shutdown::new());
        let waiters = Waiters::default();
        let rooms = Rooms::default();
        let running = Running::default();
        let intake = Intake::default();
        let hub = InboxHub::start(
            Arc::clone(&self.broker),
            self.instance.clone(),
            handlers((&waiters, &rooms), (&running, &intake)),
            worker_stop.clone(),
        );
        let mut fronts = JoinSet::new();
        let mut backs = JoinSet::new();
        // Without a reader its histograms would keep every measurement.
        let upkeep = telemetry::keep_up(self.metrics.clone());
        let stopped = worker_stop.soft.clone();
        backs.spawn(async move {
            stopped.run_until_cancelled(upkeep).await;
        });
        backs.spawn(self.sweeper().run(worker_stop.clone()));
        if self.roles.worker {
            backs.spawn(inferq_worker::run(self.worker(running, intake), worker_stop.clone()));
        }
        if let Some((listener, _)) = self.listener.take() {
            let stop = api_stop.clone();
            if self.roles.api {
                let api = self.api(waiters, rooms);
                fronts.spawn(async move { inferq_api::serve(api, listener, stop).await });
            } else {
                let router = inferq_api::routes::health::operator_router(
                    Arc::clone(&self.store),
                    Arc::clone(&self.broker),
                    self.metrics.clone(),
                );
                fronts.spawn(async move {
                    inferq_api::serve_operators(router, listener, stop).await;
                    Ok(())
                });
            }
        }

        let result = until_told(&mut fronts, &mut backs, &api_stop, &worker_stop).await;
        self.close(&hub).await;
        info!("inferq has stopped");
        result
    }

    fn sweeper(&self) -> Sweeper {
        Sweeper {
            store: Arc::clone(&self.store),
            broker: Arc::clone(&self.broker),
            publisher: self.publisher.clone(),
            instance: self.instance.clone(),
            clock: Arc::clone(&self.clock),
            retention: self.config.retention.clone(),
        }
    }

    fn worker(&self, running: Running, intake: Intake) -> Worker {
        Worker {
            store: Arc::clone(&self.store),
            broker: Arc::clone(&self.broker),
            publisher: self.publisher.clone(),
            path: self.path.clone(),
            instance: self.instance.clone(),
            running,
            intake,
            registry: self.registry.clone(),
            credentials: self.credentials.clone(),
            config: self.config.worker.clone(),
            callbacks: self.config.callbacks.clone(),
            public_url: self.public_url(),
            clock: Arc::clone(&self.clock),
        }
    }

    fn api(&self, waiters: Waiters, rooms: Rooms) -> Api {
        Api {
            store: Arc::clone(&self.store),
            broker: Arc::clone(&self.broker),
            publisher: self.publisher.clone(),
            path: self.path.clone(),
            instance: self.instance.clone(),
            waiters,
            rooms,
            config: self.config.api.clone(),
            upstream: UpstreamModels::of(&self.config),
            guard: Guard::new(self.config.callbacks.allow_networks.clone()),
            master_keys: Arc::clone(&self.master_keys),
            clock: Arc::clone(&self.clock),
            metrics: self.metrics.clone(),
        }
    }

    /// How clients reach the api, as far as anyone said.
    fn public_url(&self) -> Url {
        self.config.api.public_url.clone().unwrap_or_else(|| {
            let listen = if self.roles.api { self.address() } else { self.config.api.listen };
            Url::parse(&format!("http://{listen}")).expect("an address and port make a URL")
        })
    }

    /// Lets go of everything, the heartbeat last: until then what is in hand is this process's.
    async fn close(self, hub: &InboxHub) {
        self.path.close().await;
        self.publisher.close(PUBLISH_GRACE).await;
        hub.close().await;
        self.heartbeat.stop().await;
        self.broker.close(PUBLISH_GRACE).await;
        self.store.close().await;
    }
}

/// What the inbox hands to the api and to the worker.
fn handlers(api: (&Waiters, &Rooms), worker: (&Running, &Intake)) -> Handlers {
    let (waiters, rooms) = (api.0.clone(), api.1.clone());
    let (running, intake) = (worker.0.clone(), worker.1.clone());
    Handlers {
        job_event: Arc::new(move |event| {
            rooms.note(&event);
            waiters.take(event);
        }),
        cancel: Arc::new(move |job, attempt| running.cancel(job, attempt)),
        lent: Arc::new(move |event| intake.take(event)),
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Failure> {
    let bound = TcpListener::bind(address).await.and_then(|listener| {
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    bound.map_err(|error| {
        let hint = if error.kind() == std::io::ErrorKind::AddrInUse {
            "something listens there already: stop it, or choose another with --listen"
        } else {
            "choose another with --listen"
        };
        Failure::new(code::SYSTEM, format!("cannot listen at {address}: {error}; {hint}"))
    })
}

/// Opens the configured store and makes sure that its tables are there.
pub async fn open_store(config: &Config) -> Result<SharedStore, Failure> {
    let store = store::open(&config.database).map_err(|error| store_failure(&error))?;
    let begun = Instant::now();
    loop {
        match store.check_migrated().await {
            Ok(()) => return Ok(store),
            Err(StoreError::Unavailable(_)) if begun.elapsed() < STORE_PATIENCE => {
                sleep(Duration::from_millis(200)).await;
            }
            Err(error) => return Err(database_failure(config, &error)),
        }
    }
}

/// What a failing store means for a command.
pub fn store_failure(error: &StoreError) -> Failure {
    let code = match error {
        StoreError::Unavailable(_) | StoreError::NotMigrated(_) => code::UNAVAILABLE,
        StoreError::Corrupt { .. } | StoreError::Other(_) => code::INTERNAL,
    };
    Failure::new(code, chain(error))
}

/// The same, knowing which store it is.
pub fn database_failure(config: &Config, error: &StoreError) -> Failure {
    match error {
        StoreError::Unavailable(_) if !config.database.is_sqlite() => {
            let place = place(&config.database);
            let (words, advice) = match error.reason() {
                Reason::Tls(words) => (
                    format!("TLS failed: {words}"),
                    "correct INFERQ__DATABASE__URL, or trust the server's authority with SSL_CERT_FILE",
                ),
                Reason::Login(words) => (words, "correct INFERQ__DATABASE__URL"),
                Reason::Other(words) => (words, "start one or run `inferq dev`"),
            };
            Failure::new(
                code::UNAVAILABLE,
                format!("cannot use Postgres at {place}: {words}; {advice}"),
            )
        }
        StoreError::Unavailable(_) if config.database.is_sqlite() => Failure::new(
            code::SYSTEM,
            format!(
                "cannot use {}: {}; is there room on its disk, and may this user write there?",
                place(&config.database),
                error.reason()
            ),
        ),
        // A file that another program made is refused as a statement.
        StoreError::Other(_) if config.database.is_sqlite() => Failure::new(
            code::SYSTEM,
            format!("cannot use {}: {}", place(&config.database), error.reason()),
        ),
        StoreError::NotMigrated(_) => Failure::new(
            code::UNAVAILABLE,
            "the store's tables are not those of this release: run `inferq migrate`",
        ),
        error => store_failure(error),
    }
}

/// Where a store is: host, port and database without credentials, or a file.
pub fn place(database: &DatabaseConfig) -> String {
    let url = database.url.expose_secret();
    if database.is_sqlite() {
        let path = url.strip_prefix("sqlite:").unwrap_or(url);
        return path.strip_prefix("//").unwrap_or(path).to_owned();
    }
    let Ok(url) = Url::parse(url) else {
        return "the configured address".to_owned();
    };
    let host = url.host_str().unwrap_or("localhost");
    format!("{host}:{}{}", url.port().unwrap_or(5432), url.path())
}

/// An error with its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = error.source();
    }
    text
}

fn host_name() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = text.trim();
    if name.is_empty() { "unknown".to_owned() } else { name.to_owned() }
}
