//! Runs inferq as its users do: real processes, real HTTP, real servers behind them.

#![allow(dead_code, reason = "each story uses its part of the harness")]

pub mod process;
pub mod receiver;
pub mod sse;
pub mod tls;
pub mod vendor;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::{process::Process, vendor::Vendor};

/// The key every platform of the harness is started with.
pub const KEY: &str = "a-key-for-the-stories-of-inferq";

/// How long a story waits for a state before it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where a platform of the harness keeps its jobs and messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `inferq dev`: one process on SQLite and the in-process broker.
    Embedded,
    /// Two apis and two workers on Postgres and RabbitMQ.
    Distributed,
}

/// A running platform with a vendor of its own.
pub struct Platform {
    pub mode: Mode,
    pub vendor: Vendor,
    /// `dev`, or the apis.
    pub fronts: Vec<Process>,
    pub workers: Vec<Process>,
    pub folder: TempDir,
    pub http: reqwest::Client,
    settings: BTreeMap<String, String>,
    turn: AtomicUsize,
}

impl Platform {
    pub async fn start(mode: Mode) -> Self {
        Self::start_with(mode, &[]).await
    }

    /// Starts a platform with further settings (`INFERQ__…`).
    pub async fn start_with(mode: Mode, settings: &[(&str, &str)]) -> Self {
        let mut all = BTreeMap::new();
        #[cfg(feature = "servers")]
        if mode == Mode::Distributed {
            use inferq_common::testing::{postgres, rabbitmq};
            all.insert("INFERQ__DATABASE__URL".to_owned(), postgres::fresh_database().await);
            all.insert("INFERQ__BROKER__URL".to_owned(), rabbitmq::virtual_host().await);
        }
        for (name, value) in settings {
            all.insert((*name).to_owned(), (*value).to_owned());
        }
        Self::start_on(mode, all).await
    }

    /// Starts a platform on servers that `settings` name.
    pub async fn start_on(mode: Mode, mut settings: BTreeMap<String, String>) -> Self {
        // Only the first story of a program installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let vendor = Vendor::start().await;
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in [
            ("INFERQ__AUTH__BOOTSTRAP_KEY", KEY.to_owned()),
            ("INFERQ__VENDORS__OPENAI__BASE_URL", vendor.url()),
            ("INFERQ__VENDORS__OPENAI__API_KEY", "vendor-key".to_owned()),
            ("INFERQ__CALLBACKS__ALLOW_NETWORKS", "127.0.0.0/8".to_owned()),
        ] {
            settings.entry(name.to_owned()).or_insert(value);
        }
        let http = reqwest::Client::builder().timeout(PATIENCE * 2).build().unwrap();
        let turn = AtomicUsize::new(0);
        let mut platform = Self {
            mode,
            vendor,
            fronts: Vec::new(),
            workers: Vec::new(),
            folder,
            http,
            settings,
            turn,
        };
        match mode {
            Mode::Embedded => platform.fronts.push(platform.front("dev", 0)),
            Mode::Distributed => {
                platform.run(&["migrate"]);
                for number in 0..2 {
                    platform.fronts.push(platform.front("api", number));
                    platform.workers.push(platform.worker(number));
                }
            }
        }
        for process in platform.fronts.iter().chain(&platform.workers) {
            process.is_ready().await;
        }
        platform
    }

    fn front(&self, role: &str, number: usize) -> Process {
        let listen = process::free_address();
        let listen_text = listen.to_string();
        let mut args = vec![role, "--listen", &listen_text];
        let data_dir = self.data_dir();
        if role == "dev" {
            args.extend(["--data-dir", &data_dir]);
        }
        Process::start(
            &format!("{role}-{number}"),
            &args,
            listen,
            &self.settings,
            self.folder.path(),
        )
    }

    fn worker(&self, number: usize) -> Process {
        let listen = process::free_address();
        let args = ["worker", "--listen", &listen.to_string()];
        Process::start(
            &format!("worker-{number}"),
            &args,
            listen,
            &self.settings,
            self.folder.path(),
        )
    }

    fn data_dir(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    /// Runs a command of the binary with this platform's settings; answers what it printed.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> String {
        let output = process::command(&self.settings).args(args).output().unwrap();
        assert!(
            output.status.success(),
            "{args:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes a key of another account with the command line.
    pub fn key_of(&self, account: &str) -> String {
        let data_dir = self.data_dir();
        let mut args = vec!["key", "create", "--account", account];
        if self.mode == Mode::Embedded {
            args.extend(["--data-dir", &data_dir]);
        }
        self.run(&args).trim().to_owned()
    }

    /// The callback secret of the default account.
    pub fn callback_secret(&self) -> String {
        let data_dir = self.data_dir();
        let mut args = vec!["key", "webhook-secret", "show"];
        if self.mode == Mode::Embedded {
            args.extend(["--data-dir", &data_dir]);
        }
        self.run(&args).lines().next().unwrap().to_owned()
    }

    /// The address of a front, a different one each time.
    pub fn address(&self) -> SocketAddr {
        let alive: Vec<_> = self.fronts.iter().filter(|front| front.is_running()).collect();
        assert!(!alive.is_empty(), "no api is running");
        alive[self.turn.fetch_add(1, Ordering::Relaxed) % alive.len()].listen
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.address());
        self.http.request(method, url).header("x-api-key", KEY)
    }

    /// Posts an inference and waits for its answer.
    pub async fn infer(&self, body: &Value) -> Response {
        self.request(Method::POST, "/v5/inference").json(body).send().await.unwrap()
    }

    /// Submits a job and answers its id.
    pub async fn submit(&self, body: &Value) -> String {
        let response = self.try_submit(body).await.unwrap();
        let status = response.status();
        let job: Value = response.json().await.unwrap();
        assert_eq!(status, StatusCode::ACCEPTED, "{job}");
        job["id"].as_str().unwrap().to_owned()
    }

    /// Posts a submit, whatever becomes of it.
    pub async fn try_submit(&self, body: &Value) -> reqwest::Result<Response> {
        self.try_infer(body, "respond-async").await
    }

    /// Posts an inference with a `Prefer` header, whatever becomes of it.
    pub async fn try_infer(&self, body: &Value, prefer: &str) -> reqwest::Result<Response> {
        let request = self.request(Method::POST, "/v5/inference");
        request.header("prefer", prefer).json(body).send().await
    }

    pub async fn get(&self, path: &str) -> Value {
        let response = self.request(Method::GET, path).send().await.unwrap();
        let status = response.status();
        let body: Value = response.json().await.unwrap();
        assert_eq!(status, StatusCode::OK, "GET {path}: {body}");
        body
    }

    pub async fn job(&self, id: &str) -> Value {
        self.get(&format!("/v5/jobs/{id}")).await
    }

    pub async fn attempts(&self, id: &str) -> Vec<Value> {
        let body = self.get(&format!("/v5/jobs/{id}/attempts")).await;
        body["items"].as_array().unwrap().clone()
    }

    /// The metrics of all processes that run jobs, as Prometheus text.
    pub async fn metrics(&self) -> String {
        let runners = if self.workers.is_empty() { &self.fronts } else { &self.workers };
        let mut text = String::new();
        for process in runners {
            let url = format!("http://{}/metrics", process.listen);
            let response = self.http.get(url).header("x-api-key", KEY).send().await.unwrap();
            text.push_str(&response.text().await.unwrap());
        }
        text
    }

    /// Waits until a job has this status.
    pub async fn reaches(&self, id: &str, status: &str) -> Value {
        let what = format!("job {id} to be {status}");
        eventually(&what, async || {
            let response =
                self.request(Method::GET, &format!("/v5/jobs/{id}")).send().await.ok()?;
            let job: Value = response.json().await.ok()?;
            (job["status"] == status).then_some(job)
        })
        .await
    }

    /// Waits until a job has ended, through outages of the platform.
    pub async fn ends(&self, id: &str) -> Value {
        let what = format!("job {id} to end");
        eventually(&what, async || {
            let response =
                self.request(Method::GET, &format!("/v5/jobs/{id}")).send().await.ok()?;
            let job: Value = response.json().await.ok()?;
            let status = job["status"].as_str()?;
            (!matches!(status, "queued" | "running")).then_some(job)
        })
        .await
    }

    /// Fails unless every job has ended.
    pub async fn has_settled(&self) {
        for status in ["queued", "running"] {
            let page = self.get(&format!("/v5/jobs?status={status}&limit=5")).await;
            assert_eq!(page["items"], json!([]), "jobs are still {status}");
        }
    }
}

/// Asks again and again until the answer is there; fails after [`PATIENCE`].
pub async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// A chat request whose content tells the harness' vendor what to do.
pub fn chat(name: &str, behaviour: &Value) -> Value {
    let mut content = behaviour.clone();
    content["name"] = name.into();
    json!({
        "model": "openai/gpt-test",
        "args": {"messages": [{"role": "user", "content": content.to_string()}]},
    })
}

/// A request to the built-in echo model.
pub fn echo(args: &Value) -> Value {
    json!({"model": "model_zoo/echo", "args": args})
}

/// Stamps out each story on every kind of platform this build can start.
#[macro_export]
macro_rules! stories {
    ($($name:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name($crate::harness::Mode::Embedded).await;
            })+
        }
        #[cfg(feature = "servers")]
        mod distributed {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name($crate::harness::Mode::Distributed).await;
            })+
        }
    };
}
