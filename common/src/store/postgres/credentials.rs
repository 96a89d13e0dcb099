//! Credentials of accounts, sealed.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::PostgresStore;
use crate::{
    credential::{CredentialName, Envelope, SealedCredential},
    id::{AccountId, CredentialId},
    store::{
        Added, CredentialStore, NewCredential, Page, PageRequest, StoreError,
        rows::{self, CredentialRow, Window},
    },
    vendor::Vendor,
};

type Row = CredentialRow<DateTime<Utc>>;

/// The columns of a [`CredentialRow`].
macro_rules! columns {
    () => {
        "credential_id, account_id, name, vendor, envelope, is_default, created_at, updated_at, \
         version"
    };
}

/// Puts within one account go one after the other: each may take the default from another row.
const LOCK_ACCOUNT: &str =
    "SELECT account_id FROM accounts WHERE account_id = $1 FOR NO KEY UPDATE";

pub(super) const FIND: &str =
    concat!("SELECT ", columns!(), " FROM credentials WHERE account_id = $1 AND name = $2");

pub(super) const FIND_DEFAULT: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM credentials WHERE account_id = $1 AND vendor = $2 AND is_default"
);

pub(super) const CLEAR_DEFAULT: &str = "
UPDATE credentials SET is_default = FALSE
WHERE account_id = $1 AND vendor = $2 AND is_default AND name <> $3";

/// A name that is taken keeps its id and, unless it is told otherwise, whether it is the default.
pub(super) const PUT: &str = concat!(
    "INSERT INTO credentials (
        credential_id, account_id, name, vendor, envelope, is_default, created_at, updated_at,
        version
    )
    VALUES ($1, $2, $3, $4, $5, COALESCE($6, FALSE), $7, $7, 1)
    ON CONFLICT (account_id, name) DO UPDATE
    SET envelope = $5, is_default = COALESCE($6, credentials.is_default), updated_at = $7,
        version = credentials.version + 1
    RETURNING ",
    columns!()
);

pub(super) const ALL: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM credentials WHERE credential_id > $1 ORDER BY credential_id LIMIT $2"
);

pub(super) const RESEAL: &str =
    "UPDATE credentials SET envelope = $3 WHERE credential_id = $1 AND version = $2";

pub(super) const DELETE: &str =
    "DELETE FROM credentials WHERE account_id = $1 AND name = $2 RETURNING credential_id";

macro_rules! list {
    ($direction:literal) => {
        concat!(
            "SELECT ",
            columns!(),
            " FROM credentials
            WHERE account_id = $1 AND credential_id > $2 AND credential_id < $3
                AND ($4::text IS NULL OR vendor = $4)
            ORDER BY credential_id ",
            $direction,
            " LIMIT $5"
        )
    };
}

/// Whether it was there before, and the row as it is now.
async fn put(
    connection: &mut PgConnection,
    new: &NewCredential,
) -> Result<(bool, Row), sqlx::Error> {
    sqlx::query(LOCK_ACCOUNT).bind(new.account.as_str()).execute(&mut *connection).await?;
    let there: Option<Row> = sqlx::query_as(FIND)
        .bind(new.account.as_str())
        .bind(new.name.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let was_there = there.is_some();
    if let Some(other) = there.filter(|there| there.vendor != new.vendor.as_str()) {
        return Ok((true, other));
    }
    if new.default == Some(true) {
        sqlx::query(CLEAR_DEFAULT)
            .bind(new.account.as_str())
            .bind(new.vendor.as_str())
            .bind(new.name.as_str())
            .execute(&mut *connection)
            .await?;
    }
    let row = sqlx::query_as(PUT)
        .bind(new.id.as_uuid())
        .bind(new.account.as_str())
        .bind(new.name.as_str())
        .bind(new.vendor.as_str())
        .bind(&new.secret.0)
        .bind(new.default)
        .bind(new.now)
        .fetch_one(connection)
        .await?;
    Ok((was_there, row))
}

#[async_trait]
impl CredentialStore for PostgresStore {
    async fn put_credential(
        &self,
        new: &NewCredential,
    ) -> Result<Added<SealedCredential>, StoreError> {
        let (was_there, row) = self
            .run(|lent| {
                Box::pin(async move {
                    let mut transaction = lent.connection().begin().await?;
                    let done = put(&mut transaction, new).await?;
                    transaction.commit().await?;
                    Ok(done)
                })
            })
            .await?;
        let now: SealedCredential = row.try_into()?;
        Ok(match was_there {
            true if now.vendor != new.vendor => Added::Conflict(now),
            true => Added::Updated(now),
            false => Added::New(now),
        })
    }

    async fn find_credential(
        &self,
        account: &AccountId,
        name: &CredentialName,
    ) -> Result<Option<SealedCredential>, StoreError> {
        let found: Option<Row> = self
            .run(|lent| {
                let query = sqlx::query_as(FIND).bind(account.as_str()).bind(name.as_str());
                Box::pin(query.fetch_optional(lent.connection()))
            })
            .await?;
        found.map(TryInto::try_into).transpose()
    }

    async fn find_default_credential(
        &self,
        account: &AccountId,
        vendor: Vendor,
    ) -> Result<Option<SealedCredential>, StoreError> {
        let found: Option<Row> = self
            .run(|lent| {
                let query =
                    sqlx::query_as(FIND_DEFAULT).bind(account.as_str()).bind(vendor.as_str());
                Box::pin(query.fetch_optional(lent.connection()))
            })
            .await?;
        found.map(TryInto::try_into).transpose()
    }

    async fn list_credentials(
        &self,
        account: &AccountId,
        vendor: Option<Vendor>,
        page: &PageRequest<CredentialId>,
    ) -> Result<Page<SealedCredential>, StoreError> {
        let window = Window::of(page, CredentialId::as_uuid);
        let statement = if window.descending { list!("DESC") } else { list!("ASC") };
        let rows: Vec<Row> = self
            .run(|lent| {
                let query = sqlx::query_as(statement)
                    .bind(account.as_str())
                    .bind(window.low)
                    .bind(window.high)
                    .bind(vendor.map(Vendor::as_str))
                    .bind(window.fetch);
                Box::pin(query.fetch_all(lent.connection()))
            })
            .await?;
        window.page(rows)
    }

    async fn all_credentials(
        &self,
        after: Option<CredentialId>,
        limit: u32,
    ) -> Result<Vec<SealedCredential>, StoreError> {
        let after = after.map_or(Uuid::nil(), CredentialId::as_uuid);
        let rows: Vec<Row> = self
            .run(|lent| {
                let query = sqlx::query_as(ALL).bind(after).bind(i64::from(limit));
                Box::pin(query.fetch_all(lent.connection()))
            })
            .await?;
        rows::all(rows)
    }

    async fn reseal_credential(
        &self,
        id: CredentialId,
        version: i64,
        envelope: &Envelope,
    ) -> Result<bool, StoreError> {
        let done = self
            .run(|lent| {
                let query = sqlx::query(RESEAL).bind(id.as_uuid()).bind(version).bind(&envelope.0);
                Box::pin(query.execute(lent.connection()))
            })
            .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn delete_credential(
        &self,
        account: &AccountId,
        name: &CredentialName,
    ) -> Result<Option<CredentialId>, StoreError> {
        let deleted: Option<Uuid> = self
            .run(|lent| {
                let query = sqlx::query_scalar(DELETE).bind(account.as_str()).bind(name.as_str());
                Box::pin(query.fetch_optional(lent.connection()))
            })
            .await?;
        Ok(deleted.map(CredentialId::from_uuid))
    }
}
