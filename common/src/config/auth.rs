use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::id::AccountId;

/// Who may call.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// A key that exists from the first start on, for automation; at least 16 characters.
    #[serde(default, serialize_with = "super::shown::secret")]
    pub bootstrap_key: Option<SecretString>,
    /// The account of the bootstrap key and of `inferq key create` without `--account`.
    pub default_account: AccountId,
}

impl AuthConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let Some(key) = &self.bootstrap_key else { return Ok(()) };
        let key = key.expose_secret();
        // It travels in a header.
        if (16..=256).contains(&key.len()) && key.chars().all(|c| c.is_ascii_graphic()) {
            return Ok(());
        }
        Err(ConfigError::refused(
            "auth.bootstrap_key",
            "must be 16 to 256 letters, digits and signs of ASCII; `openssl rand -hex 32` makes a \
             good one",
        ))
    }
}
