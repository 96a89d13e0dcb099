use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::ConfigError;

/// Where jobs are kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `sqlite://path/to/file.db` or `postgres://user:password@host:5432/database`.
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
        if self.max_connections < 4 {
            // Submit, claim and finish each keep one busy; reads need the fourth.
            return Err(ConfigError::refused("database.max_connections", "must be at least 4"));
        }
        if !(1..=1000).contains(&self.max_group) {
            return Err(ConfigError::refused("database.max_group", "must be 1 to 1000"));
        }
        Ok(())
    }

    /// Whether one process owns the store alone.
    pub fn is_sqlite(&self) -> bool {
        self.url.expose_secret().starts_with("sqlite:")
    }
}
