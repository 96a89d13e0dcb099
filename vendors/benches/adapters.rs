//! What each adapter costs in processor time: for a request, an answer, a streamed chunk and a call
//! over loopback; ends in a table with the ratios to `openai`.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    fs,
    hint::black_box,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use criterion::{BatchSize, Criterion, Throughput};
use http::HeaderMap;
use inferq_common::{clock::SystemClock, config::VendorConfig, vendor::Vendor};
use inferq_vendors::{
    Call,
    remote::{
        Mode,
        http::Clients,
        probe::{self, Probe, Sample},
    },
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Runtime,
    task::JoinSet,
};

const N_CHUNKS: usize = 200;
/// What is measured, and the heading of its column.
const GROUPS: [(&str, &str); 4] = [
    ("request", "request with authorization"),
    ("parse", "answer of 2 KB"),
    ("chunk", "streamed chunk"),
    ("call", "call over loopback"),
];
const TOKEN: &str =
    r#"{"access_token":"a-token-of-google","expires_in":3600,"token_type":"Bearer"}"#;
const SERVICE_ACCOUNT_KEY: &str = include_str!("../src/auth/google/test_key.pem");

/// One vendor and all that is measured of it.
struct Subject {
    sample: Sample,
    call: Call,
    adapter: Box<dyn Probe>,
}

fn main() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("adapters");
    let mut criterion = Criterion::default()
        .output_directory(&folder)
        .sample_size(20)
        .nresamples(2_000)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .configure_from_args();
    let runtime = runtime();
    let subjects = subjects();
    requests(&mut criterion, &subjects, &runtime);
    answers(&mut criterion, &subjects);
    chunks(&mut criterion, &subjects);
    calls(&mut criterion, &subjects, &runtime);
    criterion.final_summary();
    let _ = writeln!(std::io::stdout().lock(), "\n{}", table(&folder));
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime of one thread")
}

/// Every vendor, with a server of its own behind it.
fn subjects() -> Vec<Subject> {
    let (clients, clock) = (Clients::default(), Arc::new(SystemClock));
    let mut servers = Vec::new();
    let mut subjects = Vec::new();
    for &vendor in Vendor::ALL {
        let sample = Sample::of(vendor, N_CHUNKS);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        servers.push((listener, sample.response.clone()));
        let adapter = probe::adapter(vendor, &config(vendor, address), &clients, clock.clone())
            .expect("a good configuration");
        let call = sample.call();
        subjects.push(Subject { sample, call, adapter });
    }
    thread::spawn(move || runtime().block_on(serve(servers)));
    subjects
}

/// Each vendor with the credential that it is most often called with.
fn config(vendor: Vendor, address: SocketAddr) -> VendorConfig {
    let base_url = Some(format!("http://{address}").parse().expect("an address"));
    let mut config = VendorConfig { base_url, ..VendorConfig::default() };
    match vendor {
        Vendor::Bedrock => {
            config.region = Some("us-east-1".to_owned());
            config.access_key_id = Some("AKIDEXAMPLE".into());
            config.secret_access_key = Some("a-secret-access-key-of-40-characters-or-so".into());
        }
        Vendor::VertexAi => {
            let account = json!({
                "type": "service_account",
                "project_id": "project-1",
                "client_email": "bench@project-1.iam.gserviceaccount.com",
                "private_key_id": "1",
                "private_key": SERVICE_ACCOUNT_KEY,
                "token_uri": format!("http://{address}/token"),
            });
            config.location = Some("us-central1".to_owned());
            config.service_account = Some(account.to_string().into());
        }
        _ => config.api_key = Some("sk-a-key-of-the-usual-length-0123456789abcdef".into()),
    }
    config
}

/// Runs `one` as often as asked, on the runtime.
fn time<F: Future>(runtime: &Runtime, n: u64, mut one: impl FnMut() -> F) -> Duration {
    runtime.block_on(async {
        let start = Instant::now();
        for _ in 0..n {
            black_box(one().await);
        }
        start.elapsed()
    })
}

/// From `args` to a request that could be sent.
fn requests(criterion: &mut Criterion, subjects: &[Subject], runtime: &Runtime) {
    let mut group = criterion.benchmark_group("request");
    for Subject { sample, call, adapter } in subjects {
        let one = || async {
            let request = adapter.request(black_box(call), Mode::Whole).await;
            request.expect("a good call")
        };
        group.bench_function(sample.vendor.to_string(), |bencher| {
            bencher.iter_custom(|n| time(runtime, n, one));
        });
    }
    group.finish();
}

/// From the bytes of an answer to the response and its usage.
fn answers(criterion: &mut Criterion, subjects: &[Subject]) {
    let mut group = criterion.benchmark_group("parse");
    let headers = HeaderMap::new();
    for Subject { sample, call, adapter } in subjects {
        let route = adapter.route(call).expect("a good call");
        group.bench_function(sample.vendor.to_string(), |bencher| {
            bencher.iter_batched(
                || sample.response.clone(),
                |body| adapter.parse(route, &headers, body).expect("a good answer"),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// From the bytes of a stream, one chunk at a time, to what is passed on.
fn chunks(criterion: &mut Criterion, subjects: &[Subject]) {
    let mut group = criterion.benchmark_group("chunk");
    for Subject { sample, call, adapter } in subjects {
        let route = adapter.route(call).expect("a good call");
        let (headers, now) = (sample.stream_headers(), adapter.now());
        let n_chunks = u64::try_from(sample.stream.len()).expect("it is small");
        group.throughput(Throughput::Elements(n_chunks));
        let follow = || {
            let (framing, mut follow) = adapter.follow(route, &headers).expect("it is a stream");
            let (mut decoder, mut frames) = (framing.decoder(1 << 20), VecDeque::new());
            for piece in &sample.stream {
                decoder.push(black_box(piece), &mut frames).expect("a good stream");
                while let Some(frame) = frames.pop_front() {
                    black_box(follow.take(frame, now).expect("a good stream"));
                }
            }
            follow.end().expect("a complete stream");
            follow.usage()
        };
        group.bench_function(sample.vendor.to_string(), |bencher| bencher.iter(follow));
    }
    group.finish();
}

/// The whole of it, against a server that answers at once.
fn calls(criterion: &mut Criterion, subjects: &[Subject], runtime: &Runtime) {
    let mut group = criterion.benchmark_group("call");
    for Subject { sample, call, adapter } in subjects {
        let one = || async { adapter.call(black_box(call)).await.expect("the server answers") };
        group.bench_function(sample.vendor.to_string(), |bencher| {
            bencher.iter_custom(|n| time(runtime, n, one));
        });
    }
    group.finish();
}

/// Serves each answer on its own socket, until the process ends.
async fn serve(answers: Vec<(TcpListener, Vec<u8>)>) {
    let mut tasks = JoinSet::new();
    for (listener, answer) in answers {
        listener.set_nonblocking(true).expect("a fresh socket");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a fresh socket");
        tasks.spawn(async move {
            let (answer, token) = (reply(&answer), reply(TOKEN.as_bytes()));
            let (answer, token) = (Arc::new(answer), Arc::new(token));
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(connection(socket, Arc::clone(&answer), Arc::clone(&token)));
            }
        });
    }
    tasks.join_all().await;
}

fn reply(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req-1\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Answers one request after the other; a request for a token with one.
async fn connection(mut socket: TcpStream, answer: Arc<Vec<u8>>, token: Arc<Vec<u8>>) {
    let _ = socket.set_nodelay(true);
    let mut bytes = Vec::with_capacity(8 << 10);
    loop {
        bytes.clear();
        while !is_complete(&bytes) {
            if !matches!(socket.read_buf(&mut bytes).await, Ok(1..)) {
                return;
            }
        }
        let answer = if bytes.starts_with(b"POST /token ") { &token } else { &answer };
        if socket.write_all(answer).await.is_err() {
            return;
        }
    }
}

/// Whether head and body of a request are there.
fn is_complete(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    bytes.len() >= end + 4 + length
}

/// The medians in microseconds, each with its ratio to `openai`.
fn table(folder: &Path) -> String {
    let mut table = String::from("| vendor |");
    for (_, title) in GROUPS {
        let _ = write!(table, " {title} |");
    }
    table.push_str("\n| --- | --- | --- | --- | --- |\n");
    let mut vendors: Vec<_> = Vendor::ALL.to_vec();
    vendors.sort_by_key(|&vendor| vendor != Vendor::OpenAi);
    for vendor in vendors {
        let _ = write!(table, "| {vendor} |");
        for (group, _) in GROUPS {
            let cell = match (micros(folder, group, vendor), micros(folder, group, Vendor::OpenAi))
            {
                (Some(own), Some(openai)) => format!("{own:.2} µs ({:.2}×)", own / openai),
                _ => "–".to_owned(),
            };
            let _ = write!(table, " {cell} |");
        }
        table.push('\n');
    }
    table
}

/// What the benchmark has measured last, for one chunk where it was a stream of them.
fn micros(folder: &Path, group: &str, vendor: Vendor) -> Option<f64> {
    let file = folder.join(group).join(vendor.to_string()).join("new/estimates.json");
    let estimates: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let nanos = estimates.pointer("/median/point_estimate")?.as_f64()?;
    let n_chunks = u32::try_from(Sample::of(vendor, N_CHUNKS).stream.len()).ok()?;
    let parts = if group == "chunk" { f64::from(n_chunks) } else { 1.0 };
    Some(nanos / parts / 1_000.0)
}
