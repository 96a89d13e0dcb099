//! Reads Google's credentials from their JSON; pure.
//!
//! Source: <https://google.aip.dev/auth/4110> and the pages after it.

use std::{collections::BTreeMap, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

/// What a token may be used for; what is narrower Vertex AI does not take.
pub(super) const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// How long an assertion holds; Google's upper bound is an hour.
const LIFETIME: TimeDelta = TimeDelta::hours(1);
/// An assertion begins so long before now, for clocks that differ.
const BACKDATED: TimeDelta = TimeDelta::seconds(10);

/// How a token is had.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Credentials {
    ServiceAccount(ServiceAccount),
    AuthorizedUser(AuthorizedUser),
    ExternalAccount(Box<ExternalAccount>),
    ImpersonatedServiceAccount(Impersonated),
}

/// The key of a service account.
#[derive(Debug, Deserialize)]
pub(super) struct ServiceAccount {
    pub client_email: String,
    /// PKCS#8, or PKCS#1, in PEM.
    pub private_key: SecretString,
    pub private_key_id: Option<String>,
    #[serde(default = "token_uri")]
    pub token_uri: Url,
    pub project_id: Option<String>,
    pub quota_project_id: Option<String>,
}

/// A person who has logged in with gcloud.
#[derive(Debug, Deserialize)]
pub(super) struct AuthorizedUser {
    pub client_id: String,
    pub client_secret: SecretString,
    pub refresh_token: SecretString,
    #[serde(default = "token_uri")]
    pub token_uri: Url,
    pub quota_project_id: Option<String>,
}

/// Workload identity federation: a token of another provider for one of Google's.
#[derive(Debug, Deserialize)]
pub(super) struct ExternalAccount {
    pub audience: String,
    pub subject_token_type: String,
    pub token_url: Url,
    pub credential_source: SubjectTokenSource,
    pub service_account_impersonation_url: Option<Url>,
    #[serde(default)]
    pub service_account_impersonation: ImpersonationOptions,
    pub client_id: Option<String>,
    pub client_secret: Option<SecretString>,
    pub workforce_pool_user_project: Option<String>,
    pub quota_project_id: Option<String>,
}

/// Where the other provider's token lies.
#[derive(Debug, Deserialize)]
pub(super) struct SubjectTokenSource {
    pub file: Option<PathBuf>,
    pub url: Option<Url>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub format: SubjectTokenFormat,
}

/// Whether the token is the whole text or a member of JSON.
#[derive(Debug, Default, Deserialize)]
pub(super) struct SubjectTokenFormat {
    /// Set where the format is JSON.
    pub subject_token_field_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct ImpersonationOptions {
    pub token_lifetime_seconds: Option<u32>,
}

/// A service account that other credentials may act as.
#[derive(Debug, Deserialize)]
pub(super) struct Impersonated {
    pub service_account_impersonation_url: Url,
    pub source_credentials: Box<Credentials>,
    #[serde(default)]
    pub delegates: Vec<String>,
    pub quota_project_id: Option<String>,
}

fn token_uri() -> Url {
    Url::parse("https://oauth2.googleapis.com/token").expect("a constant address")
}

impl Credentials {
    /// Reads a credentials file.
    ///
    /// # Errors
    /// What is wrong with it, in a few words that repeat nothing of it.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let document: Value = serde_json::from_slice(json).unwrap_or_default();
        let document = document.as_object().ok_or("it is not a JSON object")?;
        let kind = document.get("type").and_then(Value::as_str).ok_or("it has no member 'type'")?;
        serde_json::from_slice(json).map_err(|error| match kind {
            "service_account"
            | "authorized_user"
            | "external_account"
            | "impersonated_service_account" => {
                // serde's words name members; what they quote is the text of an enum or a URL.
                let missing = error.to_string();
                let missing = missing.split(" at line").next().unwrap_or_default();
                if missing.starts_with("missing field") {
                    format!("its type is {kind}, but: {missing}")
                } else {
                    format!("its type is {kind}, but a member has a value of no use")
                }
            }
            _ => "its type is none of service_account, authorized_user, external_account and \
                  impersonated_service_account"
                .to_owned(),
        })
    }

    /// The project that calls are counted for, where the file names one.
    pub(super) fn quota_project(&self) -> Option<&str> {
        match self {
            Self::ServiceAccount(it) => it.quota_project_id.as_deref(),
            Self::AuthorizedUser(it) => it.quota_project_id.as_deref(),
            Self::ExternalAccount(it) => it.quota_project_id.as_deref(),
            Self::ImpersonatedServiceAccount(it) => it.quota_project_id.as_deref(),
        }
    }

    /// What must not appear in any message.
    pub(super) fn secrets(&self) -> Vec<&SecretString> {
        match self {
            Self::ServiceAccount(it) => vec![&it.private_key],
            Self::AuthorizedUser(it) => vec![&it.client_secret, &it.refresh_token],
            Self::ExternalAccount(it) => it.client_secret.iter().collect(),
            Self::ImpersonatedServiceAccount(it) => it.source_credentials.secrets(),
        }
    }
}

impl ServiceAccount {
    /// Reads a key file.
    ///
    /// # Errors
    /// What is wrong with it, in a few words that repeat nothing of it.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        match Credentials::parse(json)? {
            Credentials::ServiceAccount(account) => {
                account.key()?;
                Ok(account)
            }
            _ => Err("its type is not service_account".to_owned()),
        }
    }

    fn key(&self) -> Result<RsaKeyPair, String> {
        let pem = self.private_key.expose_secret().as_bytes();
        let key = match PrivateKeyDer::from_pem_slice(pem) {
            Ok(PrivateKeyDer::Pkcs8(key)) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
            Ok(PrivateKeyDer::Pkcs1(key)) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
            _ => return Err("its private_key is not a key in PEM".to_owned()),
        };
        key.map_err(|error| format!("its private_key cannot be used ({error})"))
    }

    /// The signed claim to be this account, good for an hour.
    ///
    /// Source: <https://developers.google.com/identity/protocols/oauth2/service-account>.
    ///
    /// # Errors
    /// The key cannot be used.
    pub(super) fn assertion(&self, now: DateTime<Utc>) -> Result<SecretString, String> {
        let mut header = json!({ "alg": "RS256", "typ": "JWT" });
        if let Some(id) = &self.private_key_id {
            header["kid"] = id.as_str().into();
        }
        let issued_at = now - BACKDATED;
        let claims = json!({
            "iss": self.client_email,
            "scope": SCOPE,
            "aud": self.token_uri.as_str(),
            "iat": issued_at.timestamp(),
            "exp": (issued_at + LIFETIME).timestamp(),
        });
        let part = |json: &serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let key = self.key()?;
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| "its private_key cannot sign".to_owned())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)).into())
    }
}
