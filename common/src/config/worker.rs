use serde::{Deserialize, Serialize};

use super::{ConfigError, DAY_SECS};
use crate::vendor::Vendor;

/// The side that runs jobs.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// Jobs of one vendor at once in one process; vendors do not share it.
    pub concurrency: usize,
    /// Vendors whose lanes this process consumes; empty: all it has adapters for.
    #[serde(deserialize_with = "super::read::list")]
    pub vendors: Vec<Vendor>,
    /// Whether apis are told of free places, to have calls begin there past their lanes.
    pub lend_places: bool,
    /// What whole answers of vendors may take together, in bytes as received.
    pub answer_memory_bytes: usize,
    /// How long a stop waits for attempts in flight before it hands them back.
    pub shutdown_grace_secs: u64,
    /// Where the worker serves its health and metrics; unset: nowhere.
    #[serde(default)]
    pub listen: Option<std::net::SocketAddr>,
}

impl WorkerConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::unless_in(1..=10_000, self.concurrency, "worker.concurrency")?;
        let memory = self.answer_memory_bytes;
        ConfigError::unless_in(1 << 20..=1 << 40, memory, "worker.answer_memory_bytes")?;
        let grace = self.shutdown_grace_secs;
        ConfigError::unless_in(0..=DAY_SECS, grace, "worker.shutdown_grace_secs")
    }
}
