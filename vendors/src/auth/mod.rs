//! Proves to a vendor who calls.

pub mod aws;
pub mod entra;
pub mod google;
mod missing;
pub mod sigv4;
pub mod token;

use std::fmt;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use secrecy::{ExposeSecret as _, SecretString};

pub use self::missing::{Missing, or_missing};
use crate::{
    error::{CUT, VendorError},
    remote::Request,
};

/// A shorter key is a placeholder such as `EMPTY`, which self-hosted servers are given.
const MIN_SECRET_BYTES: usize = 8;
/// A shorter beginning of a secret tells nothing: vendors name their keys' kind by it.
const MIN_SHOWN_BYTES: usize = 4;

/// A vendor's word that a credential is not good.
#[derive(Debug)]
pub struct Refusal<'a> {
    /// `Authorization` of the request that was refused.
    pub authorization: Option<&'a HeaderValue>,
    /// Of the answer.
    pub headers: &'a HeaderMap,
    pub error: &'a VendorError,
    pub now: DateTime<Utc>,
}

/// Adds a credential to requests.
#[async_trait]
pub trait Authorize: fmt::Debug + Send + Sync {
    /// Adds what proves who calls; the rest of the request is complete by then.
    ///
    /// # Errors
    /// `Auth` if there is no credential or it was refused where it comes from; `Transient` if it
    /// could not be fetched this time.
    async fn authorize(&self, request: &mut Request, now: DateTime<Utc>)
    -> Result<(), VendorError>;

    /// Whether a refused credential could be had anew.
    fn is_refreshable(&self) -> bool {
        false
    }

    /// Takes note that the vendor refused the credential, so that the next one is fetched anew.
    async fn refused(&self) {}

    /// Learns from a refusal; whether the request is to be sent once more.
    async fn learn(&self, _: Refusal<'_>) -> bool {
        self.refused().await;
        true
    }

    /// Takes what is secret out of words that are shown.
    fn redact(&self, words: &mut String);
}

/// Replaces each appearance of a secret that is long enough to be one, also where its end is cut off.
pub fn redact(words: &mut String, secret: &SecretString) {
    let secret = secret.expose_secret();
    if secret.len() < MIN_SECRET_BYTES {
        return;
    }
    if words.contains(secret) {
        *words = words.replace(secret, "***");
    }
    if words.contains(CUT) {
        redact_cut(words, secret);
    }
}

/// Replaces the beginnings of a secret that stand in front of a [`CUT`].
fn redact_cut(words: &mut String, secret: &str) {
    let beginnings = || secret.char_indices().map(|(end, _)| &secret[..end]).rev();
    let parts = words.split(CUT).collect::<Vec<_>>();
    let (last, cut) = parts.split_last().expect("a split has a part");
    let mut shown = String::with_capacity(words.len());
    for part in cut {
        let mut long = beginnings().take_while(|start| start.len() >= MIN_SHOWN_BYTES);
        match long.find_map(|start| part.strip_suffix(start)) {
            Some(before) => shown.extend([before, "***"]),
            None => shown.push_str(part),
        }
        shown.push(CUT);
    }
    shown.push_str(last);
    *words = shown;
}

/// A key in a header, always the same; or none at all.
#[derive(Debug, Default)]
pub struct Key {
    header: Option<(HeaderName, HeaderValue)>,
    secret: Option<SecretString>,
}

impl Key {
    /// `Authorization: Bearer KEY`.
    ///
    /// # Errors
    /// A sentence for an operator: no header can carry the key.
    pub fn bearer(key: Option<&SecretString>) -> Result<Self, String> {
        Self::of(AUTHORIZATION, key, |key| format!("Bearer {key}"))
    }

    /// `Authorization: Basic …` with the key as the user and no password.
    ///
    /// # Errors
    /// As [`Self::bearer`].
    pub fn basic(key: Option<&SecretString>) -> Result<Self, String> {
        Self::of(AUTHORIZATION, key, |key| {
            let pair = base64::Engine::encode(
                &base64::engine::general_purpose::STANDARD,
                format!("{key}:"),
            );
            format!("Basic {pair}")
        })
    }

    /// The key alone in a header of this name.
    ///
    /// # Errors
    /// As [`Self::bearer`].
    pub fn header(name: &'static str, key: Option<&SecretString>) -> Result<Self, String> {
        Self::of(HeaderName::from_static(name), key, str::to_owned)
    }

    /// The key as `Authorization: Basic` spells it, if it does; without the padding, which not all
    /// who repeat it keep.
    fn pair(&self) -> Option<SecretString> {
        let (_, value) = self.header.as_ref()?;
        let pair = value.to_str().ok()?.strip_prefix("Basic ")?;
        Some(pair.trim_end_matches('=').into())
    }

    /// Whether there is no key: none was given, or a blank one.
    pub fn is_none(&self) -> bool {
        self.header.is_none()
    }

    fn of(
        name: HeaderName,
        key: Option<&SecretString>,
        spell: impl Fn(&str) -> String,
    ) -> Result<Self, String> {
        let key = key.map(|key| key.expose_secret().trim()).filter(|key| !key.is_empty());
        let Some(key) = key else { return Ok(Self::default()) };
        let mut value = HeaderValue::from_str(&spell(key))
            .map_err(|_| "api_key: holds characters that no HTTP header can carry".to_owned())?;
        value.set_sensitive(true);
        let secret = Some(SecretString::from(key));
        Ok(Self { header: Some((name, value)), secret })
    }
}

#[async_trait]
impl Authorize for Key {
    async fn authorize(&self, request: &mut Request, _: DateTime<Utc>) -> Result<(), VendorError> {
        if let Some((name, value)) = &self.header {
            request.headers.insert(name, value.clone());
        }
        Ok(())
    }

    fn redact(&self, words: &mut String) {
        for secret in self.secret.iter().chain(&self.pair()) {
            redact(words, secret);
        }
    }
}
