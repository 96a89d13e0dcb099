//! Who calls: the API key, and the account it acts for.

use std::{sync::Arc, time::Duration};

use axum::extract::FromRequestParts;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{HeaderMap, header, request::Parts};
use inferq_common::{
    account::{ApiKey, KeyHash},
    cache::Cache,
    id::{AccountId, ApiKeyId},
    store::StoreError,
};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use subtle::ConstantTimeEq as _;

use crate::{error::ApiError, state::AppState};

/// A revoked key is refused after at most this long.
const KEY_LIFETIME: Duration = Duration::from_secs(1);

/// Keys kept in memory, unknown ones included.
const MAX_KEYS: usize = 10_000;

/// No key of ours is longer; what is longer is not even hashed.
const MAX_KEY_BYTES: usize = 512;

/// A key and a password of that size in base64, with some room.
const MAX_BASIC_BYTES: usize = 2048;

/// An authenticated caller. As an extractor it refuses all others with 401 or 403.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The account this request acts for.
    pub account: AccountId,
    pub key: ApiKeyId,
}

/// What the store knows of recently used keys.
pub(crate) type Keys = Cache<KeyHash, Option<Arc<ApiKey>>, StoreError>;

pub(crate) fn keys() -> Keys {
    Cache::new(KEY_LIFETIME, MAX_KEYS)
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let given = key_of(&parts.headers)
            .ok_or(ApiError::Unauthorized("an API key is required in the x-api-key header"))?;
        let hash = KeyHash::of(&given);
        let load = async { Ok(state.store.find_key(&hash).await?.map(Arc::new)) };
        let found = state.keys.get(hash, load).await?;
        let key = found
            .filter(|key| bool::from(key.hash.0.ct_eq(&hash.0)) && key.revoked_at.is_none())
            .ok_or(ApiError::Unauthorized("the API key is unknown or revoked"))?;
        let account = selected_account(&parts.headers, &key)?;
        Ok(Self { account, key: key.id })
    }
}

/// The key in `x-api-key`, or else the bearer token, or else the user name of Basic authentication,
/// as Launch's clients send it.
fn key_of(headers: &HeaderMap) -> Option<SecretString> {
    let sane = |key: &str| (1..=MAX_KEY_BYTES).contains(&key.len());
    if let Some(value) = headers.get("x-api-key") {
        let key = value.to_str().ok()?.trim();
        return sane(key).then(|| SecretString::from(key));
    }
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return sane(token).then(|| SecretString::from(token));
    }
    if !scheme.eq_ignore_ascii_case("basic") || token.len() > MAX_BASIC_BYTES {
        return None;
    }
    let decoded = SecretSlice::from(BASE64.decode(token).ok()?);
    let (key, _password) = str::from_utf8(decoded.expose_secret()).ok()?.split_once(':')?;
    let key = key.trim();
    sane(key).then(|| SecretString::from(key))
}

/// The account named by the request, if the key may use it; else the key's own.
fn selected_account(headers: &HeaderMap, key: &ApiKey) -> Result<AccountId, ApiError> {
    let Some(selected) = headers.get("x-selected-account-id") else {
        return Ok(key.account.clone());
    };
    let selected = selected.to_str().unwrap_or("\0").trim();
    if selected.is_empty() {
        return Ok(key.account.clone());
    }
    selected
        .parse()
        .ok()
        .filter(|account| key.may_use(account))
        .ok_or(ApiError::Forbidden("this API key may not use the selected account".into()))
}
