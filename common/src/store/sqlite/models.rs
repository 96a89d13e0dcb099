//! Registered models and model servers.

use async_trait::async_trait;
use sqlx::SqliteExecutor;

use super::{
    SqliteStore, commit,
    error::in_table,
    serving::{find_server, insert_backend, is_there},
    values::micros,
};
use crate::{
    id::{AccountId, ModelId, ModelServerId},
    job::Json,
    model::{Model, ModelServer, ModelStatus, ServerBackend},
    store::{
        Added, ModelFilter, ModelStore, Page, PageRequest, StoreError,
        rows::{self, ModelRow, ModelServerRow, Reader, Window},
    },
    vendor::Vendor,
};

/// The columns of a [`ModelRow`].
macro_rules! model_columns {
    () => {
        "model_id, account_id, name, vendor, model_type, vendor_configuration, metadata, status, \
         status_reason, default_callback_url, created_at, created_by_user_id, \
         created_by_identity_type"
    };
}

/// The columns of a [`ModelServerRow`].
macro_rules! server_columns {
    () => {
        "model_server_id, account_id, name, alias, model_deployment_id, created_at"
    };
}

pub(super) use {model_columns, server_columns};

pub(super) async fn model_by_name(
    connection: impl SqliteExecutor<'_>,
    account: &AccountId,
    vendor: Vendor,
    name: &str,
) -> Result<Option<Model>, StoreError> {
    let row: Option<ModelRow<i64>> = sqlx::query_as(concat!(
        "SELECT ",
        model_columns!(),
        " FROM models WHERE account_id = ?1 AND vendor = ?2 AND name = ?3"
    ))
    .bind(account.as_str())
    .bind(vendor.as_str())
    .bind(name)
    .fetch_optional(connection)
    .await
    .map_err(in_table("models"))?;
    row.map(Model::try_from).transpose()
}

async fn insert_model(
    connection: impl SqliteExecutor<'_>,
    model: &Model,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO models (
             model_id, account_id, name, vendor, model_type, vendor_configuration, metadata,
             status, status_reason, default_callback_url, created_at, created_by_user_id,
             created_by_identity_type
         )
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )
    .bind(model.id.as_uuid())
    .bind(model.account.as_str())
    .bind(&model.name)
    .bind(model.vendor.as_str())
    .bind(model.model_type.as_str())
    .bind(model.vendor_configuration.as_ref().map(Json::as_str))
    .bind(model.metadata.as_ref().map(Json::as_str))
    .bind(model.status.as_str())
    .bind(model.status_reason.as_deref())
    .bind(model.default_callback_url.as_deref())
    .bind(micros(model.created_at))
    .bind(&model.created_by_user_id)
    .bind(model.created_by_identity_type.as_str())
    .execute(connection)
    .await
    .map_err(in_table("models"))?;
    Ok(())
}

async fn server_by_alias(
    connection: impl SqliteExecutor<'_>,
    alias: &str,
    account: &AccountId,
) -> Result<Option<ModelServer>, StoreError> {
    let row: Option<ModelServerRow<i64>> = sqlx::query_as(concat!(
        "SELECT ",
        server_columns!(),
        " FROM model_servers WHERE account_id = ?1 AND alias = ?2"
    ))
    .bind(account.as_str())
    .bind(alias)
    .fetch_optional(connection)
    .await
    .map_err(in_table("model_servers"))?;
    row.map(ModelServer::try_from).transpose()
}

#[async_trait]
impl ModelStore for SqliteStore {
    async fn add_model(&self, model: &Model, update: bool) -> Result<Added<Model>, StoreError> {
        let mut tx = self.write().await?;
        let taken = model_by_name(&mut *tx, &model.account, model.vendor, &model.name).await?;
        let Some(mut known) = taken else {
            insert_model(&mut *tx, model).await?;
            commit(tx).await?;
            return Ok(Added::New(model.clone()));
        };
        if !update || known.status == ModelStatus::Deploying {
            return Ok(Added::Conflict(known));
        }
        sqlx::query(
            "UPDATE models SET model_type = ?2, vendor_configuration = ?3, metadata = ?4,
                 status = ?5, status_reason = ?6, default_callback_url = ?7
             WHERE model_id = ?1",
        )
        .bind(known.id.as_uuid())
        .bind(model.model_type.as_str())
        .bind(model.vendor_configuration.as_ref().map(Json::as_str))
        .bind(model.metadata.as_ref().map(Json::as_str))
        .bind(model.status.as_str())
        .bind(model.status_reason.as_deref())
        .bind(model.default_callback_url.as_deref())
        .execute(&mut *tx)
        .await
        .map_err(in_table("models"))?;
        commit(tx).await?;
        known.model_type = model.model_type;
        known.vendor_configuration.clone_from(&model.vendor_configuration);
        known.metadata.clone_from(&model.metadata);
        known.status = model.status;
        known.status_reason.clone_from(&model.status_reason);
        known.default_callback_url.clone_from(&model.default_callback_url);
        Ok(Added::Updated(known))
    }

    async fn find_model(
        &self,
        id: ModelId,
        account: &AccountId,
    ) -> Result<Option<Model>, StoreError> {
        let row: Option<ModelRow<i64>> = sqlx::query_as(concat!(
            "SELECT ",
            model_columns!(),
            " FROM models WHERE model_id = ?1 AND account_id = ?2"
        ))
        .bind(id.as_uuid())
        .bind(account.as_str())
        .fetch_optional(&self.readers)
        .await
        .map_err(in_table("models"))?;
        row.map(Model::try_from).transpose()
    }

    async fn find_model_by_name(
        &self,
        account: &AccountId,
        vendor: Vendor,
        name: &str,
    ) -> Result<Option<Model>, StoreError> {
        model_by_name(&self.readers, account, vendor, name).await
    }

    async fn list_models(
        &self,
        account: &AccountId,
        filter: &ModelFilter,
        page: &PageRequest<ModelId>,
    ) -> Result<Page<Model>, StoreError> {
        let window = Window::of(page, ModelId::as_uuid);
        let statement = if window.descending { LIST_DOWN } else { LIST_UP };
        let rows: Vec<ModelRow<i64>> = sqlx::query_as(statement)
            .bind(account.as_str())
            .bind(window.low)
            .bind(window.high)
            .bind(filter.vendor.map(Vendor::as_str))
            .bind(filter.name.as_deref())
            .bind(window.fetch)
            .fetch_all(&self.readers)
            .await
            .map_err(in_table("models"))?;
        window.page(rows)
    }

    async fn count_models(
        &self,
        account: &AccountId,
        filter: &ModelFilter,
    ) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM models
             WHERE account_id = ?1 AND (?2 IS NULL OR vendor = ?2) AND (?3 IS NULL OR name = ?3)",
        )
        .bind(account.as_str())
        .bind(filter.vendor.map(Vendor::as_str))
        .bind(filter.name.as_deref())
        .fetch_one(&self.readers)
        .await
        .map_err(in_table("models"))?;
        Reader("models").count("model_id", count)
    }

    async fn add_model_server(
        &self,
        server: &ModelServer,
        by: Option<&str>,
    ) -> Result<Option<Added<ModelServer>>, StoreError> {
        let mut tx = self.write().await?;
        if !is_there(&mut tx, &server.model_deployment_id).await? {
            return Ok(None);
        }
        if let Some(alias) = &server.alias
            && let Some(known) = server_by_alias(&mut *tx, alias, &server.account).await?
        {
            return Ok(Some(Added::Conflict(known)));
        }
        sqlx::query(
            "INSERT INTO model_servers (
                 model_server_id, account_id, name, alias, model_deployment_id, created_at
             )
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(server.id.as_uuid())
        .bind(server.account.as_str())
        .bind(&server.name)
        .bind(server.alias.as_deref())
        .bind(&server.model_deployment_id)
        .bind(micros(server.created_at))
        .execute(&mut *tx)
        .await
        .map_err(in_table("model_servers"))?;
        insert_backend(&mut *tx, server.id, &ServerBackend::first_of(server, by)).await?;
        commit(tx).await?;
        Ok(Some(Added::New(server.clone())))
    }

    async fn find_model_server(
        &self,
        id: ModelServerId,
        account: &AccountId,
    ) -> Result<Option<ModelServer>, StoreError> {
        find_server(&self.readers, id, account).await
    }

    async fn find_model_server_by_alias(
        &self,
        alias: &str,
        account: &AccountId,
    ) -> Result<Option<ModelServer>, StoreError> {
        server_by_alias(&self.readers, alias, account).await
    }

    async fn list_model_servers(
        &self,
        account: &AccountId,
    ) -> Result<Vec<ModelServer>, StoreError> {
        let rows: Vec<ModelServerRow<i64>> = sqlx::query_as(concat!(
            "SELECT ",
            server_columns!(),
            " FROM model_servers WHERE account_id = ?1 ORDER BY model_server_id"
        ))
        .bind(account.as_str())
        .fetch_all(&self.readers)
        .await
        .map_err(in_table("model_servers"))?;
        rows::all(rows)
    }
}

macro_rules! list_models {
    ($order:literal) => {
        concat!(
            "SELECT ",
            model_columns!(),
            " FROM models
             WHERE account_id = ?1 AND model_id > ?2 AND model_id < ?3
                 AND (?4 IS NULL OR vendor = ?4)
                 AND (?5 IS NULL OR name = ?5)
             ORDER BY model_id ",
            $order,
            " LIMIT ?6"
        )
    };
}

const LIST_UP: &str = list_models!("ASC");
const LIST_DOWN: &str = list_models!("DESC");
