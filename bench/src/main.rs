//! What inferq costs, measured: a load generator, a mock vendor, a floor to compare with, and the
//! comparison itself.

mod compare;
mod cpu;
mod floor;
mod group;
mod http_client;
mod load;
mod report;
mod soak;
mod streams;
mod vendor;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(about, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a mock OpenAI-compatible vendor
    Vendor(vendor::VendorArgs),
    /// Serve the floor: only the steps no durable queue can leave out
    Floor(floor::FloorArgs),
    /// Put load on a server and print latencies as JSON
    Load(load::LoadArgs),
    /// Run inferq and the floor in turns and print a table with ratios
    Compare(compare::CompareArgs),
    /// Keep inferq busy for minutes and print what memory it holds
    Soak(soak::SoakArgs),
    /// Print what the queue adds to a streamed answer, and how fast models are read
    Streams(streams::StreamsArgs),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut runtime = match cli.command {
        // One thread each, as they were when the limits were measured.
        Command::Vendor(_) | Command::Load(_) => tokio::runtime::Builder::new_current_thread(),
        Command::Floor(_) | Command::Compare(_) | Command::Soak(_) | Command::Streams(_) => {
            tokio::runtime::Builder::new_multi_thread()
        }
    };
    runtime.enable_all().build()?.block_on(async {
        match cli.command {
            Command::Vendor(args) => vendor::run(args).await,
            Command::Floor(args) => floor::run(args).await,
            Command::Load(args) => {
                let report = load::run(&args).await?;
                report::print(&serde_json::to_string(&report)?);
                Ok(())
            }
            Command::Compare(args) => compare::run(args).await,
            Command::Soak(args) => soak::run(args).await,
            Command::Streams(args) => streams::run(args).await,
        }
    })
}
