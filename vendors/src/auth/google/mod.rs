//! Access tokens of Google Cloud: where they come from, and one that is good for now.
//!
//! The first of these that there is: the service account of the settings; the credentials file that
//! `GOOGLE_APPLICATION_CREDENTIALS` names; the one that `gcloud auth application-default login` left
//! behind; the metadata server of a machine of Google Cloud. Of a credentials file, every type is
//! read but federation from AWS and from executables.
//!
//! Why not the crate `google-cloud-auth`, which knows more sources: it makes the token of a service
//! account by itself and leaves out the token endpoint, so that a revoked key shows in the vendor's
//! 401 only; it starts refresh tasks that nobody waits for and reads clock and environment by
//! itself; and it has no way to say that a token was refused. What is left of it for us is less than
//! what it brings along (jiff, serde_with, three google-cloud crates).
//!
//! Source: <https://google.aip.dev/auth/4110>.

mod credentials;
mod exchange;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
use inferq_common::{config::VendorConfig, error::ErrorClass};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use self::{
    credentials::{Credentials, ServiceAccount},
    exchange::{Exchange, read, refused},
};
use super::{
    Authorize,
    token::{Fetch, Fetched, TokenCache},
};
use crate::{
    error::VendorError,
    remote::{Request, http::Clients},
};

const METADATA: &str = "http://metadata.google.internal/computeMetadata/v1/instance/\
                        service-accounts/default/token";
/// Where `gcloud` leaves credentials, below a person's home.
const WELL_KNOWN: &str = ".config/gcloud/application_default_credentials.json";
/// The metadata server is on the machine itself; elsewhere its address leads nowhere.
const METADATA_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const USER_PROJECT: HeaderName = HeaderName::from_static("x-goog-user-project");

const NOT_FOUND: &str = "vertex_ai is not configured: no Google credentials were found; set \
                         vendors.vertex_ai.service_account or GOOGLE_APPLICATION_CREDENTIALS, or \
                         run on Google Cloud with a service account";

/// Where credentials are looked for when the settings hold none.
#[derive(Debug, Clone)]
pub struct Ambient {
    /// The home of the person who runs this process.
    pub home: Option<PathBuf>,
    /// Where the metadata server hands out tokens.
    pub metadata: Url,
}

impl Ambient {
    /// This machine's. Always there: the address is a constant.
    pub fn of_machine() -> Option<Self> {
        Some(Self { home: std::env::home_dir(), metadata: Url::parse(METADATA).ok()? })
    }
}

/// Adds `Authorization: Bearer TOKEN`; the token is fetched with the first call.
#[derive(Debug)]
pub struct Google {
    cache: TokenCache<Fetch>,
    sources: Arc<Sources>,
}

/// Everything a token is fetched with.
#[derive(Debug)]
struct Sources {
    /// Of the settings.
    service_account: Option<Credentials>,
    file: Option<PathBuf>,
    /// `None` where the calls do not go to Google: what lies around on a machine is not for others.
    ambient: Option<Ambient>,
    exchange: Exchange,
    /// For the metadata server, which no proxy leads to.
    direct: Exchange,
    /// Whether the metadata server has ever answered: then its silence will pass.
    has_metadata: AtomicBool,
    /// The project that calls are counted for, as the credentials name it.
    quota_project: Mutex<Option<HeaderValue>>,
}

impl Google {
    /// Looks for credentials as `config` says and, where `ambient` is given, on the machine. Reads
    /// no file and asks nobody until the first call.
    ///
    /// # Errors
    /// A sentence for an operator: `service_account` is of no use.
    pub fn new(
        config: &VendorConfig,
        clients: &Clients,
        ambient: Option<Ambient>,
    ) -> Result<Self, String> {
        let account = service_account(config)?;
        let config = VendorConfig {
            // Another address of the vendor is none of the token endpoint.
            base_url: None,
            service_account: None,
            ..config.clone()
        };
        let direct = VendorConfig {
            proxy: None,
            connect_timeout_ms: u64::try_from(METADATA_CONNECT_TIMEOUT.as_millis())
                .unwrap_or(u64::MAX)
                .min(config.connect_timeout_ms),
            ..config.clone()
        };
        let sources = Arc::new(Sources {
            service_account: account.map(Credentials::ServiceAccount),
            file: config.credentials_file.clone(),
            ambient,
            exchange: Exchange { clients: clients.clone(), config },
            direct: Exchange { clients: clients.clone(), config: direct },
            has_metadata: AtomicBool::new(false),
            quota_project: Mutex::default(),
        });
        let fetching = Arc::clone(&sources);
        let fetch: Fetch = Box::new(move |now| {
            let sources = Arc::clone(&fetching);
            Box::pin(async move { sources.token(now).await })
        });
        let cache = TokenCache::new(fetch);
        Ok(Self { cache, sources })
    }

    /// Whether there may be credentials at all.
    pub fn has_sources(&self) -> bool {
        let Sources { service_account, file, ambient, .. } = self.sources.as_ref();
        service_account.is_some() || file.is_some() || ambient.is_some()
    }
}

/// The project that the service account of the settings belongs to.
///
/// # Errors
/// A sentence for an operator: `service_account` is of no use.
pub fn project_of(config: &VendorConfig) -> Result<Option<String>, String> {
    Ok(service_account(config)?.and_then(|account| account.project_id))
}

fn service_account(config: &VendorConfig) -> Result<Option<ServiceAccount>, String> {
    let json = config.service_account.as_ref().map(|json| json.expose_secret().trim());
    let Some(json) = json.filter(|json| !json.is_empty()) else { return Ok(None) };
    let account = ServiceAccount::parse(json.as_bytes()).map_err(|why| {
        format!(
            "service_account: must be the JSON of a Google service account's key file, but {why}"
        )
    })?;
    Ok(Some(account))
}

impl Sources {
    async fn token(&self, now: DateTime<Utc>) -> Result<Fetched, VendorError> {
        if let Some(account) = &self.service_account {
            return self.exchanged(account, now).await;
        }
        if let Some(path) = &self.file {
            return self.of_file(path, now).await;
        }
        let ambient = self.ambient.as_ref().ok_or_else(|| refused(NOT_FOUND))?;
        let well_known = ambient.home.as_ref().map(|home| home.join(WELL_KNOWN));
        if let Some(path) = well_known
            && tokio::fs::try_exists(&path).await.unwrap_or(false)
        {
            return self.of_file(&path, now).await;
        }
        let fetched = self.direct.metadata(ambient.metadata.clone(), now).await;
        match fetched {
            Ok(fetched) => {
                self.has_metadata.store(true, Ordering::Relaxed);
                Ok(fetched)
            }
            Err(error)
                if error.class() == ErrorClass::Transient
                    && error.error.vendor_status.is_none()
                    && !self.has_metadata.load(Ordering::Relaxed) =>
            {
                Err(refused(NOT_FOUND))
            }
            Err(error) => Err(error),
        }
    }

    /// Read anew for each token: files are replaced while a process runs.
    async fn of_file(&self, path: &Path, now: DateTime<Utc>) -> Result<Fetched, VendorError> {
        let json = read(path).await?;
        let credentials = Credentials::parse(&json).map_err(|why| {
            refused(format!("the Google credentials in {} are of no use: {why}", path.display()))
        })?;
        self.exchanged(&credentials, now).await
    }

    async fn exchanged(
        &self,
        credentials: &Credentials,
        now: DateTime<Utc>,
    ) -> Result<Fetched, VendorError> {
        let fetched = self.exchange.token(credentials, now).await?;
        let project = credentials.quota_project().and_then(|it| HeaderValue::from_str(it).ok());
        *self.quota_project.lock().expect("nothing panics while it is held") = project;
        Ok(fetched)
    }
}

fn bearer(token: &SecretString) -> Result<HeaderValue, VendorError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
        .map_err(|_| refused("no HTTP header can carry the Google access token"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[async_trait]
impl Authorize for Google {
    async fn authorize(
        &self,
        request: &mut Request,
        now: DateTime<Utc>,
    ) -> Result<(), VendorError> {
        let token = self.cache.get(now).await?;
        request.headers.insert(AUTHORIZATION, bearer(&token)?);
        let project = self.sources.quota_project.lock().expect("nothing panics while it is held");
        if let Some(project) = project.as_ref() {
            request.headers.entry(USER_PROJECT).or_insert_with(|| project.clone());
        }
        Ok(())
    }

    fn is_refreshable(&self) -> bool {
        true
    }

    async fn refused(&self) {
        self.cache.forget();
    }

    fn redact(&self, words: &mut String) {
        self.cache.redact(words);
    }
}

#[cfg(test)]
mod tests;
