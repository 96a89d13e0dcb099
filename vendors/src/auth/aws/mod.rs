//! AWS keys: those that are set, else those that AWS's own chain of places finds.

pub mod chain;
mod connector;

use std::{
    iter,
    sync::{Mutex, MutexGuard},
};

use chrono::{DateTime, TimeDelta, Utc};
use inferq_common::{config::VendorConfig, error::ErrorClass};
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    redact,
    token::{Fetch, TokenCache},
};
use crate::error::VendorError;

/// Where there were no keys, AWS's chain is not asked again for so long: on a machine that is none
/// of AWS's its last place takes seconds to say so.
const ABSENT: TimeDelta = TimeDelta::seconds(30);

/// A key and its secret; temporary ones have a token as well.
#[derive(Debug, Clone)]
pub struct Keys {
    pub access_key_id: String,
    pub secret_access_key: SecretString,
    pub session_token: Option<SecretString>,
}

impl Keys {
    /// The keys among the settings, if any.
    ///
    /// # Errors
    /// A sentence for an operator: half of a pair is set.
    pub fn of(config: &VendorConfig) -> Result<Option<Self>, String> {
        let set = |secret: &Option<SecretString>| {
            secret.clone().filter(|secret| !secret.expose_secret().trim().is_empty())
        };
        let pair = (set(&config.access_key_id), set(&config.secret_access_key));
        let session_token = set(&config.session_token);
        match pair {
            (Some(id), Some(secret_access_key)) => {
                let access_key_id = id.expose_secret().to_owned();
                Ok(Some(Self { access_key_id, secret_access_key, session_token }))
            }
            (Some(_), None) => Err("secret_access_key: access_key_id is set without it".to_owned()),
            (None, Some(_)) => Err("access_key_id: secret_access_key is set without it".to_owned()),
            (None, None) if session_token.is_some() => {
                Err("access_key_id: session_token is set without it".to_owned())
            }
            (None, None) => Ok(None),
        }
    }

    /// As one text, which a cache of secrets can keep.
    fn joined(&self) -> SecretString {
        let token = self.session_token.as_ref().map_or("", |token| token.expose_secret());
        let secret = self.secret_access_key.expose_secret();
        SecretString::from(format!("{}\n{secret}\n{token}", self.access_key_id))
    }

    fn parted(joined: &SecretString) -> Option<Self> {
        let mut parts = joined.expose_secret().splitn(3, '\n');
        let (id, secret, token) = (parts.next()?, parts.next()?, parts.next()?);
        let session_token = Some(token).filter(|token| !token.is_empty());
        Some(Self {
            access_key_id: id.to_owned(),
            secret_access_key: secret.into(),
            session_token: session_token.map(SecretString::from),
        })
    }

    fn redact(&self, words: &mut String) {
        for secret in iter::once(&self.secret_access_key).chain(&self.session_token) {
            redact(words, secret);
        }
    }
}

/// Keeps the keys of one vendor.
#[derive(Debug)]
pub enum Keyring {
    /// Always the same.
    Fixed(Keys),
    /// Found, kept and fetched anew before they end.
    Found(Box<Found>),
}

/// Keys that come from elsewhere.
#[derive(Debug)]
pub struct Found {
    cache: TokenCache<Fetch>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last ones, and those before, which a vendor may still repeat in its words.
    seen: Vec<Keys>,
    absent: Option<(DateTime<Utc>, VendorError)>,
}

impl Keyring {
    pub fn found(fetch: Fetch) -> Self {
        let cache = TokenCache::new(fetch);
        Self::Found(Box::new(Found { cache, state: Mutex::default() }))
    }

    /// The keys to sign with now. However many ask at once, they are fetched once.
    ///
    /// # Errors
    /// `Auth` where there are none or they cannot be had; `Transient` where that may pass.
    pub async fn keys(&self, now: DateTime<Utc>) -> Result<Keys, VendorError> {
        match self {
            Self::Fixed(keys) => Ok(keys.clone()),
            Self::Found(found) => found.keys(now).await,
        }
    }

    /// Whether other keys than those of this id could be had after a refusal; if so, the next
    /// [`Keyring::keys`] are those.
    pub async fn replace(&self, refused_id: &str, now: DateTime<Utc>) -> bool {
        let Self::Found(found) = self else { return false };
        found.cache.forget();
        found.keys(now).await.is_ok_and(|keys| keys.access_key_id != refused_id)
    }

    pub fn redact(&self, words: &mut String) {
        match self {
            Self::Fixed(keys) => keys.redact(words),
            Self::Found(found) => found.lock().seen.iter().for_each(|keys| keys.redact(words)),
        }
    }
}

impl Found {
    async fn keys(&self, now: DateTime<Utc>) -> Result<Keys, VendorError> {
        if let Some((since, error)) = &self.lock().absent
            && now - since < ABSENT
        {
            return Err(error.clone());
        }
        let joined = self.cache.get(now).await;
        let mut state = self.lock();
        state.absent = None;
        let keys = joined.inspect_err(|error| {
            if error.class() == ErrorClass::Auth {
                state.absent = Some((now, error.clone()));
            }
        })?;
        let keys = Keys::parted(&keys).ok_or_else(|| {
            VendorError::new(ErrorClass::Internal, "AWS keys were kept in another form")
        })?;
        if state.seen.last().is_none_or(|last| last.access_key_id != keys.access_key_id) {
            state.seen.push(keys.clone());
            let n_seen = state.seen.len();
            state.seen.drain(..n_seen.saturating_sub(2));
        }
        Ok(keys)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while the keys are looked at")
    }
}

#[cfg(test)]
mod tests;
