//! What both stores share: rows as they are read, what the moves write besides, and pages.
//!
//! A row keeps words, documents and instants as stored; turning it into the domain checks each and
//! names table and column of what cannot be read.

mod chunks;
mod deliveries;
mod endings;
mod jobs;
mod window;

pub(crate) use self::{chunks::*, deliveries::*, endings::*, jobs::*, window::*};

use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use sqlx::FromRow;
use uuid::Uuid;

use super::StoreError;
use crate::{
    account::{ApiKey, KeyHash},
    credential::{Envelope, SealedCredential},
    id::{AccountId, ApiKeyId, CredentialId, InstanceId, ModelId, ModelServerId},
    job::Json,
    model::{Model, ModelServer, ServerBackend, Sighting},
};

type Source = Box<dyn std::error::Error + Send + Sync>;

/// An instant as a database keeps it.
pub(crate) trait StoredInstant {
    /// `None`: out of the range of time.
    fn instant(self) -> Option<DateTime<Utc>>;
}

impl StoredInstant for DateTime<Utc> {
    fn instant(self) -> Option<DateTime<Utc>> {
        Some(self)
    }
}

/// Microseconds since 1970.
impl StoredInstant for i64 {
    fn instant(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_micros(self)
    }
}

/// Reads the values of one table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader(pub(crate) &'static str);

impl Reader {
    pub(crate) fn corrupt(self, column: &'static str, source: impl Into<Source>) -> StoreError {
        StoreError::Corrupt { table: self.0, column, source: source.into() }
    }

    /// A word of a closed set, or an account's name.
    pub(crate) fn word<T>(self, column: &'static str, text: &str) -> Result<T, StoreError>
    where
        T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
    {
        text.parse().map_err(|error: T::Err| self.corrupt(column, error))
    }

    /// A JSON document kept as its text.
    pub(crate) fn json(self, column: &'static str, text: String) -> Result<Json, StoreError> {
        Json::parse(text).map_err(|error| self.corrupt(column, error))
    }

    /// A JSON document of ours.
    pub(crate) fn document<T: DeserializeOwned>(
        self,
        column: &'static str,
        text: &str,
    ) -> Result<T, StoreError> {
        serde_json::from_str(text).map_err(|error| self.corrupt(column, error))
    }

    pub(crate) fn count<N, M>(self, column: &'static str, number: N) -> Result<M, StoreError>
    where
        M: TryFrom<N, Error: std::error::Error + Send + Sync + 'static>,
    {
        M::try_from(number).map_err(|error| self.corrupt(column, error))
    }

    pub(crate) fn millis(
        self,
        column: &'static str,
        millis: i64,
    ) -> Result<std::time::Duration, StoreError> {
        self.count(column, millis).map(std::time::Duration::from_millis)
    }

    pub(crate) fn instant(
        self,
        column: &'static str,
        at: impl StoredInstant,
    ) -> Result<DateTime<Utc>, StoreError> {
        at.instant().ok_or_else(|| self.corrupt(column, "out of the range of time"))
    }

    pub(crate) fn optional_instant(
        self,
        column: &'static str,
        at: Option<impl StoredInstant>,
    ) -> Result<Option<DateTime<Utc>>, StoreError> {
        at.map(|at| self.instant(column, at)).transpose()
    }

    fn hash(self, column: &'static str, bytes: Vec<u8>) -> Result<[u8; 32], StoreError> {
        bytes.try_into().map_err(|_| self.corrupt(column, "not 32 bytes"))
    }

    pub(crate) fn key_hash(
        self,
        column: &'static str,
        bytes: Vec<u8>,
    ) -> Result<KeyHash, StoreError> {
        self.hash(column, bytes).map(KeyHash)
    }
}
/// A row of `models`.
#[derive(Debug, FromRow)]
pub(crate) struct ModelRow<T> {
    pub(crate) model_id: Uuid,
    pub(crate) account_id: String,
    pub(crate) name: String,
    pub(crate) vendor: String,
    pub(crate) model_type: String,
    pub(crate) vendor_configuration: Option<String>,
    pub(crate) metadata: Option<String>,
    pub(crate) status: String,
    pub(crate) status_reason: Option<String>,
    pub(crate) default_callback_url: Option<String>,
    pub(crate) created_at: T,
    pub(crate) created_by_user_id: String,
    pub(crate) created_by_identity_type: String,
}

impl<T: StoredInstant> TryFrom<ModelRow<T>> for Model {
    type Error = StoreError;

    fn try_from(row: ModelRow<T>) -> Result<Self, StoreError> {
        let read = Reader("models");
        Ok(Self {
            id: ModelId::from_uuid(row.model_id),
            account: read.word("account_id", &row.account_id)?,
            name: row.name,
            vendor: read.word("vendor", &row.vendor)?,
            model_type: read.word("model_type", &row.model_type)?,
            vendor_configuration: row
                .vendor_configuration
                .map(|text| read.json("vendor_configuration", text))
                .transpose()?,
            metadata: row.metadata.map(|text| read.json("metadata", text)).transpose()?,
            status: read.word("status", &row.status)?,
            status_reason: row.status_reason,
            default_callback_url: row.default_callback_url,
            created_at: read.instant("created_at", row.created_at)?,
            created_by_user_id: row.created_by_user_id,
            created_by_identity_type: read
                .word("created_by_identity_type", &row.created_by_identity_type)?,
        })
    }
}

/// A row of `model_servers`.
#[derive(Debug, FromRow)]
pub(crate) struct ModelServerRow<T> {
    pub(crate) model_server_id: Uuid,
    pub(crate) account_id: String,
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    pub(crate) model_deployment_id: String,
    pub(crate) created_at: T,
}

impl<T: StoredInstant> TryFrom<ModelServerRow<T>> for ModelServer {
    type Error = StoreError;

    fn try_from(row: ModelServerRow<T>) -> Result<Self, StoreError> {
        let read = Reader("model_servers");
        Ok(Self {
            id: ModelServerId::from_uuid(row.model_server_id),
            account: read.word("account_id", &row.account_id)?,
            name: row.name,
            alias: row.alias,
            model_deployment_id: row.model_deployment_id,
            created_at: read.instant("created_at", row.created_at)?,
        })
    }
}

/// A row of `model_server_backends`.
#[derive(Debug, FromRow)]
pub(crate) struct ServerBackendRow<T> {
    pub(crate) number: i64,
    pub(crate) model_deployment_id: String,
    pub(crate) since: T,
    pub(crate) by_user_id: Option<String>,
    pub(crate) rollback_to: Option<i64>,
}

impl<T: StoredInstant> TryFrom<ServerBackendRow<T>> for ServerBackend {
    type Error = StoreError;

    fn try_from(row: ServerBackendRow<T>) -> Result<Self, StoreError> {
        Ok(Self {
            number: row.number,
            model_deployment_id: row.model_deployment_id,
            since: Reader("model_server_backends").instant("since", row.since)?,
            by_user_id: row.by_user_id,
            rollback_to: row.rollback_to,
        })
    }
}

/// A row of `model_health`.
#[derive(Debug, FromRow)]
pub(crate) struct SightingRow<T> {
    pub(crate) model_id: Uuid,
    pub(crate) instance_id: Uuid,
    pub(crate) available: bool,
    pub(crate) reason: Option<String>,
    pub(crate) since: T,
    pub(crate) updated_at: T,
}

impl<T: StoredInstant> TryFrom<SightingRow<T>> for Sighting {
    type Error = StoreError;

    fn try_from(row: SightingRow<T>) -> Result<Self, StoreError> {
        let read = Reader("model_health");
        Ok(Self {
            model: ModelId::from_uuid(row.model_id),
            instance: InstanceId::from_uuid(row.instance_id),
            available: row.available,
            reason: row.reason,
            since: read.instant("since", row.since)?,
            updated_at: read.instant("updated_at", row.updated_at)?,
        })
    }
}

/// A row of `api_keys`.
#[derive(Debug, FromRow)]
pub(crate) struct ApiKeyRow<T> {
    pub(crate) api_key_id: Uuid,
    pub(crate) account_id: String,
    pub(crate) name: String,
    pub(crate) prefix: String,
    pub(crate) hash: Vec<u8>,
    pub(crate) created_at: T,
    pub(crate) revoked_at: Option<T>,
}

impl<T: StoredInstant> ApiKeyRow<T> {
    pub(crate) fn into_key(self, other_accounts: Vec<AccountId>) -> Result<ApiKey, StoreError> {
        let read = Reader("api_keys");
        Ok(ApiKey {
            id: ApiKeyId::from_uuid(self.api_key_id),
            account: read.word("account_id", &self.account_id)?,
            other_accounts,
            name: self.name,
            prefix: self.prefix,
            hash: read.key_hash("hash", self.hash)?,
            created_at: read.instant("created_at", self.created_at)?,
            revoked_at: read.optional_instant("revoked_at", self.revoked_at)?,
        })
    }
}

/// A row of `credentials`.
#[derive(Debug, FromRow)]
pub(crate) struct CredentialRow<T> {
    pub(crate) credential_id: Uuid,
    pub(crate) account_id: String,
    pub(crate) name: String,
    pub(crate) vendor: String,
    pub(crate) envelope: Vec<u8>,
    pub(crate) is_default: bool,
    pub(crate) created_at: T,
    pub(crate) updated_at: T,
    pub(crate) version: i64,
}

impl<T: StoredInstant> TryFrom<CredentialRow<T>> for SealedCredential {
    type Error = StoreError;

    fn try_from(row: CredentialRow<T>) -> Result<Self, StoreError> {
        let read = Reader("credentials");
        Ok(Self {
            id: CredentialId::from_uuid(row.credential_id),
            account: read.word("account_id", &row.account_id)?,
            name: read.word("name", &row.name)?,
            vendor: read.word("vendor", &row.vendor)?,
            secret: Envelope(row.envelope),
            is_default: row.is_default,
            created_at: read.instant("created_at", row.created_at)?,
            updated_at: read.instant("updated_at", row.updated_at)?,
            version: row.version,
        })
    }
}

/// Turns rows into the domain; the first that cannot be read is the error.
pub(crate) fn all<R, D>(rows: Vec<R>) -> Result<Vec<D>, StoreError>
where
    D: TryFrom<R, Error = StoreError>,
{
    rows.into_iter().map(D::try_from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobStatus;

    #[test]
    fn an_unknown_word_names_its_table_and_column() {
        let error = Reader("jobs").word::<JobStatus>("status", "paused").unwrap_err();
        assert_eq!(error.to_string(), "cannot read jobs.status");
    }
}
