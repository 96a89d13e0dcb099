use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{ConfigError, DAY_MS};

/// Where jobs are kept.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `sqlite://path/to/file.db` or `postgres://user:password@host:5432/database`.
    #[serde(serialize_with = "super::shown::server_url")]
    pub url: SecretString,
    /// Connections of one process to Postgres.
    pub max_connections: u32,
    /// How long a statement waits for a connection before it is a 503.
    pub acquire_timeout_ms: u64,
    /// The most jobs in one group commit.
    pub max_group: usize,
}

impl DatabaseConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let url = self.url.expose_secret();
        if !["sqlite:", "postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme))
        {
            return Err(ConfigError::refused(
                "database.url",
                "must start with sqlite:// or postgres://",
            ));
        }
        // Submit, claim and finish each keep one busy; reads need the fourth.
        ConfigError::unless_in(4..=10_000, self.max_connections, "database.max_connections")?;
        let acquire = self.acquire_timeout_ms;
        ConfigError::unless_in(1..=DAY_MS, acquire, "database.acquire_timeout_ms")?;
        ConfigError::unless_in(1..=1000, self.max_group, "database.max_group")
    }

    /// Whether one process owns the store alone.
    pub fn is_sqlite(&self) -> bool {
        self.url.expose_secret().starts_with("sqlite:")
    }
}
