//! `inferq migrate`: brings the store's tables up to date.

use std::path::Path;

use clap::Args;
use inferq_common::{config::Config, store};

use crate::{exit::Failure, output, platform};

#[derive(Debug, Args)]
pub struct MigrateArgs {}

pub async fn run(_args: MigrateArgs, file: Option<&Path>) -> Result<(), Failure> {
    let config = Config::load(file)?;
    let store = store::open(&config.database).map_err(|error| platform::store_failure(&error))?;
    store.migrate().await.map_err(|error| platform::database_failure(&config, &error))?;
    store.close().await;
    output::line(format_args!(
        "the {} store at {} is up to date",
        store.kind(),
        platform::place(&config.database)
    ))
}
