//! Accounts, API keys and callback secrets.

use std::collections::HashMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{FromRow, Sqlite, SqliteConnection, SqliteExecutor};
use uuid::Uuid;

use super::{
    SqliteStore, commit,
    error::in_table,
    values::{ids, micros},
};
use crate::{
    account::{ApiKey, KeyHash},
    id::{AccountId, ApiKeyId},
    store::{
        AccountStore, StoreError, WebhookSecret,
        rows::{ApiKeyRow, Reader},
    },
};

#[derive(FromRow)]
struct SecretRow {
    secret: String,
    created_at: i64,
    expires_at: Option<i64>,
}

impl TryFrom<SecretRow> for WebhookSecret {
    type Error = StoreError;

    fn try_from(row: SecretRow) -> Result<Self, StoreError> {
        let read = Reader("webhook_secrets");
        Ok(Self {
            secret: row.secret.into(),
            created_at: read.instant("created_at", row.created_at)?,
            expires_at: read.optional_instant("expires_at", row.expires_at)?,
        })
    }
}

/// The secrets active at `now`, newest first.
pub(super) async fn active_secrets(
    connection: impl SqliteExecutor<'_>,
    account: &AccountId,
    now: DateTime<Utc>,
) -> Result<Vec<WebhookSecret>, StoreError> {
    let rows: Vec<SecretRow> = sqlx::query_as(
        "SELECT secret, created_at, expires_at FROM webhook_secrets
         WHERE account_id = ?1 AND (expires_at IS NULL OR expires_at > ?2)
         ORDER BY created_at DESC, webhook_secret_id DESC",
    )
    .bind(account.as_str())
    .bind(micros(now))
    .fetch_all(connection)
    .await
    .map_err(in_table("webhook_secrets"))?;
    rows.into_iter().map(WebhookSecret::try_from).collect()
}

async fn add_secret(
    tx: &mut SqliteConnection,
    account: &AccountId,
    secret: &SecretString,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO webhook_secrets (account_id, secret, created_at) VALUES (?1, ?2, ?3)")
        .bind(account.as_str())
        .bind(secret.expose_secret())
        .bind(micros(now))
        .execute(tx)
        .await
        .map_err(in_table("webhook_secrets"))?;
    Ok(())
}

macro_rules! key_columns {
    () => {
        "api_key_id, account_id, name, prefix, hash, created_at, revoked_at"
    };
}

/// Adds the further accounts to keys.
async fn complete<'a>(
    connection: impl sqlx::Executor<'a, Database = Sqlite>,
    rows: Vec<ApiKeyRow<i64>>,
) -> Result<Vec<ApiKey>, StoreError> {
    let further: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT api_key_id, account_id FROM api_key_accounts
         WHERE api_key_id IN (SELECT unhex(value) FROM json_each(?1))
         ORDER BY api_key_id, position",
    )
    .bind(ids(rows.iter().map(|row| row.api_key_id)))
    .fetch_all(connection)
    .await
    .map_err(in_table("api_key_accounts"))?;
    let mut accounts: HashMap<Uuid, Vec<AccountId>> = HashMap::new();
    for (key, account) in further {
        let account = Reader("api_key_accounts").word("account_id", &account)?;
        accounts.entry(key).or_default().push(account);
    }
    rows.into_iter()
        .map(|row| {
            let further = accounts.remove(&row.api_key_id).unwrap_or_default();
            row.into_key(further)
        })
        .collect()
}

#[async_trait]
impl AccountStore for SqliteStore {
    async fn ensure_account(
        &self,
        id: &AccountId,
        secret: &SecretString,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let made = sqlx::query(
            "INSERT INTO accounts (account_id, created_at) VALUES (?1, ?2)
             ON CONFLICT (account_id) DO NOTHING",
        )
        .bind(id.as_str())
        .bind(micros(now))
        .execute(&mut *tx)
        .await
        .map_err(in_table("accounts"))?;
        if made.rows_affected() == 1 {
            add_secret(&mut tx, id, secret, now).await?;
        }
        commit(tx).await
    }

    async fn account_exists(&self, id: &AccountId) -> Result<bool, StoreError> {
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM accounts WHERE account_id = ?1)")
            .bind(id.as_str())
            .fetch_one(&self.readers)
            .await
            .map_err(in_table("accounts"))
    }

    async fn add_key(&self, key: &ApiKey) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let added = sqlx::query(
            "INSERT INTO api_keys (
                 api_key_id, account_id, name, prefix, hash, created_at, revoked_at
             )
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (hash) DO NOTHING",
        )
        .bind(key.id.as_uuid())
        .bind(key.account.as_str())
        .bind(&key.name)
        .bind(&key.prefix)
        .bind(key.hash.0.as_slice())
        .bind(micros(key.created_at))
        .bind(key.revoked_at.map(micros))
        .execute(&mut *tx)
        .await
        .map_err(in_table("api_keys"))?;
        if added.rows_affected() == 0 {
            return Ok(false);
        }
        let further: Vec<&str> = key.other_accounts.iter().map(AccountId::as_str).collect();
        sqlx::query(
            "INSERT INTO api_key_accounts (api_key_id, position, account_id)
             SELECT ?1, key, value FROM json_each(?2)",
        )
        .bind(key.id.as_uuid())
        .bind(super::values::array(further))
        .execute(&mut *tx)
        .await
        .map_err(in_table("api_key_accounts"))?;
        commit(tx).await?;
        Ok(true)
    }

    async fn find_key(&self, hash: &KeyHash) -> Result<Option<ApiKey>, StoreError> {
        let row: Option<ApiKeyRow<i64>> =
            sqlx::query_as(concat!("SELECT ", key_columns!(), " FROM api_keys WHERE hash = ?1"))
                .bind(hash.0.as_slice())
                .fetch_optional(&self.readers)
                .await
                .map_err(in_table("api_keys"))?;
        Ok(complete(&self.readers, row.into_iter().collect()).await?.pop())
    }

    async fn list_keys(&self, account: Option<&AccountId>) -> Result<Vec<ApiKey>, StoreError> {
        // Of an account: all that may act for it. Keys are few, so one scan does for both lists.
        let rows: Vec<ApiKeyRow<i64>> = sqlx::query_as(concat!(
            "SELECT ",
            key_columns!(),
            " FROM api_keys AS k
             WHERE ?1 IS NULL OR k.account_id = ?1 OR EXISTS (
                 SELECT 1 FROM api_key_accounts AS a
                 WHERE a.api_key_id = k.api_key_id AND a.account_id = ?1
             )
             ORDER BY created_at, api_key_id"
        ))
        .bind(account.map(AccountId::as_str))
        .fetch_all(&self.readers)
        .await
        .map_err(in_table("api_keys"))?;
        complete(&self.readers, rows).await
    }

    async fn revoke_key(&self, id: ApiKeyId, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let revoked = sqlx::query(
            "UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?2) WHERE api_key_id = ?1",
        )
        .bind(id.as_uuid())
        .bind(micros(now))
        .execute(&mut *tx)
        .await
        .map_err(in_table("api_keys"))?;
        commit(tx).await?;
        Ok(revoked.rows_affected() == 1)
    }

    async fn rotate_webhook_secret(
        &self,
        account: &AccountId,
        new: &SecretString,
        now: DateTime<Utc>,
        old_expires_at: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let known: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM accounts WHERE account_id = ?1)")
                .bind(account.as_str())
                .fetch_one(&mut *tx)
                .await
                .map_err(in_table("accounts"))?;
        if !known {
            return Ok(false);
        }
        // One that was rotated out before keeps its earlier end.
        sqlx::query(
            "UPDATE webhook_secrets SET expires_at = min(coalesce(expires_at, ?2), ?2)
             WHERE account_id = ?1",
        )
        .bind(account.as_str())
        .bind(micros(old_expires_at))
        .execute(&mut *tx)
        .await
        .map_err(in_table("webhook_secrets"))?;
        sqlx::query("DELETE FROM webhook_secrets WHERE account_id = ?1 AND expires_at <= ?2")
            .bind(account.as_str())
            .bind(micros(now))
            .execute(&mut *tx)
            .await
            .map_err(in_table("webhook_secrets"))?;
        add_secret(&mut tx, account, new, now).await?;
        commit(tx).await?;
        Ok(true)
    }

    async fn list_webhook_secrets(
        &self,
        account: &AccountId,
        now: DateTime<Utc>,
    ) -> Result<Vec<WebhookSecret>, StoreError> {
        active_secrets(&self.readers, account, now).await
    }
}
