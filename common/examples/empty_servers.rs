//! Makes an empty database and an empty virtual host on the test servers that the environment names,
//! and prints both addresses: `with_servers` starts such servers.
//!
//! `cargo run -p inferq-common --features testing --example empty_servers`

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::{env::var_os, process::ExitCode};

use inferq_common::testing::{postgres, rabbitmq};

#[tokio::main]
async fn main() -> ExitCode {
    // Servers started here would end with this process.
    for name in ["INFERQ_TEST_POSTGRES_URL", rabbitmq::AMQP_URL, rabbitmq::MANAGEMENT_URL] {
        if var_os(name).is_none() {
            eprintln!("{name} is not set: run this beside servers, as with_servers does");
            return ExitCode::from(64);
        }
    }
    println!("{}", postgres::fresh_database().await);
    println!("{}", rabbitmq::virtual_host().await);
    ExitCode::SUCCESS
}
