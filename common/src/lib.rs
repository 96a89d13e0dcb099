//! What api and worker both speak about: the domain, the store, the broker and the configuration.
//!
//! Read in this order: the domain (`id` to `retry`) is plain data and pure rules; `store` and
//! `broker` are the two edges every process shares; the rest serves a process as a whole.

pub mod clock;
pub mod id;
pub mod vendor;
pub mod job;
pub mod error;
pub mod usage;
pub mod model;
pub mod account;
pub mod callback;
pub mod view;
pub mod retry;

pub mod store;
pub mod broker;

pub mod config;
