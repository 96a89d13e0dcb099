//! `inferq worker`: runs jobs and delivers callbacks.

use std::{net::SocketAddr, path::Path};

use clap::Args;
use inferq_common::{config::Config, vendor::Vendor};

use crate::{
    exit::Failure,
    platform::{self, Platform, Roles},
};

#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// Where to serve /healthz, /readyz and /metrics; default: nowhere
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Vendors whose jobs to run; default: all
    #[arg(long, value_delimiter = ',', value_name = "VENDOR,…")]
    vendors: Vec<Vendor>,
    /// Jobs of one vendor at once (1 to 10000)
    #[arg(long, value_name = "N")]
    concurrency: Option<usize>,
}

pub async fn run(args: WorkerArgs, file: Option<&Path>) -> Result<(), Failure> {
    // Among the settings, so that its range is checked like theirs.
    let concurrency = args.concurrency.map(|number| number.to_string());
    let concurrency = concurrency.as_deref().map(|number| ("worker.concurrency", number));
    let mut config = Config::load_with(file, concurrency.as_slice())?;
    if args.listen.is_some() {
        config.worker.listen = args.listen;
    }
    if !args.vendors.is_empty() {
        config.worker.vendors = args.vendors;
    }
    platform::refuse_single_process(&config, "worker")?;
    Platform::start(config, Roles::WORKER).await?.run().await
}
