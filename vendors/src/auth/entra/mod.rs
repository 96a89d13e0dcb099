//! Microsoft Entra: tokens for an application, a workload or a managed identity.
//!
//! Sources: <https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-client-creds-grant-flow>,
//! <https://learn.microsoft.com/en-us/entra/identity/managed-identities-azure-resources/how-to-use-vm-token>.

mod answer;

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{
    HeaderMap, HeaderValue, Method,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use inferq_common::{config::VendorConfig, error::ErrorClass};
use secrecy::{ExposeSecret as _, SecretString};
use url::{Url, form_urlencoded::Serializer};

use self::answer::read;
use super::{
    Authorize, redact,
    token::{Fetch, Fetched, TokenCache},
};
use crate::{
    error::VendorError,
    remote::{
        Request,
        http::{Clients, Http},
    },
};

/// Where Entra itself answers; sovereign clouds have others.
const AUTHORITY: &str = "https://login.microsoftonline.com";
/// The metadata service of a virtual machine. Reachable from the machine alone, hence no TLS.
const METADATA: &str = "http://169.254.169.254/metadata/identity/oauth2/token";
/// The metadata service answers from the machine itself.
const METADATA_CONNECT_TIMEOUT_MS: u64 = 2_000;
const METADATA_VERSION: &str = "2018-02-01";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// A token has a few kilobytes.
const MAX_TOKEN_BYTES: usize = 256 * 1024;

/// Puts a token of Microsoft Entra into `Authorization`.
#[derive(Debug)]
pub struct Entra {
    tokens: TokenCache<Fetch>,
    /// Never shown, even where Entra repeats it.
    secret: Option<SecretString>,
}

/// Who asks for a token.
#[derive(Debug)]
enum Identity {
    Application {
        tenant: Url,
        client_id: String,
        secret: SecretString,
    },
    /// The token of a cluster stands in for a secret; the cluster renews the file.
    Workload {
        tenant: Url,
        client_id: String,
        file: PathBuf,
    },
    /// The machine itself, or the identity of this client id among those it has.
    Managed {
        endpoint: Url,
        client_id: Option<String>,
    },
}

impl Entra {
    /// What the settings describe: a client secret, a federated token, a managed identity, in this
    /// order; `None` where they describe none of these. Nothing is fetched or read yet.
    ///
    /// `resource` is what the token is for: an address without a `/` at its end.
    ///
    /// # Errors
    /// A sentence for an operator: which setting is missing beside the others, or that TLS cannot
    /// be set up.
    pub fn of(
        config: &VendorConfig,
        resource: &'static str,
        clients: &Clients,
    ) -> Result<Option<Self>, String> {
        let Some(identity) = identity(config)? else { return Ok(None) };
        let http = match &identity {
            Identity::Application { tenant, .. } | Identity::Workload { tenant, .. } => {
                clients.http(tenant, config)?
            }
            Identity::Managed { endpoint, .. } => {
                let connect_timeout_ms = config.connect_timeout_ms.min(METADATA_CONNECT_TIMEOUT_MS);
                let own = VendorConfig { proxy: None, connect_timeout_ms, ..config.clone() };
                clients.http(endpoint, &own)?
            }
        };
        Ok(Some(Self::new(identity, resource, http)))
    }

    fn new(identity: Identity, resource: &'static str, http: Http) -> Self {
        let secret = match &identity {
            Identity::Application { secret, .. } => Some(secret.clone()),
            Identity::Workload { .. } | Identity::Managed { .. } => None,
        };
        let source = Arc::new(Source { identity, resource, http });
        let fetch: Fetch = Box::new(move |now| {
            let source = Arc::clone(&source);
            Box::pin(async move { source.fetch(now).await })
        });
        Self { tokens: TokenCache::new(fetch), secret }
    }
}

fn identity(config: &VendorConfig) -> Result<Option<Identity>, String> {
    let client_id = config.client_id.clone();
    let application = || {
        let both = config.tenant_id.as_deref().zip(config.client_id.clone());
        let (tenant, client_id) =
            both.ok_or("client_secret: needs tenant_id and client_id beside it")?;
        Ok::<_, String>((token_url(config, tenant)?, client_id))
    };
    if let Some(secret) = config.client_secret.clone() {
        let (tenant, client_id) = application()?;
        return Ok(Some(Identity::Application { tenant, client_id, secret }));
    }
    if let Some(file) = &config.federated_token_file {
        let (tenant, client_id) = application()
            .map_err(|error| error.replace("client_secret", "federated_token_file"))?;
        return Ok(Some(Identity::Workload { tenant, client_id, file: file.into() }));
    }
    if config.managed_identity == Some(true) {
        let endpoint = Url::parse(METADATA).map_err(|error| error.to_string())?;
        return Ok(Some(Identity::Managed { endpoint, client_id }));
    }
    Ok(None)
}

/// Where the tenant's tokens come from.
fn token_url(config: &VendorConfig, tenant: &str) -> Result<Url, String> {
    let mut url = match &config.authority_url {
        Some(url) => url.clone(),
        None => Url::parse(AUTHORITY).map_err(|error| error.to_string())?,
    };
    if tenant.is_empty() || !tenant.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
    {
        return Err("tenant_id: must be the id or the domain of a tenant".to_owned());
    }
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend([tenant, "oauth2", "v2.0", "token"]);
    }
    Ok(url)
}

/// Fetches tokens.
#[derive(Debug)]
struct Source {
    identity: Identity,
    resource: &'static str,
    http: Http,
}

impl Source {
    async fn fetch(&self, now: DateTime<Utc>) -> Result<Fetched, VendorError> {
        let answer = self.http.send(self.request().await?).await;
        let answer = answer.map_err(|error| match &self.identity {
            Identity::Managed { .. } => VendorError::new(
                error.class(),
                format!("no managed identity answers ({error}): is this a machine of Azure?"),
            ),
            _ => error,
        })?;
        let (status, headers) = (answer.status, answer.headers);
        let body = answer.body.beginning(MAX_TOKEN_BYTES).await;
        read(status.as_u16(), &headers, &body, now).map_err(|error| self.without_secret(error))
    }

    async fn request(&self) -> Result<Request, VendorError> {
        match &self.identity {
            Identity::Application { tenant, client_id, secret } => {
                let proof = [("client_secret", secret.expose_secret())];
                Ok(self.token_request(tenant.clone(), client_id, &proof))
            }
            Identity::Workload { tenant, client_id, file } => {
                let token = tokio::fs::read_to_string(file).await.map_err(|error| {
                    let file = file.display();
                    let message = format!("federated_token_file: cannot read {file}: {error}");
                    VendorError::new(ErrorClass::Auth, message)
                })?;
                let proof =
                    [("client_assertion_type", ASSERTION_TYPE), ("client_assertion", token.trim())];
                Ok(self.token_request(tenant.clone(), client_id, &proof))
            }
            Identity::Managed { endpoint, client_id } => {
                Ok(self.metadata_request(endpoint.clone(), client_id.as_deref()))
            }
        }
    }

    fn token_request(&self, url: Url, client_id: &str, proof: &[(&str, &str)]) -> Request {
        let form = Serializer::new(String::new())
            .append_pair("client_id", client_id)
            .extend_pairs(proof)
            .append_pair("grant_type", "client_credentials")
            .append_pair("scope", &format!("{}/.default", self.resource))
            .finish();
        let mut headers = HeaderMap::new();
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, form_type);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        Request { method: Method::POST, url, headers, body: form.into() }
    }

    fn metadata_request(&self, mut url: Url, client_id: Option<&str>) -> Request {
        url.query_pairs_mut()
            .append_pair("api-version", METADATA_VERSION)
            .append_pair("resource", self.resource);
        if let Some(client_id) = client_id {
            url.query_pairs_mut().append_pair("client_id", client_id);
        }
        let mut headers = HeaderMap::new();
        headers.insert("metadata", HeaderValue::from_static("true"));
        Request { method: Method::GET, url, headers, body: Bytes::new() }
    }

    fn without_secret(&self, mut error: VendorError) -> VendorError {
        if let Identity::Application { secret, .. } = &self.identity {
            redact(&mut error.error.message, secret);
        }
        error
    }
}

#[async_trait]
impl Authorize for Entra {
    async fn authorize(
        &self,
        request: &mut Request,
        now: DateTime<Utc>,
    ) -> Result<(), VendorError> {
        let token = self.tokens.get(now).await?;
        let value = format!("Bearer {}", token.expose_secret());
        let mut value = HeaderValue::from_str(&value).map_err(|_| {
            let message = "the token of Microsoft Entra fits no HTTP header";
            VendorError::new(ErrorClass::Protocol, message)
        })?;
        value.set_sensitive(true);
        request.headers.insert(AUTHORIZATION, value);
        Ok(())
    }

    fn is_refreshable(&self) -> bool {
        true
    }

    async fn refused(&self) {
        self.tokens.forget();
    }

    fn redact(&self, words: &mut String) {
        self.tokens.redact(words);
        if let Some(secret) = &self.secret {
            redact(words, secret);
        }
    }
}

#[cfg(test)]
mod tests;
