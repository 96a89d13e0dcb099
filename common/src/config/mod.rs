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
mod retention;
mod vendors;
mod worker;

use std::{collections::BTreeMap, path::Path};

use figment::{
    Figment,
    providers::{Env, Format as _, Serialized, Toml},
};
use serde::Deserialize;

pub use self::{
    api::ApiConfig,
    auth::AuthConfig,
    broker::BrokerConfig,
    callbacks::CallbacksConfig,
    database::DatabaseConfig,
    log::{LogConfig, LogFormat},
    retention::RetentionConfig,
    vendors::VendorConfig,
    worker::WorkerConfig,
};
use crate::vendor::Vendor;

/// Every setting with its default, unit and meaning.
pub const DEFAULTS: &str = include_str!("../../../config/default.toml");

/// All settings of a process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub database: DatabaseConfig,
    pub broker: BrokerConfig,
    pub api: ApiConfig,
    pub auth: AuthConfig,
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
    Refused { key: &'static str, reason: String },
}

impl ConfigError {
    pub(crate) fn refused(key: &'static str, reason: impl Into<String>) -> Self {
        Self::Refused { key, reason: reason.into() }
    }
}

impl Config {
    /// Loads the defaults, then `file` if there is one, then the environment.
    ///
    /// `DATABASE_URL`, `AMQP_URL` and the vendors' conventional variables (`OPENAI_API_KEY`, …)
    /// stand below their `INFERQ__` forms.
    ///
    /// # Errors
    /// `Invalid` for an unreadable file, an unknown key or a wrong type, `Refused` for a value out
    /// of range; each names the key.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Toml::string(DEFAULTS));
        if let Some(file) = file {
            figment = figment.merge(Toml::file_exact(file));
        }
        Self::extract(conventional(figment).merge(Env::prefixed("INFERQ__").split("__")))
    }

    fn extract(figment: Figment) -> Result<Self, ConfigError> {
        let config: Self =
            figment.extract().map_err(|errors| ConfigError::Invalid(words(errors)))?;
        config.database.validate()?;
        config.broker.validate()?;
        config.api.validate()?;
        config.auth.validate()?;
        config.worker.validate()?;
        config.callbacks.validate()?;
        config.retention.validate()?;
        for (vendor, settings) in &config.vendors {
            settings.validate(*vendor)?;
        }
        Ok(config)
    }

    /// The settings of one vendor; those of a vendor that is not configured are the defaults.
    pub fn vendor(&self, vendor: Vendor) -> VendorConfig {
        self.vendors.get(&vendor).cloned().unwrap_or_default()
    }
}

/// Variables other tools use as well, and the key each one stands for.
const CONVENTIONAL: &[(&str, &str)] = &[
    ("DATABASE_URL", "database.url"),
    ("AMQP_URL", "broker.url"),
    ("OPENAI_API_KEY", "vendors.openai.api_key"),
    ("OPENAI_BASE_URL", "vendors.openai.base_url"),
];

fn conventional(mut figment: Figment) -> Figment {
    for (variable, key) in CONVENTIONAL {
        if let Some(value) = Env::var(variable).filter(|value| !value.is_empty()) {
            figment = figment.merge(Serialized::default(key, value));
        }
    }
    figment
}

/// All complaints in one line, each with its key and where the value came from.
fn words(errors: figment::Error) -> String {
    let each = errors.into_iter().map(|error| {
        let path = error.path.join(".");
        let source = error.metadata.as_ref().map(|metadata| metadata.name.to_string());
        match (path.is_empty(), source) {
            (true, None) => error.kind.to_string(),
            (true, Some(source)) => format!("{} (in {source})", error.kind),
            (false, None) => format!("{path}: {}", error.kind),
            (false, Some(source)) => format!("{path}: {} (in {source})", error.kind),
        }
    });
    each.collect::<Vec<_>>().join("; ")
}
