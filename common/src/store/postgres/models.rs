//! Registered models and model servers.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::{Connection as _, PgConnection};

use super::{PostgresStore, serving::is_there};
use crate::{
    id::{AccountId, ModelId, ModelServerId},
    job::Json,
    model::{Model, ModelServer, ModelStatus},
    store::{
        Added, ModelFilter, ModelStore, Page, PageRequest, StoreError,
        rows::{self, ModelRow, ModelServerRow, Reader, Window},
    },
    vendor::Vendor,
};

/// The columns of a [`ModelRow`].
macro_rules! model_columns {
    () => {
        "model_id, account_id, name, vendor, model_type, \
         vendor_configuration::text AS vendor_configuration, metadata::text AS metadata, status, \
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

pub(super) const ADD: &str = concat!(
    "INSERT INTO models (
        model_id, account_id, name, vendor, model_type, vendor_configuration, metadata, status,
        status_reason, default_callback_url, created_at, created_by_user_id,
        created_by_identity_type
    )
    VALUES ($1, $2, $3, $4, $5, $6::text::json, $7::text::json, $8, $9, $10, $11, $12, $13)
    ON CONFLICT (account_id, vendor, name) DO NOTHING
    RETURNING ",
    model_columns!()
);

pub(super) const UPDATE: &str = concat!(
    "UPDATE models
    SET model_type = $4, vendor_configuration = $5::text::json, metadata = $6::text::json,
        status = $7, status_reason = $8, default_callback_url = $9
    WHERE account_id = $1 AND vendor = $2 AND name = $3 AND status <> 'deploying'
    RETURNING ",
    model_columns!()
);

pub(super) const FIND: &str =
    concat!("SELECT ", model_columns!(), " FROM models WHERE model_id = $1 AND account_id = $2");

pub(super) const FIND_BY_NAME: &str = concat!(
    "SELECT ",
    model_columns!(),
    " FROM models WHERE account_id = $1 AND vendor = $2 AND name = $3"
);

macro_rules! list {
    ($direction:literal) => {
        concat!(
            "SELECT ",
            model_columns!(),
            " FROM models
            WHERE account_id = $1 AND model_id > $2 AND model_id < $3
                AND ($4::text IS NULL OR vendor = $4) AND ($5::text IS NULL OR name = $5)
            ORDER BY model_id ",
            $direction,
            " LIMIT $6"
        )
    };
}

/// With the first entry of its history.
pub(super) const ADD_SERVER: &str = concat!(
    "WITH added AS (
        INSERT INTO model_servers (
            model_server_id, account_id, name, alias, model_deployment_id, created_at
        )
        VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (account_id, alias) DO NOTHING
        RETURNING ",
    server_columns!(),
    "
    ), first AS (
        INSERT INTO model_server_backends (
            model_server_id, number, model_deployment_id, since, by_user_id
        )
        SELECT model_server_id, 1, model_deployment_id, created_at, $7 FROM added
    )
    SELECT ",
    server_columns!(),
    " FROM added"
);

pub(super) const FIND_SERVER: &str = concat!(
    "SELECT ",
    server_columns!(),
    " FROM model_servers WHERE model_server_id = $1 AND account_id = $2"
);

pub(super) const FIND_SERVER_BY_ALIAS: &str = concat!(
    "SELECT ",
    server_columns!(),
    " FROM model_servers WHERE account_id = $1 AND alias = $2"
);

pub(super) const LIST_SERVERS: &str = concat!(
    "SELECT ",
    server_columns!(),
    " FROM model_servers WHERE account_id = $1 ORDER BY model_server_id"
);

/// An entry that is taken is free again when it was removed meanwhile; then add again.
pub(super) const MAX_ROUNDS: usize = 3;

pub(super) fn unsettled(what: &'static str) -> StoreError {
    StoreError::Unavailable(format!("{what} is taken and free by turns").into())
}

enum AddServer {
    Done(ModelServerRow<DateTime<Utc>>),
    /// The model that it is to run is gone.
    NoModel,
    /// The alias is.
    Taken,
}

async fn add_server(
    connection: &mut PgConnection,
    server: &ModelServer,
    by: Option<&str>,
) -> Result<AddServer, sqlx::Error> {
    if !is_there(connection, &server.model_deployment_id).await? {
        return Ok(AddServer::NoModel);
    }
    let added = sqlx::query_as(ADD_SERVER)
        .bind(server.id.as_uuid())
        .bind(server.account.as_str())
        .bind(&server.name)
        .bind(server.alias.as_deref())
        .bind(&server.model_deployment_id)
        .bind(server.created_at)
        .bind(by)
        .fetch_optional(connection)
        .await?;
    Ok(added.map_or(AddServer::Taken, AddServer::Done))
}

#[async_trait]
impl ModelStore for PostgresStore {
    async fn add_model(&self, model: &Model, update: bool) -> Result<Added<Model>, StoreError> {
        for _ in 0..MAX_ROUNDS {
            if let Some(added) = self.insert_model(model).await? {
                return Ok(Added::New(added));
            }
            if update && let Some(updated) = self.update_model(model).await? {
                return Ok(Added::Updated(updated));
            }
            let there = self.find_model_by_name(&model.account, model.vendor, &model.name).await?;
            let kept = |there: &Model| !update || there.status == ModelStatus::Deploying;
            if let Some(there) = there.filter(kept) {
                return Ok(Added::Conflict(there));
            }
        }
        Err(unsettled("the model's name"))
    }

    async fn find_model(
        &self,
        id: ModelId,
        account: &AccountId,
    ) -> Result<Option<Model>, StoreError> {
        let found: Option<ModelRow<DateTime<Utc>>> = self
            .run(|lent| {
                let query = sqlx::query_as(FIND).bind(id.as_uuid()).bind(account.as_str());
                Box::pin(query.fetch_optional(lent.connection()))
            })
            .await?;
        found.map(TryInto::try_into).transpose()
    }

    async fn find_model_by_name(
        &self,
        account: &AccountId,
        vendor: Vendor,
        name: &str,
    ) -> Result<Option<Model>, StoreError> {
        let found: Option<ModelRow<DateTime<Utc>>> = self
            .run(|lent| {
                let query = sqlx::query_as(FIND_BY_NAME)
                    .bind(account.as_str())
                    .bind(vendor.as_str())
                    .bind(name);
                Box::pin(query.fetch_optional(lent.connection()))
            })
            .await?;
        found.map(TryInto::try_into).transpose()
    }

    async fn list_models(
        &self,
        account: &AccountId,
        filter: &ModelFilter,
        page: &PageRequest<ModelId>,
    ) -> Result<Page<Model>, StoreError> {
        let window = Window::of(page, ModelId::as_uuid);
        let query = if window.descending { list!("DESC") } else { list!("ASC") };
        let found: Vec<ModelRow<DateTime<Utc>>> = self
            .run(|lent| {
                let query = sqlx::query_as(query)
                    .bind(account.as_str())
                    .bind(window.low)
                    .bind(window.high)
                    .bind(filter.vendor.map(Vendor::as_str))
                    .bind(filter.name.as_deref())
                    .bind(window.fetch);
                Box::pin(query.fetch_all(lent.connection()))
            })
            .await?;
        window.page(found)
    }

    async fn count_models(
        &self,
        account: &AccountId,
        filter: &ModelFilter,
    ) -> Result<u64, StoreError> {
        let query = "
            SELECT count(*) FROM models
            WHERE account_id = $1 AND ($2::text IS NULL OR vendor = $2)
                AND ($3::text IS NULL OR name = $3)";
        let count: i64 = self
            .run(|lent| {
                let query = sqlx::query_scalar(query)
                    .bind(account.as_str())
                    .bind(filter.vendor.map(Vendor::as_str))
                    .bind(filter.name.as_deref());
                Box::pin(query.fetch_one(lent.connection()))
            })
            .await?;
        Reader("models").count("model_id", count)
    }

    async fn add_model_server(
        &self,
        server: &ModelServer,
        by: Option<&str>,
    ) -> Result<Option<Added<ModelServer>>, StoreError> {
        for _ in 0..MAX_ROUNDS {
            let adding = self.run(|lent| {
                Box::pin(async move {
                    let mut transaction = lent.connection().begin().await?;
                    let added = add_server(&mut transaction, server, by).await?;
                    transaction.commit().await?;
                    Ok(added)
                })
            });
            match adding.await? {
                AddServer::Done(added) => return Ok(Some(Added::New(added.try_into()?))),
                AddServer::NoModel => return Ok(None),
                AddServer::Taken => {}
            }
            let Some(alias) = &server.alias else { break };
            if let Some(there) = self.find_model_server_by_alias(alias, &server.account).await? {
                return Ok(Some(Added::Conflict(there)));
            }
        }
        Err(unsettled("the alias"))
    }

    async fn find_model_server(
        &self,
        id: ModelServerId,
        account: &AccountId,
    ) -> Result<Option<ModelServer>, StoreError> {
        let found: Option<ModelServerRow<DateTime<Utc>>> = self
            .run(|lent| {
                let query = sqlx::query_as(FIND_SERVER).bind(id.as_uuid()).bind(account.as_str());
                Box::pin(query.fetch_optional(lent.connection()))
            })
            .await?;
        found.map(TryInto::try_into).transpose()
    }

    async fn find_model_server_by_alias(
        &self,
        alias: &str,
        account: &AccountId,
    ) -> Result<Option<ModelServer>, StoreError> {
        let found: Option<ModelServerRow<DateTime<Utc>>> = self
            .run(|lent| {
                let query = sqlx::query_as(FIND_SERVER_BY_ALIAS).bind(account.as_str()).bind(alias);
                Box::pin(query.fetch_optional(lent.connection()))
            })
            .await?;
        found.map(TryInto::try_into).transpose()
    }

    async fn list_model_servers(
        &self,
        account: &AccountId,
    ) -> Result<Vec<ModelServer>, StoreError> {
        let found: Vec<ModelServerRow<DateTime<Utc>>> = self
            .run(|lent| {
                let query = sqlx::query_as(LIST_SERVERS).bind(account.as_str());
                Box::pin(query.fetch_all(lent.connection()))
            })
            .await?;
        rows::all(found)
    }
}

impl PostgresStore {
    async fn insert_model(&self, model: &Model) -> Result<Option<Model>, StoreError> {
        let added: Option<ModelRow<DateTime<Utc>>> = self
            .run(|lent| {
                let query = sqlx::query_as(ADD)
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
                    .bind(model.created_at)
                    .bind(&model.created_by_user_id)
                    .bind(model.created_by_identity_type.as_str());
                Box::pin(query.fetch_optional(lent.connection()))
            })
            .await?;
        added.map(TryInto::try_into).transpose()
    }

    async fn update_model(&self, model: &Model) -> Result<Option<Model>, StoreError> {
        let updated: Option<ModelRow<DateTime<Utc>>> = self
            .run(|lent| {
                let query = sqlx::query_as(UPDATE)
                    .bind(model.account.as_str())
                    .bind(model.vendor.as_str())
                    .bind(&model.name)
                    .bind(model.model_type.as_str())
                    .bind(model.vendor_configuration.as_ref().map(Json::as_str))
                    .bind(model.metadata.as_ref().map(Json::as_str))
                    .bind(model.status.as_str())
                    .bind(model.status_reason.as_deref())
                    .bind(model.default_callback_url.as_deref());
                Box::pin(query.fetch_optional(lent.connection()))
            })
            .await?;
        updated.map(TryInto::try_into).transpose()
    }
}
