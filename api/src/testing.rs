//! The api on a store in a temporary folder and the in-process broker, for the tests of this crate.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, BodyDataStream},
};
use futures::StreamExt as _;
use http::{HeaderMap, Method, Request, StatusCode};
use inferq_common::{
    account::{ApiKey, KeyHash, generate_key},
    broker::{Event, SharedBroker, Times, memory::MemoryBroker},
    callback::generate_secret,
    clock::{Clock as _, SystemClock},
    config::{ApiConfig, DatabaseConfig},
    credential::{MasterKey, MasterKeys},
    egress::Guard,
    error::{ErrorClass, JobError},
    id::{AccountId, ApiKeyId, InstanceId, JobId, ModelServerId},
    instance::CurrentInstance,
    job::{JobResult, JobStatus, Json, Lane, Outcome, Priority},
    model::ModelServer,
    publisher::Publisher,
    shutdown::Shutdown,
    store::{
        Claim, NewInstance, SharedStore, path::JobPath, serving::Removed, sqlite::SqliteStore,
    },
    stream::ChunkGroup,
    usage::Usage,
    vendor::Vendor,
};
use metrics_exporter_prometheus::PrometheusBuilder;
use rand::{SeedableRng as _, rngs::StdRng};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::{Api, AppState, Rooms, UpstreamModels, Waiters, routes};

/// Nothing in a test takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct TestApi {
    pub(crate) router: Router,
    pub(crate) state: AppState,
    pub(crate) store: SharedStore,
    pub(crate) broker: SharedBroker,
    pub(crate) key: SecretString,
    _dir: tempfile::TempDir,
}

/// What came back, read whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).to_str().unwrap()
    }

    #[track_caller]
    pub(crate) fn job_id(&self) -> JobId {
        self.header("x-job-id").parse().unwrap()
    }

    /// The document of a 200.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    /// The problems of a 422, each as `kind at body.member`.
    #[track_caller]
    pub(crate) fn places(&self) -> Vec<String> {
        let step = |step: &Value| step.as_str().map_or_else(|| step.to_string(), str::to_owned);
        let words = |(kind, loc): (String, Value)| {
            let loc: Vec<String> = loc.as_array().unwrap().iter().map(step).collect();
            format!("{kind} at {}", loc.join("."))
        };
        self.problems().into_iter().map(words).collect()
    }

    /// The kinds and places of the problems of a 422.
    #[track_caller]
    pub(crate) fn problems(&self) -> Vec<(String, Value)> {
        assert_eq!(self.status, 422, "{self:?}");
        let detail = self.json()["detail"].clone();
        let list = detail.as_array().unwrap_or_else(|| panic!("no list: {self:?}")).clone();
        list.into_iter()
            .map(|problem| (problem["type"].as_str().unwrap().to_owned(), problem["loc"].clone()))
            .collect()
    }
}

/// An answer whose body is still to be read.
pub(crate) struct Opened {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: BodyDataStream,
}

impl Opened {
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.unwrap_or_else(|| panic!("no {name}: {:?}", self.headers)).to_str().unwrap()
    }

    /// What comes next; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<String> {
        let bytes = tokio::time::timeout(PATIENCE, self.body.next()).await.expect("more in time");
        Some(String::from_utf8(bytes?.unwrap().to_vec()).unwrap())
    }

    /// All that comes until `text` has come.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(text) {
            let more = self.next().await;
            seen.push_str(&more.unwrap_or_else(|| panic!("the end came before {text}: {seen}")));
        }
        seen
    }

    /// All that comes until the end.
    pub(crate) async fn rest(&mut self) -> String {
        let mut seen = String::new();
        while let Some(more) = self.next().await {
            seen.push_str(&more);
        }
        seen
    }
}

impl TestApi {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut ApiConfig)) -> Self {
        let key = MasterKey::parse(&SecretString::from("07".repeat(32))).unwrap();
        Self::with_keys(MasterKeys::new(Some(key), Vec::new()), change).await
    }

    pub(crate) async fn with_keys(
        master_keys: MasterKeys,
        change: impl FnOnce(&mut ApiConfig),
    ) -> Self {
        Self::assemble(Arc::new(MemoryBroker::new()), master_keys, change).await
    }

    pub(crate) async fn with_broker(broker: SharedBroker) -> Self {
        Self::assemble(broker, MasterKeys::default(), |_| {}).await
    }

    async fn assemble(
        broker: SharedBroker,
        master_keys: MasterKeys,
        change: impl FnOnce(&mut ApiConfig),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store: SharedStore = open(&dir);
        store.migrate().await.unwrap();
        let clock = Arc::new(SystemClock);
        let instance = InstanceId::new(clock.now());
        let new = NewInstance { id: instance, role: "api", host: "test".to_owned() };
        store.register(&new).await.unwrap();
        let instance = CurrentInstance::new(instance);
        let mut config = ApiConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            public_url: None,
            max_body_bytes: 1024 * 1024,
            max_concurrent_requests: 100,
            max_streams_per_account: 512,
            shutdown_grace_secs: 5,
            max_wait_secs: 60,
        };
        change(&mut config);
        let api = Api {
            path: JobPath::start(Arc::clone(&store), clock.clone(), instance.clone(), 64),
            publisher: Publisher::start(Arc::clone(&broker)),
            store: Arc::clone(&store),
            broker: Arc::clone(&broker),
            instance,
            waiters: Waiters::new(),
            rooms: Rooms::default(),
            config,
            upstream: UpstreamModels::default(),
            guard: Guard::new(Vec::new()),
            master_keys: Arc::new(master_keys),
            clock,
            metrics: PrometheusBuilder::new().build_recorder().handle(),
        };
        let state = AppState::new(api, Shutdown::new());
        let router = routes::router(&state);
        let key = SecretString::from("");
        let mut this = Self { router, state, store, broker, key, _dir: dir };
        this.key = this.add_key("acme", &[]).await;
        this
    }

    /// A new key of an account, which is made if it is missing.
    pub(crate) async fn add_key(&self, account: &str, others: &[&str]) -> SecretString {
        let now = SystemClock.now();
        let id = ApiKeyId::new(now);
        let mut rng = StdRng::seed_from_u64(u64::from_be_bytes(
            id.as_uuid().as_bytes()[8..].try_into().unwrap(),
        ));
        let accounts: Vec<AccountId> =
            [account].iter().chain(others).map(|name| name.parse().unwrap()).collect();
        for account in &accounts {
            self.store.ensure_account(account, &generate_secret(&mut rng), now).await.unwrap();
        }
        let key = generate_key(&mut rng);
        let added = ApiKey {
            id,
            account: accounts[0].clone(),
            other_accounts: accounts[1..].to_vec(),
            name: "test".to_owned(),
            prefix: key.expose_secret()[..8].to_owned(),
            hash: KeyHash::of(&key),
            created_at: now,
            revoked_at: None,
        };
        assert!(self.store.add_key(&added).await.unwrap());
        key
    }

    /// A model server `alias` of `acme` that runs `model`.
    pub(crate) async fn add_server(&self, alias: &str, model: &str) -> ModelServer {
        let now = SystemClock.now();
        let server = ModelServer {
            id: ModelServerId::new(now),
            account: "acme".parse().unwrap(),
            name: alias.to_owned(),
            alias: Some(alias.to_owned()),
            model_deployment_id: model.to_owned(),
            created_at: now,
        };
        assert!(self.store.add_model_server(&server, None).await.unwrap().is_some());
        server
    }

    /// A model server `alias` of `acme` whose model, another account's, was deleted.
    pub(crate) async fn add_server_of_gone_model(&self, alias: &str) -> ModelServer {
        let owner = self.add_key("owner", &[]).await;
        let headers = [("x-api-key", owner.expose_secret())];
        let body = r#"{"name":"gone","model_vendor":"openai","model_type":"generic"}"#;
        let model = self.post("/v5/models", &headers, body).await.ok();
        let id = model["id"].as_str().unwrap();
        let server = self.add_server(alias, id).await;
        let removed = self.store.delete_model(id.parse().unwrap(), &"owner".parse().unwrap()).await;
        assert_eq!(removed.unwrap(), Removed::Done);
        server
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        let answer = async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            Reply { status: parts.status, headers: parts.headers, text }
        };
        tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time")
    }

    /// Sends a request and answers as soon as the head of its answer is there.
    pub(crate) async fn open(&self, request: Request<Body>) -> Opened {
        let answer = self.router.clone().oneshot(request);
        let response = tokio::time::timeout(PATIENCE, answer).await.expect("a head in time");
        let (parts, body) = response.unwrap().into_parts();
        Opened { status: parts.status, headers: parts.headers, body: body.into_data_stream() }
    }

    /// A request of `acme`'s key with a JSON content type.
    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Request<Body> {
        let mut request =
            Request::builder().method(method).uri(path).header("content-type", "application/json");
        if !headers.iter().any(|(name, _)| *name == "x-api-key") {
            request = request.header("x-api-key", self.key.expose_secret());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::from(body.to_owned())).unwrap()
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        self.send(self.request(Method::POST, path, headers, body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path, &[], "")).await
    }

    /// Posts an inference that is accepted, and answers the job's id.
    pub(crate) async fn accepted(&self, body: &str) -> JobId {
        let reply = self.post("/v5/inference", &[("prefer", "respond-async")], body).await;
        assert_eq!(reply.status, 202, "{reply:?}");
        reply.job_id()
    }

    /// Claims the next published job of `model_zoo`, as a worker does.
    pub(crate) async fn claim(&self) -> Claim {
        let lane = Lane { vendor: Vendor::ModelZoo, priority: Priority::Normal };
        let claim = async {
            let mut deliveries = self.broker.consume(lane, 1).await.unwrap();
            let delivery = deliveries.next().await.unwrap();
            let id = delivery.message().job_id;
            let now = SystemClock.now();
            let claims = self.store.claim(&[id], self.state.instance.id(), now).await.unwrap();
            delivery.ack().await;
            claims.into_iter().next().expect("the job is there to be claimed")
        };
        tokio::time::timeout(PATIENCE, claim).await.expect("a job in time")
    }

    /// Ends a claimed job, and tells who waits.
    pub(crate) async fn finish(&self, claim: Claim, outcome: Outcome) {
        let (job_id, attempt) = (claim.job.id, claim.attempt());
        let reply_to = claim.job.reply_to;
        let now = SystemClock.now();
        let times = Times { started_at: claim.job.started_at, finished_at: now };
        let event = event(job_id, attempt, &outcome, times);
        assert_eq!(self.store.finish(&[(claim, outcome)], now).await.unwrap(), [true]);
        if let (Some(event), Some(_)) = (event, reply_to) {
            self.state.waiters.take(event);
        }
    }

    /// Tells what an attempt streamed, as a worker does before it has stored it.
    pub(crate) fn tell(&self, claim: &Claim, first: u64, chunks: &[&str]) {
        self.state.waiters.take(Event::Chunks(chunk_group(claim, first, chunks)));
    }

    /// Stores what an attempt streamed, as a worker does.
    pub(crate) async fn append(&self, claim: &Claim, first: u64, chunks: &[&str]) {
        let group = (claim.instance, chunk_group(claim, first, chunks));
        assert_eq!(self.store.append_chunks(&[group]).await.unwrap(), [true]);
    }

    /// Ends a claimed attempt that streamed `chunks` chunks, and tells who waits.
    pub(crate) async fn finish_stream(&self, claim: Claim, chunks: u64, outcome: Outcome) {
        let (job_id, attempt) = (claim.job.id, claim.attempt());
        let now = SystemClock.now();
        let times = Times { started_at: claim.job.started_at, finished_at: now };
        let event = event(job_id, attempt, &outcome, times);
        assert_eq!(self.store.finish(&[(claim, outcome)], now).await.unwrap(), [true]);
        let Some(Event::Finished { job_id, status, attempt, result, times, .. }) = event else {
            return;
        };
        let ended = Event::Finished { job_id, status, attempt, result, times, chunks, room: None };
        self.state.waiters.take(ended);
    }

    /// Runs the next job to `outcome`.
    pub(crate) async fn run_next(&self, outcome: Outcome) -> Claim {
        let claim = self.claim().await;
        self.finish(claim.clone(), outcome).await;
        claim
    }

    /// How many jobs `acme` has.
    pub(crate) async fn n_jobs(&self) -> usize {
        self.get("/v5/jobs?limit=1000").await.json()["items"].as_array().unwrap().len()
    }
}

fn chunk_group(claim: &Claim, first: u64, chunks: &[&str]) -> ChunkGroup {
    ChunkGroup {
        job_id: claim.job.id,
        attempt: claim.attempt(),
        first,
        chunks: chunks.iter().map(|chunk| Json::parse(*chunk).unwrap()).collect(),
    }
}

/// The store in `dir`, not migrated.
pub(crate) fn open(dir: &tempfile::TempDir) -> Arc<SqliteStore> {
    let config = DatabaseConfig {
        url: format!("sqlite://{}/test.db", dir.path().display()).into(),
        max_connections: 4,
        acquire_timeout_ms: 5000,
        max_group: 64,
    };
    Arc::new(SqliteStore::open(&config).unwrap())
}

fn event(job_id: JobId, attempt: u32, outcome: &Outcome, times: Times) -> Option<Event> {
    let (status, result) = match outcome.clone() {
        Outcome::Succeeded { response, usage, .. } => {
            (JobStatus::Succeeded, JobResult { response: Some(response), error: None, usage })
        }
        Outcome::Failed { error, usage } => {
            (JobStatus::Failed, JobResult { response: None, error: Some(error), usage })
        }
        Outcome::Retry { .. } | Outcome::HandedBack | Outcome::Deferred { .. } => return None,
    };
    Some(Event::Finished {
        job_id,
        status,
        attempt,
        result: Some(result),
        times: Some(times),
        chunks: 0,
        room: None,
    })
}

pub(crate) fn succeeded(response: &str) -> Outcome {
    Outcome::Succeeded {
        response: Json::parse(response).unwrap(),
        usage: Usage::default(),
        vendor_request_id: None,
    }
}

pub(crate) fn failed(class: ErrorClass, message: &str) -> Outcome {
    Outcome::Failed { error: JobError::new(class, message), usage: Usage::default() }
}
