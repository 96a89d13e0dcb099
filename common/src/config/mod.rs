//! Typed settings: `config/default.toml` < file < environment (`INFERQ__SECTION__KEY`).
//!
//! Each section is a struct with its defaults and a `validate` that names the key it refuses.
//! Nothing else reads the environment.

mod api;
mod auth;
mod broker;
mod callbacks;
mod database;
mod log;
mod proxy;
mod read;
mod retention;
mod secrets;
mod shown;
mod sources;
mod vendors;
mod worker;

use std::{borrow::Cow, collections::BTreeMap, ops::RangeInclusive, path::Path};

use figment::Figment;
use serde::{Deserialize, Serialize};

pub use self::{
    api::ApiConfig,
    auth::AuthConfig,
    broker::BrokerConfig,
    callbacks::CallbacksConfig,
    database::DatabaseConfig,
    log::{LogConfig, LogFormat},
    proxy::ProxyUrl,
    retention::RetentionConfig,
    secrets::SecretsConfig,
    vendors::{ModelOverrides, VendorConfig},
    worker::WorkerConfig,
};
use crate::vendor::Vendor;

/// Every setting with its default, unit and meaning.
pub const DEFAULTS: &str = include_str!("../../../config/default.toml");

/// All settings of a process. Serialised, it shows no secret.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub database: DatabaseConfig,
    pub broker: BrokerConfig,
    pub api: ApiConfig,
    pub auth: AuthConfig,
    pub secrets: SecretsConfig,
    pub worker: WorkerConfig,
    pub callbacks: CallbacksConfig,
    pub retention: RetentionConfig,
    pub log: LogConfig,
    pub vendors: BTreeMap<Vendor, VendorConfig>,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key is unknown or its value has the wrong type.
    #[error("configuration: {0}")]
    Invalid(String),
    /// A value is outside what makes sense.
    #[error("configuration: {key}: {reason}")]
    Refused { key: Cow<'static, str>, reason: String },
}

/// The longest timeout or grace that can be set: a day.
const DAY_SECS: u64 = 24 * 60 * 60;
const DAY_MS: u64 = DAY_SECS * 1000;

impl ConfigError {
    pub(crate) fn refused(key: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Self::Refused { key: key.into(), reason: reason.into() }
    }

    /// Refuses a number outside `range`.
    fn unless_in<T: Copy + PartialOrd + std::fmt::Display>(
        range: RangeInclusive<T>,
        value: T,
        key: impl Into<Cow<'static, str>>,
    ) -> Result<(), Self> {
        if range.contains(&value) {
            return Ok(());
        }
        let (least, most) = range.into_inner();
        Err(Self::refused(key, format!("must be {least} to {most}, not {value}")))
    }
}

impl Config {
    /// Loads the defaults, then `file` if there is one, then the environment.
    ///
    /// `DATABASE_URL`, `AMQP_URL` and the vendors' conventional variables (`OPENAI_API_KEY`, …)
    /// stand below their `INFERQ__` forms. An empty variable counts as unset.
    ///
    /// # Errors
    /// `Invalid` for an unreadable file, an unknown key or a wrong type, `Refused` for a value out
    /// of range; each is one line that names the key.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_with(file, &[])
    }

    /// Like [`Self::load`], with settings (key and value) that stand above all others.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with(
        file: Option<&Path>,
        settings: &[(&'static str, &str)],
    ) -> Result<Self, ConfigError> {
        sources::refuse_single_underscores(Self::has)?;
        Self::extract(&sources::with_settings(sources::layered(file), settings))
    }

    /// Whether there is a setting of this key: its value is wrong at most.
    fn has(key: &str) -> bool {
        sources::knows::<Self>(key)
    }

    fn extract(figment: &Figment) -> Result<Self, ConfigError> {
        let config: Self = sources::extract(figment)?;
        config.database.validate()?;
        config.broker.validate()?;
        config.api.validate()?;
        config.auth.validate()?;
        config.secrets.validate()?;
        config.worker.validate()?;
        config.callbacks.validate()?;
        config.retention.validate()?;
        config.log.validate()?;
        for (vendor, settings) in &config.vendors {
            settings.validate(*vendor)?;
        }
        Ok(config)
    }

    /// The settings in force as one line of `key=value`, for the start-up log. Secrets are `***`;
    /// what is not set is left out.
    pub fn redacted(&self) -> String {
        let mut pairs = Vec::new();
        // Nothing here can fail: maps have text keys, numbers are finite.
        let tree = serde_json::to_value(self).unwrap_or_default();
        flatten(&tree, "", &mut pairs);
        pairs.sort();
        pairs.join(" ")
    }

    /// The settings of one vendor; those of a vendor that is not configured are the defaults.
    pub fn vendor(&self, vendor: Vendor) -> VendorConfig {
        self.vendors.get(&vendor).cloned().unwrap_or_default()
    }
}

fn flatten(value: &serde_json::Value, key: &str, pairs: &mut Vec<String>) {
    use serde_json::Value;
    match value {
        Value::Null => {}
        Value::Object(members) => {
            for (name, member) in members {
                let dot = if key.is_empty() { "" } else { "." };
                flatten(member, &format!("{key}{dot}{name}"), pairs);
            }
        }
        Value::Array(entries) => {
            let texts = entries.iter().map(|entry| entry.as_str().unwrap_or_default());
            pairs.push(format!("{key}=[{}]", texts.collect::<Vec<_>>().join(",")));
        }
        Value::String(text) => pairs.push(format!("{key}={text}")),
        other => pairs.push(format!("{key}={other}")),
    }
}

#[cfg(test)]
mod tests;
