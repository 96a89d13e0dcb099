use std::borrow::Cow;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;

use super::{ConfigError, DAY_MS};
use crate::vendor::Vendor;

/// How one vendor is reached.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct VendorConfig {
    /// Stands in for scheme, host and whatever fixed prefix the real vendor has.
    #[serde(deserialize_with = "super::read::optional_url")]
    pub base_url: Option<Url>,
    #[serde(serialize_with = "super::shown::secret")]
    pub api_key: Option<SecretString>,
    /// Bounds the making of a connection.
    pub connect_timeout_ms: u64,
    /// The longest silence between two parts of a streamed answer.
    pub idle_timeout_ms: u64,
    /// Larger answers end the attempt with `response_too_large`.
    pub max_response_bytes: usize,
}

impl Default for VendorConfig {
    fn default() -> Self {
        Self {
            base_url: None,
            api_key: None,
            connect_timeout_ms: 5_000,
            idle_timeout_ms: 300_000,
            max_response_bytes: 64 << 20,
        }
    }
}

impl VendorConfig {
    pub(super) fn validate(&self, vendor: Vendor) -> Result<(), ConfigError> {
        let key = |name: &str| format!("vendors.{vendor}.{name}");
        if let Some(url) = &self.base_url {
            check_url(url, key("base_url"))?;
        }
        if let Some(secret) = &self.api_key
            && !secret.expose_secret().chars().all(|c| c.is_ascii_graphic())
        {
            // It travels in a header.
            return Err(ConfigError::refused(key("api_key"), "must be visible ASCII, no spaces"));
        }
        let (connect, idle) = (self.connect_timeout_ms, self.idle_timeout_ms);
        ConfigError::unless_in(1..=DAY_MS, connect, key("connect_timeout_ms"))?;
        ConfigError::unless_in(1..=DAY_MS, idle, key("idle_timeout_ms"))?;
        ConfigError::unless_in(1..=1 << 30, self.max_response_bytes, key("max_response_bytes"))
    }
}

/// Refuses what is no plain address of an HTTP server. Secrets have their own keys: a URL is shown
/// in logs.
pub(super) fn check_url(url: &Url, key: impl Into<Cow<'static, str>>) -> Result<(), ConfigError> {
    let reason = if !matches!(url.scheme(), "http" | "https") {
        "must start with http:// or https://"
    } else if !url.username().is_empty() || url.password().is_some() {
        "must not carry a user name or password"
    } else if url.query().is_some() || url.fragment().is_some() {
        "must end with its path: no '?' and no '#'"
    } else {
        return Ok(());
    };
    Err(ConfigError::refused(key, reason))
}
