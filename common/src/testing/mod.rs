//! Servers for tests.

pub mod rabbitmq;
