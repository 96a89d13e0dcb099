use std::net::SocketAddr;

use serde::Deserialize;
use url::Url;

use super::ConfigError;

/// The HTTP side.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// How clients reach it from outside, for links in callbacks; default: the listen address.
    #[serde(default)]
    pub public_url: Option<Url>,
    /// Larger request bodies get 413.
    pub max_body_bytes: usize,
    /// Requests served at once; more get 503 with `Retry-After`.
    pub max_concurrent_requests: usize,
    /// How long a stop waits for callers in flight.
    pub shutdown_grace_secs: u64,
    /// The longest `Prefer: wait=N`, and the longest a synchronous call is held before it becomes
    /// a 504 that names the job.
    pub max_wait_secs: u64,
}

impl ApiConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.max_body_bytes == 0 || self.max_body_bytes > 1 << 30 {
            return Err(ConfigError::refused("api.max_body_bytes", "must be 1 to 1073741824"));
        }
        if self.max_concurrent_requests == 0 {
            return Err(ConfigError::refused("api.max_concurrent_requests", "must be at least 1"));
        }
        Ok(())
    }
}
