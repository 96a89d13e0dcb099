//! Proves to Bedrock who calls: an API key, or a signature with AWS keys.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use http::HeaderValue;
use inferq_common::{config::VendorConfig, error::ErrorClass};
use secrecy::ExposeSecret as _;

use super::{
    classify::{self, Refused},
    place::{self, Place},
};
use crate::{
    auth::{
        Authorize, Key, Refusal,
        aws::{Keyring, Keys, chain::Chain},
        sigv4::{self, Scope, Skew},
    },
    error::VendorError,
    remote::Request,
};

/// Puts the proof, and a region that was not known before, into requests.
#[derive(Debug)]
pub(super) struct Auth {
    place: Arc<Place>,
    proof: Proof,
}

#[derive(Debug)]
enum Proof {
    Bearer(Key),
    Signature(Signer),
}

#[derive(Debug)]
struct Signer {
    keyring: Keyring,
    skew: Skew,
    /// The address is not AWS's: what stands there may sign by itself, or ask for nothing.
    may_go_without: bool,
}

impl Auth {
    /// An API key goes before AWS keys that are set, and these before AWS's chain.
    ///
    /// # Errors
    /// A sentence for an operator: which setting is at fault.
    pub(super) fn of(config: &VendorConfig, place: Arc<Place>) -> Result<Self, String> {
        let key = config.api_key.as_ref().filter(|key| !key.expose_secret().trim().is_empty());
        if key.is_some() {
            return Ok(Self { place, proof: Proof::Bearer(Key::bearer(key)?) });
        }
        let keyring = if let Some(keys) = Keys::of(config)? {
            Keyring::Fixed(keys)
        } else {
            let region = place.known_region().map(str::to_owned);
            Keyring::found(Chain::new(config).fetch(region))
        };
        let may_go_without = config.profile.is_none()
            && config.base_url.as_ref().is_some_and(|url| !place::is_aws(url));
        let signer = Signer { keyring, skew: Skew::default(), may_go_without };
        Ok(Self { place, proof: Proof::Signature(signer) })
    }
}

#[async_trait]
impl Authorize for Auth {
    async fn authorize(
        &self,
        request: &mut Request,
        now: DateTime<Utc>,
    ) -> Result<(), VendorError> {
        let signer = match &self.proof {
            Proof::Bearer(key) => {
                self.place.settle(request).await?;
                return key.authorize(request, now).await;
            }
            Proof::Signature(signer) => signer,
        };
        let keys = match signer.keyring.keys(now).await {
            Err(error) if signer.may_go_without && error.class() == ErrorClass::Auth => {
                return Ok(());
            }
            keys => keys?,
        };
        self.place.settle(request).await?;
        let scope =
            Scope { region: self.place.region().await?, service: place::service(&request.url) };
        sigv4::sign(request, &keys, scope, signer.skew.corrected(now))
    }

    fn is_refreshable(&self) -> bool {
        matches!(self.proof, Proof::Signature(_))
    }

    async fn learn(&self, refusal: Refusal<'_>) -> bool {
        let Proof::Signature(signer) = &self.proof else { return false };
        match classify::refused(refusal.error) {
            Some(Refused::Time) => signer.skew.learn(refusal.headers, refusal.now),
            Some(Refused::Keys) => {
                let id = refusal.authorization.and_then(key_id).unwrap_or_default();
                signer.keyring.replace(id, refusal.now).await
            }
            None => false,
        }
    }

    fn redact(&self, words: &mut String) {
        match &self.proof {
            Proof::Bearer(key) => key.redact(words),
            Proof::Signature(signer) => signer.keyring.redact(words),
        }
    }
}

/// The id of the key in `AWS4-HMAC-SHA256 Credential=ID/date/region/service/aws4_request, …`.
fn key_id(authorization: &HeaderValue) -> Option<&str> {
    let (_, rest) = authorization.to_str().ok()?.split_once("Credential=")?;
    rest.split('/').next()
}

#[cfg(test)]
mod tests;
