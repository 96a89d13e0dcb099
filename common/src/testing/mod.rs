//! What tests of several crates share: a plain job, and servers (the ones the environment names, else
//! containers, else installed programs).

mod job;
mod port;
pub mod postgres;
pub mod rabbitmq;

pub use self::{job::queued_job, port::free_port};
