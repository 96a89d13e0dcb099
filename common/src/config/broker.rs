use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::ConfigError;

/// How workers are woken.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerConfig {
    /// `memory:` (one process) or `amqp://user:password@host:5672/vhost` (`amqps://` for TLS).
    pub url: SecretString,
    /// Bounds a publish, its confirm included.
    pub publish_timeout_ms: u64,
    /// Bounds one try to connect.
    pub connect_timeout_ms: u64,
    /// Unconfirmed publishes of one process at once; more wait.
    pub max_outstanding: usize,
}

impl BrokerConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let url = self.url.expose_secret();
        if !["memory:", "amqp://", "amqps://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(ConfigError::refused(
                "broker.url",
                "must be memory: or start with amqp:// or amqps://",
            ));
        }
        if self.max_outstanding == 0 {
            return Err(ConfigError::refused("broker.max_outstanding", "must be at least 1"));
        }
        if self.publish_timeout_ms == 0 || self.connect_timeout_ms == 0 {
            return Err(ConfigError::refused("broker.publish_timeout_ms", "must be at least 1"));
        }
        Ok(())
    }

    /// Whether broker and workers live in this process.
    pub fn is_in_process(&self) -> bool {
        self.url.expose_secret().starts_with("memory:")
    }
}
