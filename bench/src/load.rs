//! The load generator. Every answer is checked to be the echo of its own request.
//!
//! Closed load keeps a number of clients busy. Open load starts requests at fixed moments whether or
//! not earlier ones have been answered, and counts each latency from the moment the request was due,
//! so a stall of the server is seen by every request it delayed (no coordinated omission).

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::http_client::HttpClient;

/// What one client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Posts and waits for the result in the answer.
    Sync,
    /// Posts, gets a 202, then fetches the result once.
    Async,
    /// Posts and gets a 202; the latency is that of the accept.
    Accept,
}

#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// Address of the server, such as <http://127.0.0.1:8080>
    #[arg(long)]
    pub url: String,
    #[arg(long, env = "INFERQ_API_KEY")]
    pub key: Option<String>,
    #[arg(long, value_enum, default_value = "async")]
    pub kind: Kind,
    /// Closed load: this many clients, each with one request at a time
    #[arg(long, default_value_t = 128)]
    pub clients: usize,
    /// Open load: this many requests a second, instead of closed load
    #[arg(long)]
    pub rate: Option<f64>,
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    #[arg(long, default_value = "openai/mock")]
    pub model: String,
    /// Bytes of each request's content
    #[arg(long, default_value_t = 400)]
    pub bytes: usize,
}

/// What was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub jobs: u64,
    pub jobs_per_second: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub errors: u64,
    pub first_error: Option<String>,
}

struct Run {
    client: HttpClient,
    args: LoadArgs,
    number: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
    errors: AtomicU64,
    first_error: Mutex<Option<String>>,
}

pub async fn run(args: &LoadArgs) -> anyhow::Result<Report> {
    let run = Arc::new(Run {
        client: HttpClient::new(&args.url, args.key.clone()),
        args: args.clone(),
        number: AtomicU64::new(0),
        latencies: Mutex::new(Histogram::new_with_bounds(1, 600_000_000, 3)?),
        errors: AtomicU64::new(0),
        first_error: Mutex::new(None),
    });
    let begun = Instant::now();
    let until = begun + Duration::from_secs_f64(args.seconds);
    let mut tasks = JoinSet::new();
    match args.rate {
        None => {
            for _ in 0..args.clients {
                let run = Arc::clone(&run);
                tasks.spawn(async move {
                    while Instant::now() < until {
                        run.one(Instant::now()).await;
                    }
                });
            }
        }
        Some(rate) => {
            ensure!(rate > 0.0, "--rate must be above 0");
            let mut due = begun;
            while due < until {
                sleep_until(due).await;
                let run = Arc::clone(&run);
                tasks.spawn(async move { run.one(due).await });
                due += Duration::from_secs_f64(1.0 / rate);
            }
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(run.report(begun.elapsed()))
}

impl Run {
    async fn one(&self, due: Instant) {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        match self.exchange(number).await {
            Ok(accepted) => {
                let ended = if self.args.kind == Kind::Accept { accepted } else { Instant::now() };
                let micros = u64::try_from((ended - due).as_micros()).unwrap_or(u64::MAX);
                let mut latencies = self.latencies.lock().expect("no one panics while recording");
                latencies.saturating_record(micros);
            }
            Err(error) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
                let mut first = self.first_error.lock().expect("no one panics while recording");
                first.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }

    /// One request with its result; answers when it was accepted.
    async fn exchange(&self, number: u64) -> anyhow::Result<Instant> {
        let mut content = format!("{}-{number}-", std::process::id());
        while content.len() < self.args.bytes {
            content.push('x');
        }
        let body = format!(
            r#"{{"model":"{}","args":{{"messages":[{{"role":"user","content":"{content}"}}]}}}}"#,
            self.args.model
        );
        let prefer = (self.args.kind != Kind::Sync).then_some("respond-async");
        let answer =
            self.client.send(Method::POST, "/v5/inference", prefer, Bytes::from(body)).await?;
        let accepted = Instant::now();
        if self.args.kind == Kind::Sync {
            ensure!(answer.status() == StatusCode::OK, "a call got {}", words(&answer));
            check_echo(answer.body(), &content)?;
            return Ok(accepted);
        }
        ensure!(answer.status() == StatusCode::ACCEPTED, "a submit got {}", words(&answer));
        let job: JobDocument<'_> = serde_json::from_slice(answer.body())?;
        if self.args.kind == Kind::Async {
            self.fetch(&format!("/v5/jobs/{}", job.id), &content).await?;
        }
        Ok(accepted)
    }

    async fn fetch(&self, path: &str, content: &str) -> anyhow::Result<()> {
        let answer = self.client.send(Method::GET, path, Some("wait=30"), Bytes::new()).await?;
        ensure!(answer.status() == StatusCode::OK, "a job got {}", words(&answer));
        let job: JobDocument<'_> = serde_json::from_slice(answer.body())?;
        let Some(response) = job.response else { bail!("a job is {}", job.status) };
        check_echo(response.get().as_bytes(), content)
    }

    fn report(&self, took: Duration) -> Report {
        let latencies = self.latencies.lock().expect("no one panics while recording");
        let millis = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1e3;
        let at = |quantile| millis(latencies.value_at_quantile(quantile));
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        let jobs_per_second = latencies.len() as f64 / took.as_secs_f64();
        Report {
            jobs: latencies.len(),
            jobs_per_second,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            max_ms: millis(latencies.max()),
            errors: self.errors.load(Ordering::Relaxed),
            first_error: self.first_error.lock().expect("no one panics while recording").clone(),
        }
    }
}

#[derive(Deserialize)]
struct JobDocument<'a> {
    id: &'a str,
    #[serde(default)]
    status: &'a str,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
}

fn check_echo(body: &[u8], content: &str) -> anyhow::Result<()> {
    let text = std::str::from_utf8(body).context("an answer is not UTF-8")?;
    ensure!(text.contains(content), "an answer is not the echo of its request");
    Ok(())
}

fn words(answer: &http::Response<Bytes>) -> String {
    let body = String::from_utf8_lossy(answer.body());
    format!("{}: {}", answer.status(), body.chars().take(200).collect::<String>())
}
