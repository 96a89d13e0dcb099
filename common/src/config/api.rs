use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use url::Url;

use super::{ConfigError, DAY_SECS, vendors::check_url};

/// The HTTP side.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// How clients reach it from outside, for links in callbacks; default: the listen address.
    #[serde(default, deserialize_with = "super::read::optional_url")]
    pub public_url: Option<Url>,
    /// Larger request bodies get 413.
    pub max_body_bytes: usize,
    /// Requests served at once; more get 503 with `Retry-After`.
    pub max_concurrent_requests: usize,
    /// Streams of one account open at once; more get 503 with `Retry-After`. All accounts together
    /// may have 1,024.
    pub max_streams_per_account: usize,
    /// How long a stop waits for callers in flight.
    pub shutdown_grace_secs: u64,
    /// The longest `Prefer: wait=N`, and the longest a synchronous call is held before it becomes
    /// a 504 that names the job.
    pub max_wait_secs: u64,
}

impl ApiConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let requests = self.max_concurrent_requests;
        ConfigError::unless_in(1..=1 << 30, self.max_body_bytes, "api.max_body_bytes")?;
        ConfigError::unless_in(1..=1_000_000, requests, "api.max_concurrent_requests")?;
        let streams = self.max_streams_per_account;
        ConfigError::unless_in(1..=1_000_000, streams, "api.max_streams_per_account")?;
        let grace = self.shutdown_grace_secs;
        ConfigError::unless_in(0..=DAY_SECS, grace, "api.shutdown_grace_secs")?;
        ConfigError::unless_in(1..=DAY_SECS, self.max_wait_secs, "api.max_wait_secs")?;
        match &self.public_url {
            Some(url) => check_url(url, "api.public_url"),
            None => Ok(()),
        }
    }
}
