//! What api and worker both speak about: the domain, the store, the broker and the configuration.
//!
//! Read in this order: the domain (`id` to `retry`) is plain data and pure rules; `store` and
//! `broker` are the two edges every process shares; the rest serves a process as a whole.

pub mod account;
pub mod callback;
pub mod clock;
pub mod credential;
pub mod error;
pub mod id;
pub mod job;
pub mod json_schema;
pub mod members;
pub mod model;
pub mod retry;
pub mod route;
pub mod stream;
pub mod ticket;
pub mod usage;
pub mod vendor;
pub mod view;

pub mod broker;
pub mod publisher;
pub mod store;

pub mod cache;
pub mod config;
pub mod credential_source;
pub mod egress;
pub mod heartbeat;
pub mod inbox;
pub mod instance;
pub mod outage;
pub mod shutdown;
pub mod sweeper;
pub mod telemetry;
pub mod tls;

#[cfg(feature = "testing")]
pub mod testing;
