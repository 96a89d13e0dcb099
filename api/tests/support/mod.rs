//! The api over SQLite and the in-process broker, called without a socket.

use std::sync::Arc;

use axum::{Router, body::Body};
use chrono::{DateTime, Utc};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use inferq_api::{Api, router};
use inferq_common::{
    account::{ApiKey, KeyHash, generate_key, key_prefix},
    broker::{SharedBroker, memory::MemoryBroker},
    callback::generate_secret,
    clock::{Clock, ManualClock},
    config::{ApiConfig, DatabaseConfig},
    egress::Guard,
    id::{AccountId, ApiKeyId, InstanceId},
    instance::CurrentInstance,
    store::{SharedStore, sqlite::SqliteStore},
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use rand::{SeedableRng as _, rngs::StdRng};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt as _;

/// A running api with two accounts.
pub struct Platform {
    pub router: Router,
    pub store: SharedStore,
    pub clock: Arc<ManualClock>,
    keys: [SecretString; 2],
    _folder: TempDir,
}

/// Whose key a call carries.
#[derive(Debug, Clone, Copy)]
pub enum As {
    Acme,
    Other,
    Nobody,
}

/// What a call was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.json()
    }

    /// The errors of a 422 as `type at loc`.
    #[track_caller]
    pub fn problems(&self) -> Vec<String> {
        assert_eq!(self.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", self.text);
        let body = self.json();
        let list = body["detail"].as_array().unwrap().iter();
        list.map(|problem| {
            let step = |step: &Value| step.as_str().map_or_else(|| step.to_string(), str::to_owned);
            let loc: Vec<String> = problem["loc"].as_array().unwrap().iter().map(step).collect();
            format!("{} at {}", problem["type"].as_str().unwrap(), loc.join("."))
        })
        .collect()
    }
}

impl Platform {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: SharedStore = Arc::new(open_store(&folder));
        store.migrate().await.unwrap();
        let clock = Arc::new(ManualClock::at("2026-01-02T03:04:05Z".parse().unwrap()));
        let mut rng = StdRng::seed_from_u64(1);
        let mut keys = Vec::new();
        for account in ["acme", "other"] {
            let key = generate_key(&mut rng);
            let secret = generate_secret(&mut rng);
            add_account(&store, account, &key, &secret, clock.now()).await;
            keys.push(key);
        }
        let broker: SharedBroker = Arc::new(MemoryBroker::new());
        let api = api(store.clone(), broker, clock.clone());
        Self {
            router: router(api),
            store,
            clock,
            keys: keys.try_into().unwrap(),
            _folder: folder,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(As::Acme, Method::GET, path, "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(As::Acme, Method::POST, path, &body.to_string()).await
    }

    pub async fn call(&self, who: As, method: Method, path: &str, body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header("content-type", "application/json");
        request = match who {
            As::Acme => request.header("x-api-key", self.keys[0].expose_secret()),
            As::Other => request.header("x-api-key", self.keys[1].expose_secret()),
            As::Nobody => request,
        };
        call(&self.router, request.body(Body::from(body.to_owned())).unwrap()).await
    }
}

pub fn open_store(folder: &TempDir) -> SqliteStore {
    let path = folder.path().join("inferq.db");
    let config = DatabaseConfig {
        url: format!("sqlite://{}", path.display()).into(),
        max_connections: 4,
        acquire_timeout_ms: 1000,
        max_group: 16,
    };
    SqliteStore::open(&config).unwrap()
}

pub fn metrics() -> PrometheusHandle {
    PrometheusBuilder::new().build_recorder().handle()
}

pub async fn call(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    Answer { status: parts.status, headers: parts.headers, text }
}

fn api(store: SharedStore, broker: SharedBroker, clock: Arc<ManualClock>) -> Api {
    let instance = CurrentInstance::new(InstanceId::new(clock.now()));
    Api {
        store,
        broker,
        instance,
        config: ApiConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            public_url: None,
            max_body_bytes: 1 << 20,
            max_concurrent_requests: 16,
            shutdown_grace_secs: 1,
            max_wait_secs: 1,
        },
        guard: Guard::new(Vec::new()),
        clock,
        metrics: metrics(),
    }
}

async fn add_account(
    store: &SharedStore,
    name: &str,
    key: &SecretString,
    secret: &SecretString,
    now: DateTime<Utc>,
) {
    let account: AccountId = name.parse().unwrap();
    store.ensure_account(&account, secret, now).await.unwrap();
    let added = ApiKey {
        id: ApiKeyId::new(now),
        account,
        other_accounts: Vec::new(),
        name: name.to_owned(),
        prefix: key_prefix(key),
        hash: KeyHash::of(key),
        created_at: now,
        revoked_at: None,
    };
    assert!(store.add_key(&added).await.unwrap());
}
