use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

use super::ConfigError;

/// How callbacks are delivered.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallbacksConfig {
    /// Forbidden ranges (loopback, private, …) that callbacks may reach all the same.
    #[serde(deserialize_with = "networks")]
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
        if self.concurrency == 0 || self.per_host == 0 {
            return Err(ConfigError::refused(
                "callbacks.concurrency",
                "concurrency and per_host must be at least 1",
            ));
        }
        if self.timeout_ms == 0 {
            return Err(ConfigError::refused("callbacks.timeout_ms", "must be at least 1"));
        }
        Ok(())
    }
}

/// A list, or (from the environment) one text with commas.
fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
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
    let parse = |entry: &String| {
        entry.parse().map_err(|_| {
            serde::de::Error::custom(format!("'{entry}' is no CIDR range such as 10.0.0.0/8"))
        })
    };
    entries.iter().filter(|entry| !entry.is_empty()).map(parse).collect()
}
