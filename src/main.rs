//! The binary: parses the command line, loads the configuration, calls a library and maps the
//! result to an exit code.

mod client;
mod command;
mod exit;
mod output;
mod platform;
mod stop;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::exit::{Failure, code};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An asynchronous inference platform in one binary.
///
/// `inferq dev` runs everything in this process and needs nothing else. `inferq api` and
/// `inferq worker`, as many of each as you like, share one Postgres and one RabbitMQ.
#[derive(Debug, Parser)]
#[command(version, after_help = exit::HELP)]
struct Cli {
    /// Configuration file (TOML); keys of the environment (INFERQ__SECTION__KEY) stand above it
    #[arg(long, global = true, env = "INFERQ_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole platform in this process, on SQLite: for a laptop
    Dev(command::dev::DevArgs),
    /// Take requests over HTTP
    Api(command::api::ApiArgs),
    /// Run jobs and deliver callbacks
    Worker(command::worker::WorkerArgs),
    /// Bring the store's tables up to date
    Migrate(command::migrate::MigrateArgs),
    /// Manage API keys and callback secrets
    Key(command::key::KeyArgs),
    /// Submit and follow jobs
    Job(command::job::JobArgs),
    /// Look at registered models
    Model(command::model::ModelArgs),
    /// See which vendors are set up, and whether their keys work
    Vendor(command::vendor::VendorArgs),
    /// Store the credentials that calls of an account are made with
    Credential(command::credential::CredentialArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The one TLS provider; it may only be there already if this ran twice.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if matches!(cli.command, Command::Api(_) | Command::Worker(_)) {
        runtime.worker_threads(threads());
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::new(code::SYSTEM, error.to_string()).report(),
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Threads of a process that speaks to a broker: the broker's client has one of its own, which every
/// message goes through. Where it has to share a core with the others, each hop waits for a turn.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let config = cli.config.as_deref();
    match cli.command {
        Command::Dev(args) => command::dev::run(args, config).await,
        Command::Api(args) => command::api::run(args, config).await,
        Command::Worker(args) => command::worker::run(args, config).await,
        Command::Migrate(args) => command::migrate::run(args, config).await,
        Command::Key(args) => command::key::run(args, config).await,
        Command::Job(args) => command::job::run(args).await,
        Command::Model(args) => command::model::run(args).await,
        Command::Vendor(args) => command::vendor::run(args, config).await,
        Command::Credential(args) => command::credential::run(args).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn undocumented(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        for arg in command.get_arguments() {
            if arg.get_help().is_none_or(|help| help.to_string().is_empty()) {
                found.push(format!("{path} {}", arg.get_id()));
            }
        }
        for command in command.get_subcommands() {
            let path = format!("{path} {}", command.get_name());
            if command.get_about().is_none() {
                found.push(path.clone());
            }
            undocumented(command, &path, found);
        }
    }

    #[test]
    fn every_command_and_every_argument_has_a_line_of_help() {
        let command = Cli::command();
        command.clone().debug_assert();
        let mut found = Vec::new();
        undocumented(&command, "inferq", &mut found);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn the_help_reads_so() {
        let command = Cli::command().mut_arg("config", |arg| arg.hide_env_values(true));
        let help = command.term_width(100).render_long_help();
        insta::assert_snapshot!(help);
    }
}
