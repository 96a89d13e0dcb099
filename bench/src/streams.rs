//! What the queue adds to a streamed answer: the time to its first chunk and the way of each chunk,
//! beside those of the same stream read from the vendor itself. Every chunk is checked by its number.
//!
//! The vendor writes into each chunk when it was sent; all clocks are this machine's.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use clap::{Args, ValueEnum as _};
use hdrhistogram::Histogram;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    compare::{self, KEY, Setup, Stack, Started},
    http_client::HttpClient,
    report::print,
};

/// Streams at once while many are measured.
const MANY: u32 = 200;

#[derive(Debug, Args)]
pub struct StreamsArgs {
    /// The inferq binary, built with --release
    #[arg(long)]
    inferq: PathBuf,
    /// postgres:// of a server where databases may be made
    #[arg(long, env = "INFERQ_TEST_POSTGRES_URL")]
    postgres: String,
    #[arg(long, env = "INFERQ_TEST_AMQP_URL")]
    amqp: String,
    /// What to run
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Stack::Inferq, Stack::Embedded])]
    stacks: Vec<Stack>,
    /// Length of each measurement of reads
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
}

/// Streams that are opened together.
#[derive(Debug, Clone, Copy)]
struct Plan {
    streams: u32,
    /// One after the other, by each of them.
    times: u32,
    chunks: u32,
    /// Between two chunks of a stream; 0: as fast as they are taken.
    chunk_ms: u64,
}

const ONE: Plan = Plan { streams: 1, times: 40, chunks: 25, chunk_ms: 10 };
const STEADY: Plan = Plan { streams: MANY, times: 3, chunks: 50, chunk_ms: 100 };
const FLOOD: Plan = Plan { streams: MANY, times: 1, chunks: 500, chunk_ms: 0 };

/// Whose stream is read.
#[derive(Clone)]
struct Source {
    client: HttpClient,
    path: &'static str,
    /// How a request begins.
    head: &'static str,
    /// How it ends.
    tail: &'static str,
    /// The line that ends a stream.
    end: &'static str,
}

/// What a plan showed.
struct Measured {
    first: Histogram<u64>,
    way: Histogram<u64>,
    chunks_per_second: f64,
}

/// Microseconds since 1970.
pub fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

pub async fn run(args: StreamsArgs) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    for (number, &stack) in (0..).zip(&args.stacks) {
        ensure!(
            matches!(stack, Stack::Inferq | Stack::Embedded),
            "the floor has no streams; --stacks takes inferq and embedded"
        );
        measure(&args, stack, number, folder.path())
            .await
            .with_context(|| format!("stack {stack:?}"))?;
    }
    Ok(())
}

async fn measure(
    args: &StreamsArgs,
    stack: Stack,
    number: u32,
    folder: &Path,
) -> anyhow::Result<()> {
    let setup = Setup {
        inferq: &args.inferq,
        postgres: &args.postgres,
        amqp: &args.amqp,
        number,
        delay_ms: 0,
        concurrency: 2 * MANY,
    };
    let started = compare::start(&setup, stack, folder).await?;
    let queue = Source {
        client: HttpClient::new(&started.url, Some(KEY.to_owned())),
        path: "/v5/inference",
        head: r#"{"model":"openai/mock","args":{"#,
        tail: "}}",
        end: "event: done",
    };
    let vendor_host = started.vendor_url.trim_end_matches("/v1");
    let direct = Source {
        client: HttpClient::new(vendor_host, None),
        path: "/v1/chat/completions",
        head: r#"{"model":"mock","#,
        tail: "}",
        end: "data: [DONE]",
    };
    let name = stack.to_possible_value().context("no stack is hidden")?;
    print(&format!(
        "\n| {} | through the queue, p50 / p99 | the vendor itself | added at p99 |",
        name.get_name()
    ));
    print("| --- | --- | --- | --- |");
    // Lanes, pools and caches are filled before anything counts.
    all(&queue, Plan { streams: 16, times: 4, chunks: 10, chunk_ms: 1 }).await?;
    for (words, plan) in [("1 stream", ONE), ("200 streams", STEADY)] {
        let (through, itself) = (all(&queue, plan).await?, all(&direct, plan).await?);
        compare_row(&format!("{words}, to the first chunk"), &through.first, &itself.first);
        compare_row(&format!("{words}, way of a chunk"), &through.way, &itself.way);
    }
    let (through, itself) = (all(&queue, FLOOD).await?, all(&direct, FLOOD).await?);
    print(&format!(
        "| 200 streams, as fast as they go | {:.0} chunks/s | {:.0} chunks/s | - |",
        through.chunks_per_second, itself.chunks_per_second
    ));
    reads(args, &started).await?;
    started.stop().await
}

fn compare_row(words: &str, through: &Histogram<u64>, itself: &Histogram<u64>) {
    let millis = |of: &Histogram<u64>, quantile| {
        Duration::from_micros(of.value_at_quantile(quantile)).as_secs_f64() * 1e3
    };
    print(&format!(
        "| {words} | {:.2} / {:.2} ms | {:.2} / {:.2} ms | {:.2} ms |",
        millis(through, 0.5),
        millis(through, 0.99),
        millis(itself, 0.5),
        millis(itself, 0.99),
        millis(through, 0.99) - millis(itself, 0.99),
    ));
}

/// Reads all streams of a plan.
async fn all(source: &Source, plan: Plan) -> anyhow::Result<Measured> {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..plan.streams {
        let source = source.clone();
        tasks.spawn(async move {
            // Not all in one moment: it is the streams that are measured, not a burst of requests.
            let length = Duration::from_millis(plan.chunk_ms) * plan.chunks;
            sleep(length * number / plan.streams).await;
            let mut read = Vec::new();
            for time in 0..plan.times {
                read.push(one(&source, plan, &format!("{number}-{time}")).await?);
            }
            anyhow::Ok(read)
        });
    }
    let mut first = Histogram::new_with_bounds(1, 600_000_000, 3)?;
    let mut way = first.clone();
    while let Some(read) = tasks.join_next().await {
        for Read { to_first, ways } in read?? {
            first.saturating_record(to_first);
            for micros in ways {
                way.saturating_record(micros);
            }
        }
    }
    let n_chunks = plan.streams * plan.times * plan.chunks;
    let chunks_per_second = f64::from(n_chunks) / begun.elapsed().as_secs_f64();
    Ok(Measured { first, way, chunks_per_second })
}

/// One stream's times, in microseconds.
struct Read {
    to_first: u64,
    ways: Vec<u64>,
}

#[derive(Deserialize)]
struct Chunk {
    n: u32,
    sent: u64,
}

/// As v5 wraps it.
#[derive(Deserialize)]
struct Wrapped {
    response: Chunk,
}

async fn one(source: &Source, plan: Plan, content: &str) -> anyhow::Result<Read> {
    let Plan { chunks, chunk_ms, .. } = plan;
    let Source { client, path, head, tail, end } = source;
    let body = format!(
        r#"{head}"messages":[{{"role":"user","content":"{content}"}}],"stream":true,"chunks":{chunks},"chunk_ms":{chunk_ms}{tail}"#
    );
    let asked = now_micros();
    let answer = client.open(Method::POST, path, None, Bytes::from(body)).await?;
    ensure!(answer.status() == StatusCode::OK, "a stream got {}", answer.status());
    let mut body = answer.into_body();
    let (mut text, mut ways, mut to_first) = (Vec::new(), Vec::new(), None);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let now = now_micros();
        text.extend_from_slice(&data);
        while let Some(length) = text.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = text.drain(..length + 2).collect();
            let event = String::from_utf8(event)?;
            if event.starts_with(end) {
                ensure!(ways.len() == chunks as usize, "{} of {chunks} chunks came", ways.len());
                let to_first = to_first.context("a stream has a first chunk")?;
                return Ok(Read { to_first, ways });
            }
            let Some(json) = event.strip_prefix("data: ") else { continue };
            let chunk = match serde_json::from_str::<Wrapped>(json) {
                Ok(wrapped) => wrapped.response,
                Err(_) => serde_json::from_str(json).with_context(|| format!("chunk {json}"))?,
            };
            ensure!(chunk.n as usize == ways.len(), "chunk {} came as {}", chunk.n, ways.len());
            to_first.get_or_insert(now.saturating_sub(asked));
            ways.push(now.saturating_sub(chunk.sent));
        }
    }
    bail!("a stream of {chunks} ended after {}", ways.len())
}

/// How fast one model and one alias are read by many clients.
async fn reads(args: &StreamsArgs, started: &Started) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Made {
        id: String,
    }
    let client = HttpClient::new(&started.url, Some(KEY.to_owned()));
    let model = r#"{"name":"mock","model_vendor":"openai","model_type":"chat_completion"}"#;
    let made = client.send(Method::POST, "/v5/models", None, Bytes::from(model)).await?;
    ensure!(made.status().is_success(), "a model got {}", made.status());
    let Made { id } = serde_json::from_slice(made.body())?;
    let server = format!(r#"{{"model_deployment_id":"{id}","name":"bench","alias":"bench"}}"#);
    let made = client.send(Method::POST, "/v4/serving", None, Bytes::from(server)).await?;
    ensure!(made.status().is_success(), "an alias got {}", made.status());
    for (words, path) in
        [("a model", format!("/v5/models/{id}")), ("an alias", "/v4/serving/a/bench".to_owned())]
    {
        let begun = Instant::now();
        let until = begun + Duration::from_secs_f64(args.seconds);
        let mut tasks = JoinSet::new();
        for _ in 0..32 {
            let (client, path) = (client.clone(), path.clone());
            tasks.spawn(async move {
                let mut n_reads = 0_u32;
                while Instant::now() < until {
                    let answer = client.send(Method::GET, &path, None, Bytes::new()).await?;
                    ensure!(answer.status() == StatusCode::OK, "a read got {}", answer.status());
                    n_reads += 1;
                }
                Ok(n_reads)
            });
        }
        let mut n_reads = 0;
        while let Some(read) = tasks.join_next().await {
            n_reads += read??;
        }
        let each_second = f64::from(n_reads) / begun.elapsed().as_secs_f64();
        print(&format!("| reads of {words}, 32 clients | {each_second:.0} reads/s | - | - |"));
    }
    Ok(())
}
