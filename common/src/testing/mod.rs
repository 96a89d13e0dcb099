//! Servers for tests: the ones the environment names, else containers, else installed programs.

pub mod postgres;
pub mod rabbitmq;
