use std::{borrow::Cow, collections::BTreeMap, path::PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;

use super::{ConfigError, DAY_MS, proxy::ProxyUrl};
use crate::vendor::Vendor;

/// How one vendor is reached. Each vendor uses the keys its documents know; the others stay unset.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct VendorConfig {
    /// Stands in for scheme, host and whatever fixed prefix the real vendor has.
    #[serde(deserialize_with = "super::read::optional_url")]
    pub base_url: Option<Url>,
    #[serde(serialize_with = "super::shown::secret")]
    pub api_key: Option<SecretString>,
    /// Further keys, taken in turn when the ones before are exhausted or refused.
    #[serde(deserialize_with = "super::read::secrets", serialize_with = "super::shown::secrets")]
    pub api_keys: Vec<SecretString>,
    /// AWS.
    pub region: Option<String>,
    #[serde(serialize_with = "super::shown::secret")]
    pub access_key_id: Option<SecretString>,
    #[serde(serialize_with = "super::shown::secret")]
    pub secret_access_key: Option<SecretString>,
    #[serde(serialize_with = "super::shown::secret")]
    pub session_token: Option<SecretString>,
    /// The named profile of the AWS configuration files.
    pub profile: Option<String>,
    /// Google Cloud, and OpenAI's header of this name.
    pub project: Option<String>,
    /// OpenAI's header of this name.
    pub organization: Option<String>,
    /// Google Cloud: a region, a multi-region or `global`.
    pub location: Option<String>,
    /// A Google service-account key: the JSON itself.
    #[serde(serialize_with = "super::shown::secret")]
    pub service_account: Option<SecretString>,
    /// Google's credentials file, used where there is no `service_account`.
    pub credentials_file: Option<PathBuf>,
    /// Microsoft Entra.
    pub tenant_id: Option<String>,
    pub client_id: Option<String>,
    #[serde(serialize_with = "super::shown::secret")]
    pub client_secret: Option<SecretString>,
    /// A file with a token that Entra takes instead of a secret; read anew for each token.
    pub federated_token_file: Option<String>,
    /// Whether the machine's own identity is used.
    pub managed_identity: Option<bool>,
    /// Where Entra answers, in a sovereign cloud.
    #[serde(deserialize_with = "super::read::optional_url")]
    pub authority_url: Option<Url>,
    /// The version a vendor wants named with each call.
    pub api_version: Option<String>,
    /// Which of a vendor's surfaces is spoken: azure `v1`, `classic` or `inference`; launch `gateway` or `direct`.
    pub api: Option<String>,
    /// Sent with every call, on top of the vendor's own.
    #[serde(serialize_with = "super::shown::header_names")]
    pub headers: BTreeMap<String, SecretString>,
    /// Calls go through this HTTP proxy.
    pub proxy: Option<ProxyUrl>,
    /// Bounds the making of a connection.
    pub connect_timeout_ms: u64,
    /// The longest wait for the head of an answer; unset: the job's timeout alone.
    pub first_byte_timeout_ms: Option<u64>,
    /// The longest silence between two parts of a streamed answer.
    pub idle_timeout_ms: u64,
    /// Connections to one host at once, in one process, whichever keys and models they are for.
    pub max_connections: usize,
    /// Larger answers end the attempt with `response_too_large`.
    pub max_response_bytes: usize,
    /// What differs for single models, by the vendor's own name of the model.
    pub models: BTreeMap<String, ModelOverrides>,
}

/// The settings of one model that differ from its vendor's.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelOverrides {
    #[serde(deserialize_with = "super::read::optional_url")]
    pub base_url: Option<Url>,
    #[serde(serialize_with = "super::shown::secret")]
    pub api_key: Option<SecretString>,
    pub region: Option<String>,
    pub project: Option<String>,
    pub location: Option<String>,
    pub api_version: Option<String>,
    pub api: Option<String>,
    #[serde(serialize_with = "super::shown::header_names")]
    pub headers: BTreeMap<String, SecretString>,
    pub connect_timeout_ms: Option<u64>,
    pub first_byte_timeout_ms: Option<u64>,
    pub idle_timeout_ms: Option<u64>,
    /// What the server calls the model, where that differs.
    pub upstream_model: Option<String>,
}

impl Default for VendorConfig {
    fn default() -> Self {
        Self {
            base_url: None,
            api_key: None,
            api_keys: Vec::new(),
            region: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            profile: None,
            project: None,
            organization: None,
            location: None,
            service_account: None,
            credentials_file: None,
            tenant_id: None,
            client_id: None,
            client_secret: None,
            federated_token_file: None,
            managed_identity: None,
            authority_url: None,
            api_version: None,
            api: None,
            headers: BTreeMap::new(),
            proxy: None,
            connect_timeout_ms: 5_000,
            first_byte_timeout_ms: None,
            idle_timeout_ms: 300_000,
            max_connections: 1024,
            max_response_bytes: 64 << 20,
            models: BTreeMap::new(),
        }
    }
}

impl VendorConfig {
    /// The settings for one model: the vendor's, with what is set for the model in their place.
    /// Headers add up.
    #[must_use]
    pub fn for_model(&self, model: &str) -> Self {
        let mut own = Self { models: BTreeMap::new(), ..self.clone() };
        let Some(model) = self.models.get(model) else { return own };
        if let Some(key) = &model.api_key {
            own.api_key = Some(key.clone());
            own.api_keys.clear();
        }
        replace(&mut own.base_url, model.base_url.as_ref());
        replace(&mut own.region, model.region.as_ref());
        replace(&mut own.project, model.project.as_ref());
        replace(&mut own.location, model.location.as_ref());
        replace(&mut own.api_version, model.api_version.as_ref());
        replace(&mut own.api, model.api.as_ref());
        replace(&mut own.first_byte_timeout_ms, model.first_byte_timeout_ms.as_ref());
        own.headers.extend(model.headers.clone());
        own.connect_timeout_ms = model.connect_timeout_ms.unwrap_or(own.connect_timeout_ms);
        own.idle_timeout_ms = model.idle_timeout_ms.unwrap_or(own.idle_timeout_ms);
        own
    }

    pub(super) fn validate(&self, vendor: Vendor) -> Result<(), ConfigError> {
        let section = format!("vendors.{vendor}");
        let key = |name: &str| format!("{section}.{name}");
        if let Some(url) = &self.base_url {
            check_url(url, key("base_url"))?;
        }
        if let Some(url) = &self.authority_url {
            check_url(url, key("authority_url"))?;
        }
        if let Some(proxy) = &self.proxy {
            proxy.validate(|| key("proxy"))?;
        }
        for (name, secret) in [
            ("api_key", &self.api_key),
            ("access_key_id", &self.access_key_id),
            ("secret_access_key", &self.secret_access_key),
            ("session_token", &self.session_token),
            ("client_secret", &self.client_secret),
        ] {
            check_secret(secret.as_ref(), || key(name))?;
        }
        for secret in &self.api_keys {
            check_secret(Some(secret), || key("api_keys"))?;
        }
        check_headers(&self.headers, || key("headers"))?;
        let (connect, idle) = (self.connect_timeout_ms, self.idle_timeout_ms);
        ConfigError::unless_in(1..=DAY_MS, connect, key("connect_timeout_ms"))?;
        ConfigError::unless_in(1..=DAY_MS, idle, key("idle_timeout_ms"))?;
        if let Some(first) = self.first_byte_timeout_ms {
            ConfigError::unless_in(1..=DAY_MS, first, key("first_byte_timeout_ms"))?;
        }
        ConfigError::unless_in(1..=100_000, self.max_connections, key("max_connections"))?;
        ConfigError::unless_in(1..=1 << 30, self.max_response_bytes, key("max_response_bytes"))?;
        for (name, model) in &self.models {
            model.validate(&format!("{section}.models.{name}"))?;
        }
        Ok(())
    }
}

impl ModelOverrides {
    fn validate(&self, section: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{section}.{name}");
        if let Some(url) = &self.base_url {
            check_url(url, key("base_url"))?;
        }
        check_secret(self.api_key.as_ref(), || key("api_key"))?;
        check_headers(&self.headers, || key("headers"))?;
        for (name, value) in [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("first_byte_timeout_ms", self.first_byte_timeout_ms),
            ("idle_timeout_ms", self.idle_timeout_ms),
        ] {
            ConfigError::unless_in(1..=DAY_MS, value.unwrap_or(1), key(name))?;
        }
        Ok(())
    }
}

fn replace<T: Clone>(own: &mut Option<T>, other: Option<&T>) {
    if let Some(other) = other {
        *own = Some(other.clone());
    }
}

/// A secret travels in a header.
fn check_secret(
    secret: Option<&SecretString>,
    key: impl FnOnce() -> String,
) -> Result<(), ConfigError> {
    match secret {
        Some(secret) if !secret.expose_secret().chars().all(|c| c.is_ascii_graphic()) => {
            Err(ConfigError::refused(key(), "must be visible ASCII, no spaces"))
        }
        _ => Ok(()),
    }
}

/// Credentials have their own keys: headers of these names would get in their way, and would go out
/// with the calls of accounts that have a credential of their own.
const OWN_HEADERS: &[&str] = &[
    "api-key",
    "authorization",
    "content-length",
    "cookie",
    "host",
    "proxy-authorization",
    "transfer-encoding",
    "x-api-key",
    "x-goog-api-key",
];

fn check_headers(
    headers: &BTreeMap<String, SecretString>,
    key: impl Fn() -> String,
) -> Result<(), ConfigError> {
    for (name, value) in headers {
        let refused = |reason: &str| Err(ConfigError::refused(format!("{}.{name}", key()), reason));
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        {
            return refused("is no name of an HTTP header");
        }
        if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
            return refused("cannot be set here");
        }
        if !value.expose_secret().chars().all(|c| c.is_ascii_graphic() || c == ' ') {
            return refused("must be visible ASCII");
        }
    }
    Ok(())
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
