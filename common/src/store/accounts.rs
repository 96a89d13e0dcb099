//! Accounts, API keys and callback secrets.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use secrecy::SecretString;

use super::StoreError;
use crate::{
    account::{ApiKey, KeyHash},
    id::{AccountId, ApiKeyId},
};

/// A signing secret of an account.
#[derive(Debug, Clone)]
pub struct WebhookSecret {
    pub secret: SecretString,
    pub created_at: DateTime<Utc>,
    /// Signs no more from this moment on; `None` for the newest.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Accounts, API keys and callback secrets.
#[async_trait]
pub trait AccountStore: Send + Sync {
    /// Makes the account unless it exists; a new one gets `secret` as its callback secret.
    async fn ensure_account(
        &self,
        id: &AccountId,
        secret: &SecretString,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError>;

    async fn account_exists(&self, id: &AccountId) -> Result<bool, StoreError>;

    /// Adds a key to existing accounts. `false`: a key with this hash exists; nothing was written.
    async fn add_key(&self, key: &ApiKey) -> Result<bool, StoreError>;

    /// The key with this hash, revoked or not.
    async fn find_key(&self, hash: &KeyHash) -> Result<Option<ApiKey>, StoreError>;

    /// All keys, or those of one account, oldest first.
    async fn list_keys(&self, account: Option<&AccountId>) -> Result<Vec<ApiKey>, StoreError>;

    /// Revokes a key. `false`: there is no such key.
    async fn revoke_key(&self, id: ApiKeyId, now: DateTime<Utc>) -> Result<bool, StoreError>;

    /// Makes `new` the account's newest callback secret; older ones sign until `old_expires_at`.
    /// `false`: there is no such account.
    async fn rotate_webhook_secret(
        &self,
        account: &AccountId,
        new: &SecretString,
        now: DateTime<Utc>,
        old_expires_at: DateTime<Utc>,
    ) -> Result<bool, StoreError>;

    /// The secrets active at `now`, newest first.
    async fn list_webhook_secrets(
        &self,
        account: &AccountId,
        now: DateTime<Utc>,
    ) -> Result<Vec<WebhookSecret>, StoreError>;
}
