//! Whether memory stays flat: keeps a number of jobs in flight and looks once in a while.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use tokio::time::{Instant, interval};

use crate::{
    compare::{self, Setup, Stack, Started},
    load::Kind,
    report::print,
};

/// Before the first look: lanes, pools and caches are filled.
const WARM_UP_SECONDS: f64 = 10.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum On {
    /// `dev`, on SQLite
    Embedded,
    /// `api` and `worker`, on Postgres and RabbitMQ
    Servers,
}

#[derive(Debug, Args)]
pub struct SoakArgs {
    /// The inferq binary, built with --release
    #[arg(long)]
    inferq: PathBuf,
    #[arg(long, value_enum, default_value = "embedded")]
    on: On,
    /// postgres:// of a server where databases may be made; for --on servers
    #[arg(long, env = "INFERQ_TEST_POSTGRES_URL")]
    postgres: Option<String>,
    /// For --on servers
    #[arg(long, env = "INFERQ_TEST_AMQP_URL")]
    amqp: Option<String>,
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Between two looks at the memory
    #[arg(long, default_value_t = 60.0)]
    every_seconds: f64,
    /// Jobs in flight
    #[arg(long, default_value_t = 128)]
    in_flight: usize,
    /// The vendor answers after this long: sets how many jobs there are in all, and so the disk
    #[arg(long, default_value_t = 200)]
    delay_ms: u64,
}

/// One look: minutes since the first, and MiB.
type Look = (f64, f64);

/// A process and what it held at each look.
struct Held {
    name: String,
    looks: Vec<Look>,
}

pub async fn run(args: SoakArgs) -> anyhow::Result<()> {
    ensure!(args.minutes > 0.0 && args.every_seconds > 0.0, "the times must be above 0");
    let folder = tempfile::tempdir()?;
    let (stack, postgres, amqp) = match args.on {
        On::Embedded => (Stack::Embedded, "", ""),
        On::Servers => {
            let postgres = args.postgres.as_deref().context("--on servers needs --postgres")?;
            (Stack::Inferq, postgres, args.amqp.as_deref().context("it needs --amqp too")?)
        }
    };
    let setup = Setup {
        inferq: &args.inferq,
        postgres,
        amqp,
        number: 0,
        delay_ms: args.delay_ms,
        concurrency: compare::CONCURRENCY,
    };
    let started = compare::start(&setup, stack, folder.path()).await?;
    compare::load(&started.url, Kind::Async, args.in_flight, WARM_UP_SECONDS).await?;

    let mut held = Vec::new();
    let load = compare::load(&started.url, Kind::Async, args.in_flight, 60.0 * args.minutes);
    let report = tokio::select! {
        report = load => report?,
        never = look_on(&started, args.every_seconds, &mut held) => match never? {},
    };
    // Idle again: what is left is what it keeps.
    look(&started, args.minutes, &mut held);
    started.stop().await?;
    print(&format!(
        "\n{} jobs in {} minutes, {:.0} jobs/s, {} in flight, p50 {:.0} ms, p99 {:.0} ms\n",
        report.jobs,
        args.minutes,
        report.jobs_per_second,
        args.in_flight,
        report.p50_ms,
        report.p99_ms
    ));
    print("| memory (PSS) | first | last | most | slope |\n| --- | --- | --- | --- | --- |");
    for Held { name, looks } in &held {
        let (Some((_, first)), Some((_, last))) = (looks.first(), looks.last()) else { continue };
        let most = looks.iter().map(|(_, mib)| *mib).fold(0.0, f64::max);
        let slope = slope(looks) * 1024.0;
        print(&format!(
            "| {name} | {first:.1} MiB | {last:.1} MiB | {most:.1} MiB | {slope:+.0} KiB a minute |"
        ));
    }
    Ok(())
}

/// Looks at the memory every so often, until it is dropped.
async fn look_on(
    started: &Started,
    every_seconds: f64,
    held: &mut Vec<Held>,
) -> anyhow::Result<std::convert::Infallible> {
    let begun = Instant::now();
    let mut times = interval(Duration::from_secs_f64(every_seconds));
    loop {
        times.tick().await;
        look(started, begun.elapsed().as_secs_f64() / 60.0, held);
    }
}

fn look(started: &Started, minute: f64, held: &mut Vec<Held>) {
    let memory = started.memory();
    let words: Vec<String> =
        memory.iter().map(|(name, mib)| format!("{name} {mib:.1} MiB")).collect();
    print(&format!("minute {minute:4.1}: {}", words.join(", ")));
    for (name, mib) in memory {
        match held.iter_mut().find(|held| held.name == name) {
            Some(held) => held.looks.push((minute, mib)),
            None => held.push(Held { name, looks: vec![(minute, mib)] }),
        }
    }
}

/// MiB a minute, by least squares.
fn slope(looks: &[Look]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "looks are few")]
    let n = looks.len() as f64;
    let mean = |of: fn(&Look) -> f64| looks.iter().map(of).sum::<f64>() / n;
    let (minute, mib) = (mean(|look| look.0), mean(|look| look.1));
    let spread: f64 = looks.iter().map(|look| (look.0 - minute).powi(2)).sum();
    if spread == 0.0 {
        return 0.0;
    }
    looks.iter().map(|look| (look.0 - minute) * (look.1 - mib)).sum::<f64>() / spread
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn a_slope_is_what_a_minute_adds() {
        let close = |looks: &[(f64, f64)], expected: f64| {
            assert!((slope(looks) - expected).abs() < 1e-9, "{looks:?}");
        };
        close(&[(0.0, 30.0), (1.0, 32.0), (2.0, 34.0)], 2.0);
        close(&[(0.0, 30.0), (1.0, 30.0)], 0.0);
        close(&[(0.0, 30.0), (1.0, 33.0), (2.0, 30.0)], 0.0);
        close(&[(0.0, 30.0)], 0.0);
    }
}
