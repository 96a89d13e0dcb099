use serde::{Deserialize, Deserializer};

use super::ConfigError;
use crate::vendor::Vendor;

/// The side that runs jobs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// Jobs of one vendor at once in one process; vendors do not share it.
    pub concurrency: usize,
    /// Vendors whose lanes this process consumes; empty: all it has adapters for.
    #[serde(deserialize_with = "vendors")]
    pub vendors: Vec<Vendor>,
    /// How long a stop waits for attempts in flight before it hands them back.
    pub shutdown_grace_secs: u64,
    /// Where the worker serves its health and metrics; unset: nowhere.
    #[serde(default)]
    pub listen: Option<std::net::SocketAddr>,
}

impl WorkerConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=10_000).contains(&self.concurrency) {
            return Err(ConfigError::refused("worker.concurrency", "must be 1 to 10000"));
        }
        Ok(())
    }
}

/// A list, or (from the environment) one text with commas.
fn vendors<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vendor>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        List(Vec<String>),
    }
    let entries = match Form::deserialize(deserializer)? {
        Form::Text(text) => text.split(',').map(|entry| entry.trim().to_owned()).collect(),
        Form::List(list) => list,
    };
    let named = entries.iter().filter(|entry| !entry.is_empty());
    named.map(|entry| entry.parse().map_err(serde::de::Error::custom)).collect()
}
