//! Runs a command with one Postgres and one RabbitMQ, which the tests find in their environment:
//!
//! `cargo run -p inferq-common --features testing --example with_servers -- cargo test`

fn main() {}
