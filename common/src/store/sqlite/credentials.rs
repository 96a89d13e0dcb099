//! Credentials of accounts, sealed.

use async_trait::async_trait;
use sqlx::SqliteExecutor;
use uuid::Uuid;

use super::{SqliteStore, commit, error::in_table, values::micros};
use crate::{
    credential::{CredentialName, Envelope, SealedCredential},
    id::{AccountId, CredentialId},
    store::{
        Added, CredentialStore, NewCredential, Page, PageRequest, StoreError,
        rows::{self, CredentialRow, Window},
    },
    vendor::Vendor,
};

type Row = CredentialRow<i64>;

macro_rules! columns {
    () => {
        "credential_id, account_id, name, vendor, envelope, is_default, created_at, updated_at, \
         version"
    };
}

pub(super) const FIND: &str =
    concat!("SELECT ", columns!(), " FROM credentials WHERE account_id = ?1 AND name = ?2");

pub(super) const FIND_DEFAULT: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM credentials WHERE account_id = ?1 AND vendor = ?2 AND is_default"
);

/// A name that is taken keeps its id and, unless it is told otherwise, whether it is the default.
const PUT: &str = concat!(
    "INSERT INTO credentials (
         credential_id, account_id, name, vendor, envelope, is_default, created_at, updated_at,
         version
     )
     VALUES (?1, ?2, ?3, ?4, ?5, coalesce(?6, FALSE), ?7, ?7, 1)
     ON CONFLICT (account_id, name) DO UPDATE
     SET envelope = ?5, is_default = coalesce(?6, is_default), updated_at = ?7,
         version = version + 1
     RETURNING ",
    columns!()
);

pub(super) const ALL: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM credentials WHERE credential_id > ?1 ORDER BY credential_id LIMIT ?2"
);

macro_rules! list {
    ($order:literal) => {
        concat!(
            "SELECT ",
            columns!(),
            " FROM credentials
             WHERE account_id = ?1 AND credential_id > ?2 AND credential_id < ?3
                 AND (?4 IS NULL OR vendor = ?4)
             ORDER BY credential_id ",
            $order,
            " LIMIT ?5"
        )
    };
}

const LIST_UP: &str = list!("ASC");
pub(super) const LIST_DOWN: &str = list!("DESC");

async fn by_name(
    connection: impl SqliteExecutor<'_>,
    account: &AccountId,
    name: &CredentialName,
) -> Result<Option<SealedCredential>, StoreError> {
    let row: Option<Row> = sqlx::query_as(FIND)
        .bind(account.as_str())
        .bind(name.as_str())
        .fetch_optional(connection)
        .await
        .map_err(in_table("credentials"))?;
    row.map(TryInto::try_into).transpose()
}

#[async_trait]
impl CredentialStore for SqliteStore {
    async fn put_credential(
        &self,
        new: &NewCredential,
    ) -> Result<Added<SealedCredential>, StoreError> {
        let mut tx = self.write().await?;
        let there = by_name(&mut *tx, &new.account, &new.name).await?;
        let was_there = there.is_some();
        if let Some(other) = there.filter(|there| there.vendor != new.vendor) {
            return Ok(Added::Conflict(other));
        }
        if new.default == Some(true) {
            sqlx::query(
                "UPDATE credentials SET is_default = FALSE
                 WHERE account_id = ?1 AND vendor = ?2 AND is_default AND name <> ?3",
            )
            .bind(new.account.as_str())
            .bind(new.vendor.as_str())
            .bind(new.name.as_str())
            .execute(&mut *tx)
            .await
            .map_err(in_table("credentials"))?;
        }
        let row: Row = sqlx::query_as(PUT)
            .bind(new.id.as_uuid())
            .bind(new.account.as_str())
            .bind(new.name.as_str())
            .bind(new.vendor.as_str())
            .bind(&new.secret.0)
            .bind(new.default)
            .bind(micros(new.now))
            .fetch_one(&mut *tx)
            .await
            .map_err(in_table("credentials"))?;
        commit(tx).await?;
        let now = row.try_into()?;
        Ok(if was_there { Added::Updated(now) } else { Added::New(now) })
    }

    async fn find_credential(
        &self,
        account: &AccountId,
        name: &CredentialName,
    ) -> Result<Option<SealedCredential>, StoreError> {
        by_name(&self.readers, account, name).await
    }

    async fn find_default_credential(
        &self,
        account: &AccountId,
        vendor: Vendor,
    ) -> Result<Option<SealedCredential>, StoreError> {
        let row: Option<Row> = sqlx::query_as(FIND_DEFAULT)
            .bind(account.as_str())
            .bind(vendor.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(in_table("credentials"))?;
        row.map(TryInto::try_into).transpose()
    }

    async fn list_credentials(
        &self,
        account: &AccountId,
        vendor: Option<Vendor>,
        page: &PageRequest<CredentialId>,
    ) -> Result<Page<SealedCredential>, StoreError> {
        let window = Window::of(page, CredentialId::as_uuid);
        let statement = if window.descending { LIST_DOWN } else { LIST_UP };
        let rows: Vec<Row> = sqlx::query_as(statement)
            .bind(account.as_str())
            .bind(window.low)
            .bind(window.high)
            .bind(vendor.map(Vendor::as_str))
            .bind(window.fetch)
            .fetch_all(&self.readers)
            .await
            .map_err(in_table("credentials"))?;
        window.page(rows)
    }

    async fn all_credentials(
        &self,
        after: Option<CredentialId>,
        limit: u32,
    ) -> Result<Vec<SealedCredential>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(ALL)
            .bind(after.map_or(Uuid::nil(), CredentialId::as_uuid))
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .map_err(in_table("credentials"))?;
        rows::all(rows)
    }

    async fn reseal_credential(
        &self,
        id: CredentialId,
        version: i64,
        envelope: &Envelope,
    ) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query(
            "UPDATE credentials SET envelope = ?3 WHERE credential_id = ?1 AND version = ?2",
        )
        .bind(id.as_uuid())
        .bind(version)
        .bind(&envelope.0)
        .execute(&mut *tx)
        .await
        .map_err(in_table("credentials"))?;
        commit(tx).await?;
        Ok(done.rows_affected() == 1)
    }

    async fn delete_credential(
        &self,
        account: &AccountId,
        name: &CredentialName,
    ) -> Result<Option<CredentialId>, StoreError> {
        let mut tx = self.write().await?;
        let deleted: Option<Uuid> = sqlx::query_scalar(
            "DELETE FROM credentials WHERE account_id = ?1 AND name = ?2 RETURNING credential_id",
        )
        .bind(account.as_str())
        .bind(name.as_str())
        .fetch_optional(&mut *tx)
        .await
        .map_err(in_table("credentials"))?;
        commit(tx).await?;
        Ok(deleted.map(CredentialId::from_uuid))
    }
}
