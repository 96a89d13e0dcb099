use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::ConfigError;
use crate::id::AccountId;

/// Who may call.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// A key that exists from the first start on, for automation; at least 16 characters.
    #[serde(default)]
    pub bootstrap_key: Option<SecretString>,
    /// The account of the bootstrap key and of `inferq key create` without `--account`.
    pub default_account: AccountId,
}

impl AuthConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let length = self.bootstrap_key.as_ref().map(|key| key.expose_secret().len());
        if length.is_some_and(|length| !(16..=256).contains(&length)) {
            return Err(ConfigError::refused(
                "auth.bootstrap_key",
                "must have 16 to 256 characters; `openssl rand -hex 32` makes a good one",
            ));
        }
        Ok(())
    }
}
