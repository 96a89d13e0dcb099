//! Workers on a real store and a real broker of one process.

mod attempts;
mod flaky;
mod platform;
mod rescue;
mod stops;
mod vendor;
