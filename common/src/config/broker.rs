use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{ConfigError, DAY_MS};

/// How workers are woken.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerConfig {
    /// `memory:` (one process) or `amqp://user:password@host:5672/vhost` (`amqps://` for TLS).
    #[serde(serialize_with = "super::shown::server_url")]
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
        let (publish, connect) = (self.publish_timeout_ms, self.connect_timeout_ms);
        ConfigError::unless_in(1..=DAY_MS, publish, "broker.publish_timeout_ms")?;
        ConfigError::unless_in(1..=DAY_MS, connect, "broker.connect_timeout_ms")?;
        ConfigError::unless_in(1..=100_000, self.max_outstanding, "broker.max_outstanding")
    }

    /// Whether broker and workers live in this process.
    pub fn is_in_process(&self) -> bool {
        self.url.expose_secret().starts_with("memory:")
    }
}
