use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::credential::{MasterKey, MasterKeys};

/// Keys that protect what clients entrust to the store.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SecretsConfig {
    /// Seals stored credentials: 32 bytes in base64 or hex.
    #[serde(default, serialize_with = "super::shown::secret")]
    pub master_key: Option<SecretString>,
    /// Master keys of before: they open what they have sealed, and seal nothing.
    #[serde(deserialize_with = "super::read::secrets", serialize_with = "super::shown::secrets")]
    pub previous_master_keys: Vec<SecretString>,
    /// A file that holds the master key, used where `master_key` is not set.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
}

/// Reads a key; `key` names the setting it comes from.
fn parse(
    text: &SecretString,
    key: impl Into<std::borrow::Cow<'static, str>>,
) -> Result<MasterKey, ConfigError> {
    MasterKey::parse(text).map_err(|error| ConfigError::refused(key, error.to_string()))
}

impl SecretsConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        self.configured().map(drop)
    }

    /// The keys, without that of the file.
    fn configured(&self) -> Result<(Option<MasterKey>, Vec<MasterKey>), ConfigError> {
        let current =
            self.master_key.as_ref().map(|text| parse(text, "secrets.master_key")).transpose()?;
        let previous = self.previous_master_keys.iter().enumerate();
        let previous =
            previous.map(|(at, text)| parse(text, format!("secrets.previous_master_keys[{at}]")));
        Ok((current, previous.collect::<Result<_, _>>()?))
    }

    /// The master keys of this process; reads the key file if there is to be one.
    ///
    /// # Errors
    /// `Refused` if the file cannot be read or holds no key.
    pub fn master_keys(&self) -> Result<MasterKeys, ConfigError> {
        let (current, previous) = self.configured()?;
        let current = match (current, &self.key_file) {
            (None, Some(file)) => Some(of_file(file)?),
            (current, _) => current,
        };
        Ok(MasterKeys::new(current, previous))
    }
}

fn of_file(file: &Path) -> Result<MasterKey, ConfigError> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        ConfigError::refused("secrets.key_file", format!("cannot read {}: {error}", file.display()))
    })?;
    let text = SecretString::from(text);
    if text.expose_secret().trim().is_empty() {
        let reason = format!("{} is empty", file.display());
        return Err(ConfigError::refused("secrets.key_file", reason));
    }
    MasterKey::parse(&text).map_err(|error| {
        ConfigError::refused("secrets.key_file", format!("{} {error}", file.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> SecretsConfig {
        SecretsConfig { master_key: None, previous_master_keys: Vec::new(), key_file: None }
    }

    fn key(byte: u8) -> SecretString {
        format!("{byte:02x}").repeat(32).into()
    }

    #[test]
    fn a_setting_stands_above_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, format!("{}\n", key(1).expose_secret())).unwrap();
        let of_file = SecretsConfig { key_file: Some(file.clone()), ..config() };
        let id = |config: &SecretsConfig| config.master_keys().unwrap().current().unwrap().id();
        let plain = |byte| id(&SecretsConfig { master_key: Some(key(byte)), ..config() });
        assert_eq!(id(&of_file), plain(1));
        let both = SecretsConfig { master_key: Some(key(2)), ..of_file };
        assert_eq!(id(&both), plain(2));
        assert!(config().master_keys().unwrap().current().is_err());
    }

    #[test]
    fn a_file_that_holds_no_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let complaint = || {
            let config = SecretsConfig { key_file: Some(file.clone()), ..config() };
            config.master_keys().unwrap_err().to_string()
        };
        assert!(complaint().starts_with("configuration: secrets.key_file: cannot read "));
        for (text, words) in [("", "is empty"), ("hunter2", "must be 32 bytes in base64 or hex")] {
            std::fs::write(&file, text).unwrap();
            let said = complaint();
            assert!(said.contains(words) && said.contains("/key "), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn a_key_of_before_is_checked_too_and_not_repeated() {
        let keys = vec![key(1), "nonsense".into()];
        let said = SecretsConfig { previous_master_keys: keys, ..config() }.validate().unwrap_err();
        let said = said.to_string();
        assert!(said.contains("secrets.previous_master_keys[1]: must be 32 bytes"), "{said}");
        assert!(!said.contains("nonsense"), "{said}");
    }
}
