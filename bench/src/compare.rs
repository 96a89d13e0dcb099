//! Runs inferq and the floor in turns and prints a table with ratios.
//!
//! Needs a Postgres and a RabbitMQ: `make bench` starts both. Each stack is started, measured and
//! stopped before the next one starts, so that none pays for another's idling.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use http::Method;
use sqlx::Connection as _;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::{
    cpu::Cpu,
    http_client::HttpClient,
    load::{self, Kind, LoadArgs, Report},
    report::{Spread, print},
};

pub(crate) const KEY: &str = "a-key-for-the-benchmarks-of-inferq";

/// Jobs of one vendor at once in one process, as they are unless configured.
pub(crate) const CONCURRENCY: u32 = 128;

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The inferq binary, built with --release
    #[arg(long)]
    inferq: PathBuf,
    /// postgres:// of a server where databases may be made
    #[arg(long, env = "INFERQ_TEST_POSTGRES_URL")]
    postgres: String,
    #[arg(long, env = "INFERQ_TEST_AMQP_URL")]
    amqp: String,
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Length of each measurement
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Clients of the throughput measurement
    #[arg(long, default_value_t = 128)]
    clients: usize,
    /// Also measure the memory of each process with this many jobs queued; 0: not
    #[arg(long, default_value_t = 100_000)]
    queued: u64,
    /// What to run; rows need both a stack and its floor
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Stack::ALL)]
    stacks: Vec<Stack>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stack {
    Floor,
    Inferq,
    /// `Inferq` whose workers lend no places.
    Lanes,
    EmbeddedFloor,
    Embedded,
}

impl Stack {
    const ALL: [Self; 5] =
        [Self::Floor, Self::Inferq, Self::Lanes, Self::EmbeddedFloor, Self::Embedded];
}

/// One row of the table: a figure of inferq beside the same of the floor.
#[derive(Default)]
struct Row {
    name: &'static str,
    unit: &'static str,
    /// Whether more is better.
    more: bool,
    inferq: Vec<f64>,
    floor: Vec<f64>,
}

/// What one start of a stack showed.
struct Measured {
    ready_ms: f64,
    throughput: Report,
    sync: Report,
    accept: Report,
    /// Name and MiB (PSS) of each process, after the throughput measurement.
    memory: Vec<(String, f64)>,
    /// Microseconds of processor time for each job of the throughput measurement, by program.
    cpu: BTreeMap<String, f64>,
}

pub async fn run(args: CompareArgs) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut rows = [
        row("async jobs, end to end", "jobs/s", true),
        row("the same, embedded", "jobs/s", true),
        row("202 after durable accept, one at a time, p50", "ms", false),
        row("sync, one at a time, p50", "ms", false),
        row("the same, embedded", "ms", false),
        row("the same on servers, every job through its lane", "ms", false),
    ];
    let mut ready = Vec::new();
    let mut memory: Vec<(String, Vec<f64>)> = Vec::new();
    let mut cpu = CpuTable::new();
    for round in 0..args.rounds {
        for stack in Stack::ALL.into_iter().filter(|stack| args.stacks.contains(stack)) {
            let measured = measure(&args, stack, folder.path(), round)
                .await
                .with_context(|| format!("{stack:?}, round {round}"))?;
            let figures: &[(usize, f64)] = match stack {
                Stack::Floor => &[
                    (0, measured.throughput.jobs_per_second),
                    (2, measured.accept.p50_ms),
                    (3, measured.sync.p50_ms),
                    (5, measured.sync.p50_ms),
                ],
                Stack::Inferq => &[
                    (0, measured.throughput.jobs_per_second),
                    (2, measured.accept.p50_ms),
                    (3, measured.sync.p50_ms),
                ],
                Stack::Lanes => &[(5, measured.sync.p50_ms)],
                Stack::EmbeddedFloor | Stack::Embedded => {
                    &[(1, measured.throughput.jobs_per_second), (4, measured.sync.p50_ms)]
                }
            };
            for &(index, figure) in figures {
                match stack {
                    Stack::Inferq | Stack::Lanes | Stack::Embedded => {
                        rows[index].inferq.push(figure);
                    }
                    Stack::Floor | Stack::EmbeddedFloor => rows[index].floor.push(figure),
                }
            }
            if stack == Stack::Embedded {
                ready.push(measured.ready_ms);
            }
            for (program, micros) in measured.cpu {
                cpu.entry((stack as usize, program)).or_default().push(micros);
            }
            if matches!(stack, Stack::Inferq | Stack::Embedded) {
                for (name, mib) in measured.memory {
                    match memory.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, figures)) => figures.push(mib),
                        None => memory.push((name, vec![mib])),
                    }
                }
            }
        }
        print(&format!("round {} of {} done", round + 1, args.rounds));
    }
    print_table(&args, &rows, &ready, &memory);
    print_cpu(&cpu);
    if args.queued > 0 {
        for stack in [Stack::Inferq, Stack::Embedded] {
            if args.stacks.contains(&stack) {
                print_memory_with_queue(&args, stack, folder.path()).await?;
            }
        }
    }
    Ok(())
}

/// What each process needs while its vendor answers nothing and jobs pile up.
async fn print_memory_with_queue(
    args: &CompareArgs,
    stack: Stack,
    folder: &Path,
) -> anyhow::Result<()> {
    let setup = setup(args, args.rounds, 3_600_000);
    let started = start(&setup, stack, folder).await?;
    let mut queued = 0;
    while queued < args.queued {
        queued += load(&started.url, Kind::Accept, args.clients, 2.0).await?.jobs;
    }
    for (name, mib) in started.memory() {
        print(&format!(
            "| memory (PSS) of {name} with {queued} jobs queued | {mib:.0} MiB | - | - |"
        ));
    }
    started.stop().await
}

fn setup(args: &CompareArgs, number: u32, delay_ms: u64) -> Setup<'_> {
    Setup {
        inferq: &args.inferq,
        postgres: &args.postgres,
        amqp: &args.amqp,
        number,
        delay_ms,
        concurrency: CONCURRENCY,
    }
}

fn row(name: &'static str, unit: &'static str, more: bool) -> Row {
    Row { name, unit, more, ..Row::default() }
}

fn print_table(args: &CompareArgs, rows: &[Row], ready: &[f64], memory: &[(String, Vec<f64>)]) {
    print(&format!(
        "\nmedian [min..max] of {} rounds of {} s, {} clients for throughput\n",
        args.rounds, args.seconds, args.clients
    ));
    print("| what | inferq | floor | ratio |\n| --- | --- | --- | --- |");
    for row in rows {
        let (Some(inferq), Some(floor)) = (Spread::of(&row.inferq), Spread::of(&row.floor)) else {
            continue;
        };
        let ratio = inferq.median / floor.median;
        let better = if row.more { "of the floor" } else { "× the floor" };
        print(&format!("| {} | {inferq} {} | {floor} | {ratio:.2} {better} |", row.name, row.unit));
    }
    if let Some(ready) = Spread::of(ready) {
        print(&format!("| start to ready, embedded | {ready} ms | - | - |"));
    }
    for (name, figures) in memory {
        if let Some(mib) = Spread::of(figures) {
            print(&format!("| memory (PSS) of {name} under load | {mib} MiB | - | - |"));
        }
    }
}

/// By stack and program, the figure of each round.
type CpuTable = BTreeMap<(usize, String), Vec<f64>>;

/// Where the time of the throughput measurement goes.
fn print_cpu(cpu: &CpuTable) {
    print("\n| processor time of an async job, µs | of which |\n| --- | --- |");
    for stack in Stack::ALL {
        let of_stack = cpu.iter().filter(|((index, _), _)| *index == stack as usize);
        let programs: Vec<(&str, f64)> = of_stack
            .filter_map(|((_, program), figures)| Some((&**program, Spread::of(figures)?.median)))
            .collect();
        if programs.is_empty() {
            continue;
        }
        let sum: f64 = programs.iter().map(|(_, micros)| micros).sum();
        let parts: Vec<String> =
            programs.iter().map(|(program, micros)| format!("{program} {micros:.0}")).collect();
        let name = stack.to_possible_value().expect("no stack is hidden");
        print(&format!("| {}: {sum:.0} | {} |", name.get_name(), parts.join(", ")));
    }
    print("");
}

/// What a stack is made of: the binary and the servers.
pub(crate) struct Setup<'a> {
    pub(crate) inferq: &'a Path,
    /// Empty where no stack on servers is started.
    pub(crate) postgres: &'a str,
    pub(crate) amqp: &'a str,
    /// Names its database.
    pub(crate) number: u32,
    /// How long the vendor takes for an answer.
    pub(crate) delay_ms: u64,
    /// Jobs of one vendor at once in one process of inferq.
    pub(crate) concurrency: u32,
}

/// A stack that is ready.
pub(crate) struct Started {
    /// Each with its name, the vendor among them.
    processes: Vec<(String, Child)>,
    pub(crate) url: String,
    /// Where the vendor's paths begin.
    pub(crate) vendor_url: String,
    ready_ms: f64,
    _data: TempDir,
}

impl Started {
    /// Name and MiB (PSS) of each process but the vendor.
    pub(crate) fn memory(&self) -> Vec<(String, f64)> {
        let measured = self.processes.iter().filter(|(name, _)| name != "vendor");
        let figures =
            measured.filter_map(|(name, child)| Some((name.clone(), pss_mib(child.id()?)?)));
        figures.collect()
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        for (_, mut child) in self.processes.into_iter().rev() {
            child.kill().await?;
        }
        Ok(())
    }
}

pub(crate) async fn start(
    setup: &Setup<'_>,
    stack: Stack,
    folder: &Path,
) -> anyhow::Result<Started> {
    let own = std::env::current_exe()?;
    let mut vendor = Command::new(&own);
    let delay = setup.delay_ms.to_string();
    let (vendor, vendor_address) = listening(vendor.args(["vendor", "--delay-ms", &delay])).await?;
    let vendor_url = format!("http://{vendor_address}/v1");
    let concurrency = setup.concurrency.to_string();
    let data = TempDir::new_in(folder)?;
    let begun = Instant::now();
    let mut processes = vec![("vendor".to_owned(), vendor)];
    let url = match stack {
        Stack::Floor => {
            let database =
                fresh_database(setup.postgres, &format!("bench_floor_{}", setup.number)).await?;
            let mut command = Command::new(&own);
            command.args(["floor", "--vendor", &vendor_url]);
            command.args(["--postgres", &database, "--amqp", setup.amqp]);
            let (floor, address) = listening(&mut command).await?;
            processes.push(("floor".to_owned(), floor));
            format!("http://{address}")
        }
        Stack::EmbeddedFloor => {
            let mut command = Command::new(&own);
            command.args(["floor", "--vendor", &vendor_url, "--sqlite"]);
            command.arg(data.path().join("floor.db"));
            let (floor, address) = listening(&mut command).await?;
            processes.push(("floor".to_owned(), floor));
            format!("http://{address}")
        }
        Stack::Inferq | Stack::Lanes => {
            let database =
                fresh_database(setup.postgres, &format!("bench_inferq_{}", setup.number)).await?;
            let lends = (stack == Stack::Inferq).to_string();
            let settings = [
                ("INFERQ__DATABASE__URL", database.as_str()),
                ("INFERQ__BROKER__URL", setup.amqp),
                ("INFERQ__VENDORS__OPENAI__BASE_URL", &vendor_url),
                ("INFERQ__WORKER__CONCURRENCY", &concurrency),
                ("INFERQ__WORKER__LEND_PLACES", &lends),
            ];
            let status =
                inferq(setup.inferq, &settings).arg("migrate").stdout(Stdio::null()).status();
            ensure!(status.await?.success(), "inferq migrate failed");
            let address = free_address()?;
            let mut api = inferq(setup.inferq, &settings);
            let mut worker = inferq(setup.inferq, &settings);
            processes.push(("api".to_owned(), api.args(["api", "--listen", &address]).spawn()?));
            processes.push(("worker".to_owned(), worker.arg("worker").spawn()?));
            format!("http://{address}")
        }
        Stack::Embedded => {
            let address = free_address()?;
            let settings = [
                ("INFERQ__VENDORS__OPENAI__BASE_URL", vendor_url.as_str()),
                ("INFERQ__WORKER__CONCURRENCY", &concurrency),
            ];
            let mut dev = inferq(setup.inferq, &settings);
            dev.args(["dev", "--listen", &address, "--data-dir"]).arg(data.path().join("data"));
            processes.push(("dev".to_owned(), dev.stdout(Stdio::null()).spawn()?));
            format!("http://{address}")
        }
    };
    is_ready(&url).await?;
    let ready_ms = begun.elapsed().as_secs_f64() * 1e3;
    Ok(Started { processes, url, vendor_url, ready_ms, _data: data })
}

async fn measure(
    args: &CompareArgs,
    stack: Stack,
    folder: &Path,
    round: u32,
) -> anyhow::Result<Measured> {
    let started = start(&setup(args, round, 0), stack, folder).await?;
    let url = &started.url;
    // Lanes, pools and caches are filled before anything counts.
    load(url, Kind::Async, 16, 1.0).await?;
    let sync = load(url, Kind::Sync, 1, args.seconds).await?;
    let accept = load(url, Kind::Accept, 1, args.seconds).await?;
    let pids: Vec<(String, u32)> = started
        .processes
        .iter()
        .filter_map(|(name, child)| Some((name.clone(), child.id()?)))
        .collect();
    let before = Cpu::now(&pids);
    let throughput = load(url, Kind::Async, args.clients, args.seconds).await?;
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    let n_jobs = throughput.jobs.max(1) as f64;
    let spent = Cpu::now(&pids).since(&before);
    let cpu = spent.into_iter().map(|(program, spent)| (program, spent * 1e6 / n_jobs)).collect();
    let (memory, ready_ms) = (started.memory(), started.ready_ms);
    started.stop().await?;
    Ok(Measured { ready_ms, throughput, sync, accept, memory, cpu })
}

pub(crate) async fn load(
    url: &str,
    kind: Kind,
    clients: usize,
    seconds: f64,
) -> anyhow::Result<Report> {
    let load = LoadArgs {
        url: url.to_owned(),
        key: Some(KEY.to_owned()),
        kind,
        clients,
        rate: None,
        seconds,
        model: "openai/mock".to_owned(),
        bytes: 400,
    };
    let report = load::run(&load).await?;
    if report.errors > 0 {
        bail!(
            "{} of the requests failed: {}",
            report.errors,
            report.first_error.unwrap_or_default()
        );
    }
    Ok(report)
}

/// An inferq process with these settings and none of the surroundings'.
fn inferq(binary: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary);
    command.env_clear().env("INFERQ__AUTH__BOOTSTRAP_KEY", KEY);
    command.env("INFERQ__LOG__FILTER", "warn").kill_on_drop(true);
    for (name, value) in settings {
        command.env(name, value);
    }
    command
}

/// Starts a program of this binary and reads the address it prints.
async fn listening(command: &mut Command) -> anyhow::Result<(Child, String)> {
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let stdout = child.stdout.take().context("its output is piped")?;
    let line = BufReader::new(stdout).lines().next_line().await?.context("it ended at once")?;
    let address = line.strip_prefix("listening on ").context("it prints its address")?;
    Ok((child, address.to_owned()))
}

fn free_address() -> anyhow::Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

async fn is_ready(url: &str) -> anyhow::Result<()> {
    let client = HttpClient::new(url, None);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        let answer = client.send(Method::GET, "/readyz", None, bytes::Bytes::new()).await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(());
        }
        sleep(Duration::from_millis(2)).await;
    }
    bail!("{url} was not ready within 20 s")
}

async fn fresh_database(server: &str, name: &str) -> anyhow::Result<String> {
    let mut connection = sqlx::PgConnection::connect(server).await.context("no Postgres")?;
    for statement in
        [format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"), format!("CREATE DATABASE {name}")]
    {
        // The name is made of the benchmark's own words and a number.
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await?;
    }
    let mut url: url::Url = server.parse()?;
    url.set_path(name);
    Ok(url.into())
}

/// The proportional share of memory of a process.
fn pss_mib(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find(|line| line.starts_with("Pss:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
