//! Workers on a real store and a real broker of one process.

#![expect(clippy::unwrap_used, reason = "tests unwrap freely, and so do their helpers")]

mod attempts;
mod broker;
mod credentials;
mod flaky;
mod gate;
mod keys;
mod lent;
mod platform;
mod registered;
mod rescue;
mod stops;
mod streams;
mod tasks;
mod vendor;
