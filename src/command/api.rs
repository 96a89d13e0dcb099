//! `inferq api`: takes requests over HTTP.

use std::{net::SocketAddr, path::Path};

use clap::Args;

use crate::{
    exit::Failure,
    platform::{self, Platform, Roles},
};

#[derive(Debug, Args)]
pub struct ApiArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
}

pub async fn run(args: ApiArgs, file: Option<&Path>) -> Result<(), Failure> {
    let mut config = platform::load(file)?;
    if let Some(listen) = args.listen {
        config.api.listen = listen;
    }
    platform::refuse_single_process(&config, "api")?;
    Platform::start(config, Roles::API).await?.run().await
}
