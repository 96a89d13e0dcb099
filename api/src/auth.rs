//! Who calls: the API key, and the account it acts for.

use std::{sync::Arc, time::Duration};

use axum::extract::FromRequestParts;
use http::{HeaderMap, header, request::Parts};
use inferq_common::{
    account::{ApiKey, KeyHash},
    cache::Cache,
    id::{AccountId, ApiKeyId},
};
use secrecy::SecretString;
use subtle::ConstantTimeEq as _;

use crate::{error::ApiError, state::AppState};

/// A revoked key is refused after at most this long.
const KEY_LIFETIME: Duration = Duration::from_secs(1);

/// Keys kept in memory, unknown ones included.
const MAX_KEYS: usize = 10_000;

/// No key of ours is longer; what is longer is not even hashed.
const MAX_KEY_BYTES: usize = 512;

/// An authenticated caller. As an extractor it refuses all others with 401 or 403.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The account this request acts for.
    pub account: AccountId,
    pub key: ApiKeyId,
}

/// What the store knows of recently used keys.
pub(crate) type Keys = Cache<KeyHash, Option<Arc<ApiKey>>>;

pub(crate) fn keys() -> Keys {
    Cache::new(KEY_LIFETIME, MAX_KEYS)
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let given = key_of(&parts.headers)
            .ok_or(ApiError::Unauthorized("an API key is required in the x-api-key header"))?;
        let hash = KeyHash::of(&given);
        let found = state
            .keys
            .get(hash, async {
                Ok::<_, ApiError>(state.store.find_key(&hash).await?.map(Arc::new))
            })
            .await?;
        let key = found
            .filter(|key| bool::from(key.hash.0.ct_eq(&hash.0)) && key.revoked_at.is_none())
            .ok_or(ApiError::Unauthorized("the API key is unknown or revoked"))?;
        let account = selected_account(&parts.headers, &key)?;
        Ok(Self { account, key: key.id })
    }
}

/// The key in `x-api-key`, or else the bearer token.
fn key_of(headers: &HeaderMap) -> Option<SecretString> {
    let given = if let Some(value) = headers.get("x-api-key") {
        value.to_str().ok()?
    } else {
        let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)?
    };
    let given = given.trim();
    (1..=MAX_KEY_BYTES).contains(&given.len()).then(|| SecretString::from(given))
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
