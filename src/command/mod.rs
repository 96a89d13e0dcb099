//! The subcommands, one file each.

pub mod api;
pub mod credential;
pub mod dev;
pub mod job;
pub mod key;
pub mod migrate;
pub mod model;
mod reseal;
pub mod vendor;
pub mod worker;
