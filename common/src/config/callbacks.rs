use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{ConfigError, DAY_MS};

/// How callbacks are delivered.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CallbacksConfig {
    /// Forbidden ranges (loopback, private, …) that callbacks may reach all the same.
    #[serde(deserialize_with = "super::read::list")]
    pub allow_networks: Vec<IpNet>,
    /// Deliveries at once in one worker.
    pub concurrency: usize,
    /// Of these, to one host.
    pub per_host: u32,
    /// Bounds one POST, from name resolution to the answer's status.
    pub timeout_ms: u64,
}

impl CallbacksConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::unless_in(1..=10_000, self.concurrency, "callbacks.concurrency")?;
        ConfigError::unless_in(1..=10_000, self.per_host, "callbacks.per_host")?;
        ConfigError::unless_in(1..=DAY_MS, self.timeout_ms, "callbacks.timeout_ms")
    }
}
