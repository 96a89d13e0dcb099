//! Accounts, API keys and callback secrets.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{Connection as _, FromRow};
use uuid::Uuid;

use super::PostgresStore;
use crate::{
    account::{ApiKey, KeyHash},
    id::{AccountId, ApiKeyId},
    store::{
        AccountStore, StoreError, WebhookSecret,
        rows::{ApiKeyRow, Reader},
    },
};

/// The columns of an [`ApiKeyRow`], and the further accounts in their order.
macro_rules! key_columns {
    () => {
        "api_keys.api_key_id, api_keys.account_id, api_keys.name, api_keys.prefix, api_keys.hash, \
         api_keys.created_at, api_keys.revoked_at, ARRAY(
             SELECT others.account_id FROM api_key_accounts AS others
             WHERE others.api_key_id = api_keys.api_key_id ORDER BY others.position
         ) AS other_accounts"
    };
}

const FIND_KEY: &str = concat!("SELECT ", key_columns!(), " FROM api_keys WHERE hash = $1");

const LIST_KEYS: &str =
    concat!("SELECT ", key_columns!(), " FROM api_keys ORDER BY created_at, api_key_id");

const LIST_KEYS_OF: &str = concat!(
    "SELECT ",
    key_columns!(),
    " FROM api_keys WHERE account_id = $1 OR api_key_id IN (
        SELECT api_key_id FROM api_key_accounts WHERE account_id = $1
    ) ORDER BY created_at, api_key_id"
);

const ENSURE_ACCOUNT: &str = "
WITH added AS (
    INSERT INTO accounts (account_id, created_at) VALUES ($1, $3)
    ON CONFLICT (account_id) DO NOTHING
    RETURNING account_id
)
INSERT INTO webhook_secrets (account_id, secret, created_at)
SELECT account_id, $2, $3 FROM added";

const ADD_KEY: &str = "
WITH added AS (
    INSERT INTO api_keys (api_key_id, account_id, name, prefix, hash, created_at, revoked_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (hash) DO NOTHING
    RETURNING api_key_id
), others AS (
    INSERT INTO api_key_accounts (api_key_id, position, account_id)
    SELECT added.api_key_id, others.position, others.account_id
    FROM added, unnest($8::text[]) WITH ORDINALITY AS others (account_id, position)
)
SELECT api_key_id FROM added";

/// Rotations of one account go one after the other: each locks its account.
const LOCK_ACCOUNT: &str = "SELECT account_id FROM accounts WHERE account_id = $1 FOR UPDATE";

/// One that was rotated out before keeps its earlier end.
const RETIRE_SECRETS: &str = "
UPDATE webhook_secrets SET expires_at = $2
WHERE account_id = $1 AND (expires_at IS NULL OR expires_at > $2)";

const REMOVE_SECRETS: &str =
    "DELETE FROM webhook_secrets WHERE account_id = $1 AND expires_at <= $2";

const ADD_SECRET: &str =
    "INSERT INTO webhook_secrets (account_id, secret, created_at) VALUES ($1, $2, $3)";

#[derive(FromRow)]
struct KeyRow {
    #[sqlx(flatten)]
    key: ApiKeyRow<DateTime<Utc>>,
    other_accounts: Vec<String>,
}

impl TryFrom<KeyRow> for ApiKey {
    type Error = StoreError;

    fn try_from(row: KeyRow) -> Result<Self, StoreError> {
        let read = Reader("api_key_accounts");
        let others: Result<Vec<AccountId>, StoreError> =
            row.other_accounts.iter().map(|other| read.word("account_id", other)).collect();
        row.key.into_key(others?)
    }
}

#[async_trait]
impl AccountStore for PostgresStore {
    async fn ensure_account(
        &self,
        id: &AccountId,
        secret: &SecretString,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        self.run(|lent| {
            let query = sqlx::query(ENSURE_ACCOUNT)
                .bind(id.as_str())
                .bind(secret.expose_secret())
                .bind(now);
            Box::pin(query.execute(lent.connection()))
        })
        .await?;
        Ok(())
    }

    async fn account_exists(&self, id: &AccountId) -> Result<bool, StoreError> {
        let query = "SELECT 1 FROM accounts WHERE account_id = $1";
        let found: Option<i32> = self
            .run(|lent| {
                let query = sqlx::query_scalar(query).bind(id.as_str());
                Box::pin(query.fetch_optional(lent.connection()))
            })
            .await?;
        Ok(found.is_some())
    }

    async fn add_key(&self, key: &ApiKey) -> Result<bool, StoreError> {
        let others: Vec<&str> = key.other_accounts.iter().map(AccountId::as_str).collect();
        let added: Option<Uuid> = self
            .run(|lent| {
                let query = sqlx::query_scalar(ADD_KEY)
                    .bind(key.id.as_uuid())
                    .bind(key.account.as_str())
                    .bind(&key.name)
                    .bind(&key.prefix)
                    .bind(&key.hash.0[..])
                    .bind(key.created_at)
                    .bind(key.revoked_at)
                    .bind(&others);
                Box::pin(query.fetch_optional(lent.connection()))
            })
            .await?;
        Ok(added.is_some())
    }

    async fn find_key(&self, hash: &KeyHash) -> Result<Option<ApiKey>, StoreError> {
        let found: Option<KeyRow> = self
            .run(|lent| {
                let query = sqlx::query_as(FIND_KEY).bind(&hash.0[..]);
                Box::pin(query.fetch_optional(lent.connection()))
            })
            .await?;
        found.map(TryInto::try_into).transpose()
    }

    async fn list_keys(&self, account: Option<&AccountId>) -> Result<Vec<ApiKey>, StoreError> {
        let found: Vec<KeyRow> = self
            .run(|lent| {
                let query = match account {
                    Some(account) => sqlx::query_as(LIST_KEYS_OF).bind(account.as_str()),
                    None => sqlx::query_as(LIST_KEYS),
                };
                Box::pin(query.fetch_all(lent.connection()))
            })
            .await?;
        found.into_iter().map(TryInto::try_into).collect()
    }

    async fn revoke_key(&self, id: ApiKeyId, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let query = "
            UPDATE api_keys SET revoked_at = COALESCE(revoked_at, $2) WHERE api_key_id = $1";
        let revoked = self
            .run(|lent| {
                let query = sqlx::query(query).bind(id.as_uuid()).bind(now);
                Box::pin(query.execute(lent.connection()))
            })
            .await?;
        Ok(revoked.rows_affected() > 0)
    }

    async fn rotate_webhook_secret(
        &self,
        account: &AccountId,
        new: &SecretString,
        now: DateTime<Utc>,
        old_expires_at: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        self.run(|lent| {
            Box::pin(async move {
                let mut transaction = lent.connection().begin().await?;
                let found: Option<String> = sqlx::query_scalar(LOCK_ACCOUNT)
                    .bind(account.as_str())
                    .fetch_optional(&mut *transaction)
                    .await?;
                if found.is_none() {
                    return Ok(false);
                }
                sqlx::query(RETIRE_SECRETS)
                    .bind(account.as_str())
                    .bind(old_expires_at)
                    .execute(&mut *transaction)
                    .await?;
                sqlx::query(REMOVE_SECRETS)
                    .bind(account.as_str())
                    .bind(now)
                    .execute(&mut *transaction)
                    .await?;
                sqlx::query(ADD_SECRET)
                    .bind(account.as_str())
                    .bind(new.expose_secret())
                    .bind(now)
                    .execute(&mut *transaction)
                    .await?;
                transaction.commit().await?;
                Ok(true)
            })
        })
        .await
    }

    async fn list_webhook_secrets(
        &self,
        account: &AccountId,
        now: DateTime<Utc>,
    ) -> Result<Vec<WebhookSecret>, StoreError> {
        let query = "
            SELECT secret, created_at, expires_at FROM webhook_secrets
            WHERE account_id = $1 AND (expires_at IS NULL OR expires_at > $2)
            ORDER BY webhook_secret_id DESC";
        let found: Vec<(String, DateTime<Utc>, Option<DateTime<Utc>>)> = self
            .run(|lent| {
                let query = sqlx::query_as(query).bind(account.as_str()).bind(now);
                Box::pin(query.fetch_all(lent.connection()))
            })
            .await?;
        let secret = |(secret, created_at, expires_at): (String, _, _)| WebhookSecret {
            secret: secret.into(),
            created_at,
            expires_at,
        };
        Ok(found.into_iter().map(secret).collect())
    }
}
