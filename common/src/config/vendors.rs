use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::ConfigError;
use crate::vendor::Vendor;

/// How one vendor is reached.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VendorConfig {
    /// Stands in for scheme, host and whatever fixed prefix the real vendor has.
    pub base_url: Option<Url>,
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
        let scheme = self.base_url.as_ref().map(Url::scheme);
        if scheme.is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
            return Err(ConfigError::refused(
                "vendors.<vendor>.base_url",
                format!("the address of {vendor} must start with http:// or https://"),
            ));
        }
        if self.connect_timeout_ms == 0 || self.idle_timeout_ms == 0 || self.max_response_bytes == 0
        {
            return Err(ConfigError::refused(
                "vendors.<vendor>.connect_timeout_ms",
                format!("the limits of {vendor} must be at least 1"),
            ));
        }
        Ok(())
    }
}
