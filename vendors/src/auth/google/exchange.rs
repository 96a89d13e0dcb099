//! Fetches tokens from where they are handed out.

use std::{fmt::Display, path::Path};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use inferq_common::{config::VendorConfig, error::ErrorClass};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{fs::File, io::AsyncReadExt as _};
use url::{Url, form_urlencoded};

use super::credentials::{
    AuthorizedUser, Credentials, ExternalAccount, SCOPE, ServiceAccount, SubjectTokenSource,
};
use crate::{
    auth::{redact, token::Fetched},
    error::{VendorError, excerpt},
    gemini::wire::WireError,
    remote::{
        Request,
        http::{Answer, Clients},
    },
};

/// No answer of a token endpoint is larger.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// No file of credentials is larger.
const MAX_FILE_BYTES: u16 = u16::MAX;
/// Assumed where an endpoint does not say how long a token lasts; what Google's last.
const DEFAULT_LIFETIME_SECS: i64 = 3600;
/// A longer life is a mistake.
const MAX_LIFETIME_SECS: i64 = 24 * 3600;

/// What an OAuth endpoint, STS and the metadata server answer.
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: SecretString,
    expires_in: Option<i64>,
}

/// What the endpoint of impersonation answers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImpersonationAnswer {
    access_token: SecretString,
    expire_time: DateTime<Utc>,
}

/// Speaks to token endpoints, within the limits and over the proxy of a vendor's settings. What
/// speaks plain HTTP is on the machine itself or its host, where no proxy leads.
#[derive(Debug)]
pub(super) struct Exchange {
    pub clients: Clients,
    pub config: VendorConfig,
}

impl Exchange {
    /// A token for these credentials.
    ///
    /// # Errors
    /// `Auth` where the credentials are of no use or were refused, `Transient` where the endpoint
    /// could not be reached or is in trouble, `Protocol` for what is no answer of its kind.
    pub(super) async fn token(
        &self,
        credentials: &Credentials,
        now: DateTime<Utc>,
    ) -> Result<Fetched, VendorError> {
        let fetched = match credentials {
            Credentials::ServiceAccount(it) => self.service_account(it, now).await,
            Credentials::AuthorizedUser(it) => self.authorized_user(it, now).await,
            Credentials::ExternalAccount(it) => self.external_account(it, now).await,
            Credentials::ImpersonatedServiceAccount(it) => {
                let source = Box::pin(self.token(&it.source_credentials, now)).await?;
                let url = it.service_account_impersonation_url.clone();
                self.impersonate(url, source, &it.delegates, None).await
            }
        };
        fetched.map_err(|mut error| {
            for secret in credentials.secrets() {
                redact(&mut error.error.message, secret);
            }
            error
        })
    }

    async fn service_account(
        &self,
        account: &ServiceAccount,
        now: DateTime<Utc>,
    ) -> Result<Fetched, VendorError> {
        let assertion = account.assertion(now).map_err(|why| {
            refused(format!("the key of the Google service account is of no use: {why}"))
        })?;
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", assertion.expose_secret()),
        ];
        let body = self.form(account.token_uri.clone(), &form, HeaderMap::new()).await?;
        token(&body, now)
    }

    async fn authorized_user(
        &self,
        user: &AuthorizedUser,
        now: DateTime<Utc>,
    ) -> Result<Fetched, VendorError> {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", &user.client_id),
            ("client_secret", user.client_secret.expose_secret()),
            ("refresh_token", user.refresh_token.expose_secret()),
        ];
        let body = self.form(user.token_uri.clone(), &form, HeaderMap::new()).await?;
        token(&body, now)
    }

    /// Source: <https://google.aip.dev/auth/4117>, <https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token>.
    async fn external_account(
        &self,
        account: &ExternalAccount,
        now: DateTime<Utc>,
    ) -> Result<Fetched, VendorError> {
        let subject_token = self.subject_token(&account.credential_source).await?;
        let options = account
            .workforce_pool_user_project
            .as_ref()
            .filter(|_| account.client_id.is_none())
            .map(|project| json!({ "userProject": project }).to_string());
        let mut form = vec![
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("audience", account.audience.as_str()),
            ("scope", SCOPE),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("subject_token_type", account.subject_token_type.as_str()),
            ("subject_token", subject_token.expose_secret()),
        ];
        if let Some(options) = &options {
            form.push(("options", options));
        }
        let mut headers = HeaderMap::new();
        if let (Some(id), Some(secret)) = (&account.client_id, &account.client_secret) {
            let pair = format!("{id}:{}", secret.expose_secret());
            let engine = base64::engine::general_purpose::STANDARD;
            let pair = base64::Engine::encode(&engine, pair);
            headers.insert(AUTHORIZATION, sensitive(&format!("Basic {pair}"))?);
        }
        let body = self.form(account.token_url.clone(), &form, headers).await?;
        let fetched = token(&body, now)?;
        match &account.service_account_impersonation_url {
            None => Ok(fetched),
            Some(url) => {
                let lifetime = account.service_account_impersonation.token_lifetime_seconds;
                self.impersonate(url.clone(), fetched, &[], lifetime).await
            }
        }
    }

    /// The other provider's token, which is exchanged for one of Google's.
    async fn subject_token(
        &self,
        source: &SubjectTokenSource,
    ) -> Result<SecretString, VendorError> {
        let text = match (&source.file, &source.url) {
            (Some(path), _) => read(path).await?,
            (None, Some(url)) => {
                let mut headers = HeaderMap::new();
                for (name, value) in &source.headers {
                    let name: HeaderName = name.parse().map_err(|_| {
                        refused(
                            "credential_source.headers of the Google credentials hold a name \
                                 that is none",
                        )
                    })?;
                    headers.insert(name, sensitive(value)?);
                }
                self.get(url.clone(), headers).await?
            }
            (None, None) => {
                return Err(refused(
                    "the Google credentials take their token from an executable or from AWS, which \
                     inferq does not: use a credential_source with 'file' or 'url'",
                ));
            }
        };
        let Some(name) = &source.format.subject_token_field_name else {
            let text = std::str::from_utf8(&text).unwrap_or_default().trim();
            return Ok(SecretString::from(text));
        };
        let document: Value = serde_json::from_slice(&text).unwrap_or_default();
        let token = document.get(name).and_then(Value::as_str).ok_or_else(|| {
            refused(format!("the credential_source of the Google credentials has no '{name}'"))
        })?;
        Ok(SecretString::from(token))
    }

    /// A token of the service account that the holder of `fetched` may act as.
    ///
    /// Source: <https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken>.
    async fn impersonate(
        &self,
        url: Url,
        (token, _): Fetched,
        delegates: &[String],
        lifetime: Option<u32>,
    ) -> Result<Fetched, VendorError> {
        let lifetime = format!("{}s", lifetime.unwrap_or(3600));
        let body = json!({ "scope": [SCOPE], "lifetime": lifetime, "delegates": delegates });
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, sensitive(&format!("Bearer {}", token.expose_secret()))?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = self.send(Method::POST, url, headers, body.to_string().into()).await?;
        let answer: ImpersonationAnswer =
            serde_json::from_slice(&body).map_err(|_| no_token("the impersonation endpoint"))?;
        Ok((answer.access_token, answer.expire_time))
    }

    /// The token that the metadata server of a Google Cloud machine hands out.
    ///
    /// Source: <https://cloud.google.com/compute/docs/access/authenticate-workloads>.
    pub(super) async fn metadata(
        &self,
        url: Url,
        now: DateTime<Utc>,
    ) -> Result<Fetched, VendorError> {
        let mut headers = HeaderMap::new();
        headers.insert("metadata-flavor", HeaderValue::from_static("Google"));
        token(&self.get(url, headers).await?, now)
    }

    async fn form(
        &self,
        url: Url,
        form: &[(&str, &str)],
        mut headers: HeaderMap,
    ) -> Result<Vec<u8>, VendorError> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, kind);
        self.send(Method::POST, url, headers, body.into()).await
    }

    async fn get(&self, url: Url, headers: HeaderMap) -> Result<Vec<u8>, VendorError> {
        self.send(Method::GET, url, headers, Bytes::new()).await
    }

    /// Sends a request and answers with the body of a 2xx answer.
    async fn send(
        &self,
        method: Method,
        url: Url,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Vec<u8>, VendorError> {
        let proxy = self.config.proxy.clone().filter(|_| url.scheme() != "http");
        let config = VendorConfig { proxy, ..self.config.clone() };
        let http = self.clients.http(&url, &config).map_err(refused)?;
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let request = Request { method, url, headers, body };
        let answer = http.send(request).await.map_err(while_fetching)?;
        let Answer { status, body, .. } = answer;
        let body = body.beginning(MAX_ANSWER_BYTES).await;
        if status.is_success() { Ok(body) } else { Err(failure(status.as_u16(), &body)) }
    }
}

/// Reads a small file of credentials.
///
/// # Errors
/// `Auth`: it cannot be read, or is too large to be one.
pub(super) async fn read(path: &Path) -> Result<Vec<u8>, VendorError> {
    let start = async {
        let mut start = Vec::new();
        let file = File::open(path).await?;
        file.take(u64::from(MAX_FILE_BYTES) + 1).read_to_end(&mut start).await.map(|_| start)
    };
    let of_no_use = |why: &dyn Display| {
        refused(format!("cannot read the Google credentials in {}: {why}", path.display()))
    };
    match start.await {
        Ok(start) if start.len() <= usize::from(MAX_FILE_BYTES) => Ok(start),
        Ok(_) => Err(of_no_use(&format_args!("it is larger than {MAX_FILE_BYTES} bytes"))),
        Err(error) => Err(of_no_use(&error)),
    }
}

fn token(body: &[u8], now: DateTime<Utc>) -> Result<Fetched, VendorError> {
    let answer: TokenAnswer =
        serde_json::from_slice(body).map_err(|_| no_token("the token endpoint"))?;
    let lifetime = answer.expires_in.unwrap_or(DEFAULT_LIFETIME_SECS).clamp(0, MAX_LIFETIME_SECS);
    Ok((answer.access_token, now + TimeDelta::seconds(lifetime)))
}

fn no_token(who: &str) -> VendorError {
    let message = format!("fetching a Google access token: {who} answered without a token");
    VendorError::new(ErrorClass::Protocol, message)
}

/// What an answer that is not 2xx means: the endpoint is in trouble, or refuses.
fn failure(status: u16, body: &[u8]) -> VendorError {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let wire = WireError::of(&document).unwrap_or_default();
    let text = String::from_utf8_lossy(body);
    let text = wire.message.as_deref().unwrap_or(&text);
    let code = wire.status.as_deref();
    let class = match status {
        408 | 425 | 429 | 500.. => ErrorClass::Transient,
        _ => ErrorClass::Auth,
    };
    let named = code.map_or_else(String::new, |code| format!(" {code}"));
    let mut message =
        format!("fetching a Google access token: answered {status}{named}: {}", excerpt(text));
    if class == ErrorClass::Auth {
        message.push_str(match code {
            Some("invalid_grant") => {
                "; the key or login may be revoked or expired, or this machine's clock may be wrong"
            }
            _ => "; check the credentials of vendors.vertex_ai",
        });
    }
    let mut error = VendorError::new(class, message);
    error.error.vendor_status = Some(status);
    error.error.vendor_code = code.map(|code| crate::error::shorten(code, 100));
    error
}

fn while_fetching(mut error: VendorError) -> VendorError {
    error.error.message = format!("fetching a Google access token: {}", error.error.message);
    error
}

/// The credentials are of no use.
pub(super) fn refused(message: impl Into<String>) -> VendorError {
    VendorError::new(ErrorClass::Auth, message)
}

fn sensitive(value: &str) -> Result<HeaderValue, VendorError> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| refused("no HTTP header can carry the Google credentials"))?;
    value.set_sensitive(true);
    Ok(value)
}
