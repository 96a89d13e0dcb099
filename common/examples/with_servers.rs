//! Runs a command beside one Postgres and one RabbitMQ, which the tests find through their
//! environment; both end with it:
//!
//! `cargo run -p inferq-common --features testing --example with_servers -- cargo test`
//!
//! With `--durable` before the command, Postgres flushes every commit to the disk as in production.

use std::{env::args_os, ffi::OsString, process::ExitCode};

use inferq_common::testing::{postgres, rabbitmq};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

/// What shells answer when a command cannot be started.
const NOT_STARTED: u8 = 127;

/// What shells answer when a command was ended by a signal, without the signal's number.
const SIGNALLED: u8 = 128;

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = args_os().skip(1);
    let first = arguments.next();
    let durable = first.as_ref().is_some_and(|first| first == "--durable");
    let program = if durable { arguments.next() } else { first };
    let Some(program) = program else {
        eprintln!("usage: with_servers [--durable] COMMAND [ARGUMENT]...");
        return ExitCode::from(64);
    };
    // Taken over before anything is started that has to be stopped.
    let mut interrupted = signal(SignalKind::interrupt()).expect("a handler for SIGINT");
    let mut terminated = signal(SignalKind::terminate()).expect("a handler for SIGTERM");
    let run = run(durable, program, arguments.collect());
    tokio::select! {
        code = run => code,
        _ = interrupted.recv() => ExitCode::from(SIGNALLED + 2),
        _ = terminated.recv() => ExitCode::from(SIGNALLED + 15),
    }
}

/// Starts the servers, runs the command, stops the servers; dropped, all three are ended.
async fn run(durable: bool, program: OsString, arguments: Vec<OsString>) -> ExitCode {
    let postgres = async {
        if durable {
            postgres::Server::start_durable().await
        } else {
            postgres::Server::start().await
        }
    };
    let (postgres, rabbitmq) = tokio::join!(postgres, rabbitmq::Server::start());
    let started = Command::new(&program)
        .args(arguments)
        .env("INFERQ_TEST_POSTGRES_URL", postgres.url())
        .env(rabbitmq::AMQP_URL, rabbitmq.url())
        .env(rabbitmq::MANAGEMENT_URL, rabbitmq.management_url())
        .kill_on_drop(true)
        .spawn();
    match started {
        Ok(child) => wait(child).await,
        Err(error) => {
            eprintln!("{}: {error}", program.display());
            ExitCode::from(NOT_STARTED)
        }
    }
}

async fn wait(mut child: Child) -> ExitCode {
    let code = match child.wait().await {
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(SIGNALLED),
        Err(_) => NOT_STARTED,
    };
    ExitCode::from(code)
}
