//! Changes of models and model servers.

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{SqliteConnection, SqliteExecutor};

use super::{
    SqliteStore, commit,
    error::in_table,
    models::{model_columns, server_columns},
    values::{ids, micros},
};
use crate::{
    id::{AccountId, ModelId, ModelServerId},
    job::Json,
    model::{Model, ModelServer, ModelStatus, ServerBackend, Sighting},
    store::{
        StoreError,
        rows::{self, ModelRow, ModelServerRow, ServerBackendRow, SightingRow},
        serving::{
            Changed, MAX_BACKENDS, Removed, Renamed, RolledBack, ServingStore, Switched, Switching,
            name_in_passing, next_backend, rolled_back,
        },
    },
};

macro_rules! backend_columns {
    () => {
        "number, model_deployment_id, since, by_user_id, rollback_to"
    };
}

/// What has not been seen for so long is forgotten when the model is seen again.
const FORGET_SIGHTINGS_AFTER: TimeDelta = TimeDelta::days(1);

async fn find_model(
    connection: impl SqliteExecutor<'_>,
    id: ModelId,
    account: Option<&AccountId>,
) -> Result<Option<Model>, StoreError> {
    let row: Option<ModelRow<i64>> = sqlx::query_as(concat!(
        "SELECT ",
        model_columns!(),
        " FROM models WHERE model_id = ?1 AND (?2 IS NULL OR account_id = ?2)"
    ))
    .bind(id.as_uuid())
    .bind(account.map(AccountId::as_str))
    .fetch_optional(connection)
    .await
    .map_err(in_table("models"))?;
    row.map(Model::try_from).transpose()
}

async fn set_name(
    connection: impl SqliteExecutor<'_>,
    id: ModelId,
    name: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE models SET name = ?2 WHERE model_id = ?1")
        .bind(id.as_uuid())
        .bind(name)
        .execute(connection)
        .await
        .map_err(in_table("models"))?;
    Ok(())
}

pub(super) async fn find_server(
    connection: impl SqliteExecutor<'_>,
    id: ModelServerId,
    account: &AccountId,
) -> Result<Option<ModelServer>, StoreError> {
    let row: Option<ModelServerRow<i64>> = sqlx::query_as(concat!(
        "SELECT ",
        server_columns!(),
        " FROM model_servers WHERE model_server_id = ?1 AND account_id = ?2"
    ))
    .bind(id.as_uuid())
    .bind(account.as_str())
    .fetch_optional(connection)
    .await
    .map_err(in_table("model_servers"))?;
    row.map(ModelServer::try_from).transpose()
}

/// An entry of a server's history; `None` for `number`: the latest.
async fn find_backend(
    connection: impl SqliteExecutor<'_>,
    server: ModelServerId,
    number: Option<i64>,
) -> Result<Option<ServerBackend>, StoreError> {
    let row: Option<ServerBackendRow<i64>> = sqlx::query_as(concat!(
        "SELECT ",
        backend_columns!(),
        " FROM model_server_backends
         WHERE model_server_id = ?1 AND (?2 IS NULL OR number = ?2)
         ORDER BY number DESC LIMIT 1"
    ))
    .bind(server.as_uuid())
    .bind(number)
    .fetch_optional(connection)
    .await
    .map_err(in_table("model_server_backends"))?;
    row.map(TryInto::try_into).transpose()
}

pub(super) async fn insert_backend(
    connection: impl SqliteExecutor<'_>,
    server: ModelServerId,
    backend: &ServerBackend,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO model_server_backends (
             model_server_id, number, model_deployment_id, since, by_user_id, rollback_to
         )
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .bind(server.as_uuid())
    .bind(backend.number)
    .bind(&backend.model_deployment_id)
    .bind(micros(backend.since))
    .bind(backend.by_user_id.as_deref())
    .bind(backend.rollback_to)
    .execute(connection)
    .await
    .map_err(in_table("model_server_backends"))?;
    Ok(())
}

/// Makes `backend` the present one.
async fn set_backend(
    connection: &mut SqliteConnection,
    server: &mut ModelServer,
    backend: ServerBackend,
) -> Result<(), StoreError> {
    insert_backend(&mut *connection, server.id, &backend).await?;
    sqlx::query("DELETE FROM model_server_backends WHERE model_server_id = ?1 AND number <= ?2")
        .bind(server.id.as_uuid())
        .bind(backend.number - MAX_BACKENDS)
        .execute(&mut *connection)
        .await
        .map_err(in_table("model_server_backends"))?;
    sqlx::query("UPDATE model_servers SET model_deployment_id = ?2 WHERE model_server_id = ?1")
        .bind(server.id.as_uuid())
        .bind(&backend.model_deployment_id)
        .execute(connection)
        .await
        .map_err(in_table("model_servers"))?;
    server.model_deployment_id = backend.model_deployment_id;
    Ok(())
}

/// Whether a deployment is not the id of a model that is gone.
pub(super) async fn is_there(
    connection: &mut SqliteConnection,
    deployment: &str,
) -> Result<bool, StoreError> {
    let Ok(id) = deployment.parse::<ModelId>() else { return Ok(true) };
    Ok(find_model(connection, id, None).await?.is_some())
}

#[async_trait]
impl ServingStore for SqliteStore {
    async fn find_any_model(&self, id: ModelId) -> Result<Option<Model>, StoreError> {
        find_model(&self.readers, id, None).await
    }

    async fn replace_model(&self, old: &Model, new: &Model) -> Result<Changed, StoreError> {
        let mut tx = self.write().await?;
        let Some(mut model) = find_model(&mut *tx, old.id, Some(&old.account)).await? else {
            return Ok(Changed::Missing);
        };
        if model.status == ModelStatus::Deploying {
            return Ok(Changed::Deploying(model));
        }
        if (&model.vendor_configuration, &model.metadata)
            != (&old.vendor_configuration, &old.metadata)
        {
            return Ok(Changed::Stale);
        }
        sqlx::query(
            "UPDATE models SET vendor_configuration = ?2, metadata = ?3, default_callback_url = ?4
             WHERE model_id = ?1",
        )
        .bind(model.id.as_uuid())
        .bind(new.vendor_configuration.as_ref().map(Json::as_str))
        .bind(new.metadata.as_ref().map(Json::as_str))
        .bind(new.default_callback_url.as_deref())
        .execute(&mut *tx)
        .await
        .map_err(in_table("models"))?;
        commit(tx).await?;
        model.vendor_configuration.clone_from(&new.vendor_configuration);
        model.metadata.clone_from(&new.metadata);
        model.default_callback_url.clone_from(&new.default_callback_url);
        Ok(Changed::Done(model))
    }

    async fn rename_model(
        &self,
        id: ModelId,
        account: &AccountId,
        name: &str,
        swap: bool,
    ) -> Result<Renamed, StoreError> {
        let mut tx = self.write().await?;
        let Some(mut model) = find_model(&mut *tx, id, Some(account)).await? else {
            return Ok(Renamed::Missing);
        };
        if model.status == ModelStatus::Deploying {
            return Ok(Renamed::Deploying(model));
        }
        if model.name == name {
            return Ok(Renamed::Done(model));
        }
        let holder = super::models::model_by_name(&mut *tx, account, model.vendor, name).await?;
        match &holder {
            Some(holder) if !swap => return Ok(Renamed::Conflict(holder.clone())),
            Some(holder) if holder.status == ModelStatus::Deploying => {
                return Ok(Renamed::Deploying(holder.clone()));
            }
            Some(holder) => set_name(&mut *tx, holder.id, &name_in_passing(holder.id)).await?,
            None => {}
        }
        set_name(&mut *tx, model.id, name).await?;
        if let Some(holder) = holder {
            set_name(&mut *tx, holder.id, &model.name).await?;
        }
        commit(tx).await?;
        name.clone_into(&mut model.name);
        Ok(Renamed::Done(model))
    }

    async fn delete_model(&self, id: ModelId, account: &AccountId) -> Result<Removed, StoreError> {
        let mut tx = self.write().await?;
        let Some(model) = find_model(&mut *tx, id, Some(account)).await? else {
            return Ok(Removed::Missing);
        };
        if model.status == ModelStatus::Deploying {
            return Ok(Removed::Deploying(model));
        }
        let server: Option<ModelServerRow<i64>> = sqlx::query_as(concat!(
            "SELECT ",
            server_columns!(),
            " FROM model_servers WHERE account_id = ?1 AND model_deployment_id = ?2 LIMIT 1"
        ))
        .bind(account.as_str())
        .bind(id.to_string())
        .fetch_optional(&mut *tx)
        .await
        .map_err(in_table("model_servers"))?;
        if let Some(server) = server {
            return Ok(Removed::InUse(server.try_into()?));
        }
        sqlx::query("DELETE FROM models WHERE model_id = ?1")
            .bind(id.as_uuid())
            .execute(&mut *tx)
            .await
            .map_err(in_table("models"))?;
        commit(tx).await?;
        Ok(Removed::Done)
    }

    async fn switch_model_server(
        &self,
        id: ModelServerId,
        account: &AccountId,
        to: &str,
        switching: Switching<'_>,
    ) -> Result<Switched, StoreError> {
        let mut tx = self.write().await?;
        let Some(mut server) = find_server(&mut *tx, id, account).await? else {
            return Ok(Switched::Missing);
        };
        if !is_there(&mut tx, to).await? {
            return Ok(Switched::NoModel);
        }
        let from = server.model_deployment_id.clone();
        if from == to {
            return Ok(Switched::Done { server, from });
        }
        let latest = find_backend(&mut *tx, id, None).await?;
        let (first, next) = next_backend(&server, latest, to, switching);
        if let Some(first) = first {
            insert_backend(&mut *tx, id, &first).await?;
        }
        set_backend(&mut tx, &mut server, next).await?;
        commit(tx).await?;
        Ok(Switched::Done { server, from })
    }

    async fn roll_back_model_server(
        &self,
        id: ModelServerId,
        account: &AccountId,
        switching: Switching<'_>,
    ) -> Result<RolledBack, StoreError> {
        let mut tx = self.write().await?;
        let Some(mut server) = find_server(&mut *tx, id, account).await? else {
            return Ok(RolledBack::Missing);
        };
        let Some(latest) = find_backend(&mut *tx, id, None).await? else {
            return Ok(RolledBack::Nothing);
        };
        let target = match latest.rollback_to {
            Some(number) => find_backend(&mut *tx, id, Some(number)).await?,
            None => None,
        };
        let Some(target) = target else { return Ok(RolledBack::Nothing) };
        if !is_there(&mut tx, &target.model_deployment_id).await? {
            return Ok(RolledBack::NoModel(target.model_deployment_id));
        }
        let from = server.model_deployment_id.clone();
        set_backend(&mut tx, &mut server, rolled_back(&latest, target, switching)).await?;
        commit(tx).await?;
        Ok(RolledBack::Done { server, from })
    }

    async fn delete_model_server(
        &self,
        id: ModelServerId,
        account: &AccountId,
    ) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        // Its history goes with it: ON DELETE CASCADE.
        let done =
            sqlx::query("DELETE FROM model_servers WHERE model_server_id = ?1 AND account_id = ?2")
                .bind(id.as_uuid())
                .bind(account.as_str())
                .execute(&mut *tx)
                .await
                .map_err(in_table("model_servers"))?;
        commit(tx).await?;
        Ok(done.rows_affected() == 1)
    }

    async fn list_backends(&self, id: ModelServerId) -> Result<Vec<ServerBackend>, StoreError> {
        let rows: Vec<ServerBackendRow<i64>> = sqlx::query_as(concat!(
            "SELECT ",
            backend_columns!(),
            " FROM model_server_backends WHERE model_server_id = ?1
             ORDER BY number DESC LIMIT ?2"
        ))
        .bind(id.as_uuid())
        .bind(MAX_BACKENDS)
        .fetch_all(&self.readers)
        .await
        .map_err(in_table("model_server_backends"))?;
        rows::all(rows)
    }

    async fn put_sighting(&self, sighting: &Sighting) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("DELETE FROM model_health WHERE model_id = ?1 AND updated_at < ?2")
            .bind(sighting.model.as_uuid())
            .bind(micros(sighting.updated_at - FORGET_SIGHTINGS_AFTER))
            .execute(&mut *tx)
            .await
            .map_err(in_table("model_health"))?;
        sqlx::query(
            "INSERT INTO model_health (
                 model_id, instance_id, available, reason, since, updated_at
             )
             SELECT model_id, ?2, ?3, ?4, ?5, ?6 FROM models WHERE model_id = ?1
             ON CONFLICT (model_id, instance_id) DO UPDATE
             SET available = ?3, reason = ?4, since = ?5, updated_at = ?6",
        )
        .bind(sighting.model.as_uuid())
        .bind(sighting.instance.as_uuid())
        .bind(sighting.available)
        .bind(sighting.reason.as_deref())
        .bind(micros(sighting.since))
        .bind(micros(sighting.updated_at))
        .execute(&mut *tx)
        .await
        .map_err(in_table("model_health"))?;
        commit(tx).await
    }

    async fn sightings(
        &self,
        models: &[ModelId],
        since: DateTime<Utc>,
    ) -> Result<Vec<Sighting>, StoreError> {
        if models.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<SightingRow<i64>> = sqlx::query_as(
            "SELECT model_id, instance_id, available, reason, since, updated_at
             FROM model_health AS h
             WHERE model_id IN (SELECT unhex(value) FROM json_each(?1)) AND updated_at >= ?2
                 AND EXISTS (
                     SELECT 1 FROM instances AS i
                     WHERE i.instance_id = h.instance_id AND i.lost_at IS NULL
                 )
             ORDER BY model_id, instance_id",
        )
        .bind(ids(models.iter().map(|id| id.as_uuid())))
        .bind(micros(since))
        .fetch_all(&self.readers)
        .await
        .map_err(in_table("model_health"))?;
        rows::all(rows)
    }
}
