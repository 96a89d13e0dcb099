//! Changes of models and model servers.
//!
//! Who switches a model server holds its row, and shares the model's; who adds one shares its model's
//! too; who deletes a model holds the model's row. So no server comes to run a model that is being
//! deleted.

mod rename;
mod switch;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

pub(super) use self::switch::is_there;
use self::switch::{Backends, Switch, Target, backend_columns};
use super::{
    PostgresStore,
    models::{model_columns, server_columns},
};
use crate::{
    id::{AccountId, ModelId, ModelServerId},
    job::Json,
    model::{Model, ModelStatus, ServerBackend, Sighting},
    store::{
        StoreError,
        rows::{self, ModelRow, ModelServerRow, SightingRow},
        serving::{
            Changed, MAX_BACKENDS, Removed, Renamed, RolledBack, ServingStore, Switched, Switching,
        },
    },
};

type Models = ModelRow<DateTime<Utc>>;
type Servers = ModelServerRow<DateTime<Utc>>;

/// What has not been seen for so long is forgotten when the model is seen again.
const FORGET_SIGHTINGS_AFTER: TimeDelta = TimeDelta::days(1);

const FIND_ANY: &str = concat!("SELECT ", model_columns!(), " FROM models WHERE model_id = $1");

/// `json` has no equality; its text has, and it is kept as it came.
const REPLACE: &str = concat!(
    "UPDATE models
    SET vendor_configuration = $3::text::json, metadata = $4::text::json,
        default_callback_url = $5
    WHERE model_id = $1 AND account_id = $2 AND status <> 'deploying'
        AND vendor_configuration::text IS NOT DISTINCT FROM $6
        AND metadata::text IS NOT DISTINCT FROM $7
    RETURNING ",
    model_columns!()
);

const LOCK_MODEL: &str = concat!(
    "SELECT ",
    model_columns!(),
    " FROM models WHERE model_id = $1 AND account_id = $2 FOR UPDATE"
);

const FIND_RUNNING: &str = concat!(
    "SELECT ",
    server_columns!(),
    " FROM model_servers WHERE account_id = $1 AND model_deployment_id = $2 LIMIT 1"
);

const DELETE: &str = "DELETE FROM models WHERE model_id = $1";

/// Its history goes with it: `ON DELETE CASCADE`.
const DELETE_SERVER: &str =
    "DELETE FROM model_servers WHERE model_server_id = $1 AND account_id = $2";

const LIST_BACKENDS: &str = concat!(
    "SELECT ",
    backend_columns!(),
    " FROM model_server_backends WHERE model_server_id = $1 ORDER BY number DESC LIMIT $2"
);

const FORGET_SIGHTINGS: &str = "DELETE FROM model_health WHERE model_id = $1 AND updated_at < $2";

const PUT_SIGHTING: &str = "
INSERT INTO model_health (model_id, instance_id, available, reason, since, updated_at)
SELECT model_id, $2, $3, $4, $5, $6 FROM models WHERE model_id = $1
ON CONFLICT (model_id, instance_id) DO UPDATE
SET available = $3, reason = $4, since = $5, updated_at = $6";

const SIGHTINGS: &str = "
SELECT h.model_id, h.instance_id, h.available, h.reason, h.since, h.updated_at
FROM model_health AS h
WHERE h.model_id = ANY ($1) AND h.updated_at >= $2
    AND EXISTS (
        SELECT FROM instances AS i
        WHERE i.instance_id = ANY (ARRAY[h.instance_id]) AND i.lost_at IS NULL
    )
ORDER BY h.model_id, h.instance_id";

enum Delete {
    Model(Option<Models>),
    InUse(Servers),
    Done,
}

async fn delete(
    connection: &mut PgConnection,
    id: ModelId,
    account: &AccountId,
) -> Result<Delete, sqlx::Error> {
    let model: Option<Models> = sqlx::query_as(LOCK_MODEL)
        .bind(id.as_uuid())
        .bind(account.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    if model.as_ref().is_none_or(|model| model.status == ModelStatus::Deploying.as_str()) {
        return Ok(Delete::Model(model));
    }
    let server: Option<Servers> = sqlx::query_as(FIND_RUNNING)
        .bind(account.as_str())
        .bind(id.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(server) = server {
        return Ok(Delete::InUse(server));
    }
    sqlx::query(DELETE).bind(id.as_uuid()).execute(connection).await?;
    Ok(Delete::Done)
}

#[async_trait]
impl ServingStore for PostgresStore {
    async fn find_any_model(&self, id: ModelId) -> Result<Option<Model>, StoreError> {
        let found: Option<Models> = self
            .run(|lent| {
                let query = sqlx::query_as(FIND_ANY).bind(id.as_uuid());
                Box::pin(query.fetch_optional(lent.connection()))
            })
            .await?;
        found.map(TryInto::try_into).transpose()
    }

    async fn replace_model(&self, old: &Model, new: &Model) -> Result<Changed, StoreError> {
        let replaced: Option<Models> = self
            .run(|lent| {
                let query = sqlx::query_as(REPLACE)
                    .bind(old.id.as_uuid())
                    .bind(old.account.as_str())
                    .bind(new.vendor_configuration.as_ref().map(Json::as_str))
                    .bind(new.metadata.as_ref().map(Json::as_str))
                    .bind(new.default_callback_url.as_deref())
                    .bind(old.vendor_configuration.as_ref().map(Json::as_str))
                    .bind(old.metadata.as_ref().map(Json::as_str));
                Box::pin(query.fetch_optional(lent.connection()))
            })
            .await?;
        if let Some(row) = replaced {
            return Ok(Changed::Done(row.try_into()?));
        }
        let there: Option<Model> =
            self.find_any_model(old.id).await?.filter(|model| model.account == old.account);
        Ok(match there {
            None => Changed::Missing,
            Some(model) if model.status == ModelStatus::Deploying => Changed::Deploying(model),
            Some(_) => Changed::Stale,
        })
    }

    async fn rename_model(
        &self,
        id: ModelId,
        account: &AccountId,
        name: &str,
        swap: bool,
    ) -> Result<Renamed, StoreError> {
        self.exchange_names(id, account, name, swap).await
    }

    async fn delete_model(&self, id: ModelId, account: &AccountId) -> Result<Removed, StoreError> {
        let deleted = self
            .run(|lent| {
                Box::pin(async move {
                    let mut transaction = lent.connection().begin().await?;
                    let deleted = delete(&mut transaction, id, account).await?;
                    transaction.commit().await?;
                    Ok(deleted)
                })
            })
            .await?;
        Ok(match deleted {
            Delete::Done => Removed::Done,
            Delete::Model(None) => Removed::Missing,
            Delete::Model(Some(model)) => Removed::Deploying(model.try_into()?),
            Delete::InUse(server) => Removed::InUse(server.try_into()?),
        })
    }

    async fn switch_model_server(
        &self,
        id: ModelServerId,
        account: &AccountId,
        to: &str,
        switching: Switching<'_>,
    ) -> Result<Switched, StoreError> {
        Ok(match self.switch(id, account, Target::To(to), switching).await? {
            Switch::Missing | Switch::Nothing => Switched::Missing,
            Switch::NoModel(_) => Switched::NoModel,
            Switch::Done(row, now) => {
                let from = row.model_deployment_id.clone();
                let row = Servers { model_deployment_id: now, ..row };
                Switched::Done { server: row.try_into()?, from }
            }
        })
    }

    async fn roll_back_model_server(
        &self,
        id: ModelServerId,
        account: &AccountId,
        switching: Switching<'_>,
    ) -> Result<RolledBack, StoreError> {
        Ok(match self.switch(id, account, Target::Back, switching).await? {
            Switch::Missing => RolledBack::Missing,
            Switch::Nothing => RolledBack::Nothing,
            Switch::NoModel(to) => RolledBack::NoModel(to),
            Switch::Done(row, now) => {
                let from = row.model_deployment_id.clone();
                let row = Servers { model_deployment_id: now, ..row };
                RolledBack::Done { server: row.try_into()?, from }
            }
        })
    }

    async fn delete_model_server(
        &self,
        id: ModelServerId,
        account: &AccountId,
    ) -> Result<bool, StoreError> {
        let done = self
            .run(|lent| {
                let query = sqlx::query(DELETE_SERVER).bind(id.as_uuid()).bind(account.as_str());
                Box::pin(query.execute(lent.connection()))
            })
            .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn list_backends(&self, id: ModelServerId) -> Result<Vec<ServerBackend>, StoreError> {
        let found: Vec<Backends> = self
            .run(|lent| {
                let query = sqlx::query_as(LIST_BACKENDS).bind(id.as_uuid()).bind(MAX_BACKENDS);
                Box::pin(query.fetch_all(lent.connection()))
            })
            .await?;
        rows::all(found)
    }

    async fn put_sighting(&self, sighting: &Sighting) -> Result<(), StoreError> {
        self.run(|lent| {
            Box::pin(async move {
                let mut transaction = lent.connection().begin().await?;
                sqlx::query(FORGET_SIGHTINGS)
                    .bind(sighting.model.as_uuid())
                    .bind(sighting.updated_at - FORGET_SIGHTINGS_AFTER)
                    .execute(&mut *transaction)
                    .await?;
                sqlx::query(PUT_SIGHTING)
                    .bind(sighting.model.as_uuid())
                    .bind(sighting.instance.as_uuid())
                    .bind(sighting.available)
                    .bind(sighting.reason.as_deref())
                    .bind(sighting.since)
                    .bind(sighting.updated_at)
                    .execute(&mut *transaction)
                    .await?;
                transaction.commit().await
            })
        })
        .await
    }

    async fn sightings(
        &self,
        models: &[ModelId],
        since: DateTime<Utc>,
    ) -> Result<Vec<Sighting>, StoreError> {
        if models.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Uuid> = models.iter().map(|id| id.as_uuid()).collect();
        let ids = &ids;
        let found: Vec<SightingRow<DateTime<Utc>>> = self
            .run(|lent| {
                let query = sqlx::query_as(SIGHTINGS).bind(&ids[..]).bind(since);
                Box::pin(query.fetch_all(lent.connection()))
            })
            .await?;
        rows::all(found)
    }
}
