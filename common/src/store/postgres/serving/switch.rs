//! What a model server runs: switches, rollbacks and their history.

use chrono::{DateTime, Utc};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::Servers;
use crate::{
    id::{AccountId, ModelId, ModelServerId},
    model::{ModelServer, ServerBackend},
    store::{
        StoreError,
        postgres::{PostgresStore, models::server_columns},
        rows::ServerBackendRow,
        serving::{MAX_BACKENDS, Switching, next_backend, rolled_back},
    },
};

pub(super) type Backends = ServerBackendRow<DateTime<Utc>>;

macro_rules! backend_columns {
    () => {
        "number, model_deployment_id, since, by_user_id, rollback_to"
    };
}
pub(super) use backend_columns;

/// Not held up by changes of the model, only by its deletion.
const SHARE_MODEL: &str = "SELECT model_id FROM models WHERE model_id = $1 FOR KEY SHARE";

const LOCK_SERVER: &str = concat!(
    "SELECT ",
    server_columns!(),
    " FROM model_servers WHERE model_server_id = $1 AND account_id = $2 FOR UPDATE"
);

const FIND_BACKEND: &str = concat!(
    "SELECT ",
    backend_columns!(),
    " FROM model_server_backends
    WHERE model_server_id = $1 AND ($2::bigint IS NULL OR number = $2)
    ORDER BY number DESC LIMIT 1"
);

const ADD_BACKEND: &str = "
INSERT INTO model_server_backends (
    model_server_id, number, model_deployment_id, since, by_user_id, rollback_to
)
VALUES ($1, $2, $3, $4, $5, $6)";

const FORGET_BACKENDS: &str =
    "DELETE FROM model_server_backends WHERE model_server_id = $1 AND number <= $2";

const SET_BACKEND: &str =
    "UPDATE model_servers SET model_deployment_id = $2 WHERE model_server_id = $1";

/// Where a switch goes.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    To(&'a str),
    Back,
}

pub(super) enum Switch {
    Missing,
    Nothing,
    NoModel(String),
    /// The row as it was before, and what the server runs now.
    Done(Servers, String),
}

/// Whether a deployment is not the id of a model that is gone; such a model stays until the
/// transaction ends.
pub(in crate::store::postgres) async fn is_there(
    connection: &mut PgConnection,
    deployment: &str,
) -> Result<bool, sqlx::Error> {
    let Ok(id) = deployment.parse::<ModelId>() else { return Ok(true) };
    let found: Option<Uuid> =
        sqlx::query_scalar(SHARE_MODEL).bind(id.as_uuid()).fetch_optional(connection).await?;
    Ok(found.is_some())
}

async fn find_backend(
    connection: &mut PgConnection,
    server: Uuid,
    number: Option<i64>,
) -> Result<Option<ServerBackend>, sqlx::Error> {
    let row: Option<Backends> =
        sqlx::query_as(FIND_BACKEND).bind(server).bind(number).fetch_optional(connection).await?;
    Ok(row.map(|row| ServerBackend {
        number: row.number,
        model_deployment_id: row.model_deployment_id,
        since: row.since,
        by_user_id: row.by_user_id,
        rollback_to: row.rollback_to,
    }))
}

async fn add_backend(
    connection: &mut PgConnection,
    server: Uuid,
    backend: &ServerBackend,
) -> Result<(), sqlx::Error> {
    sqlx::query(ADD_BACKEND)
        .bind(server)
        .bind(backend.number)
        .bind(&backend.model_deployment_id)
        .bind(backend.since)
        .bind(backend.by_user_id.as_deref())
        .bind(backend.rollback_to)
        .execute(connection)
        .await?;
    Ok(())
}

async fn switch(
    connection: &mut PgConnection,
    id: ModelServerId,
    account: &AccountId,
    target: Target<'_>,
    switching: Switching<'_>,
) -> Result<Switch, sqlx::Error> {
    let row: Option<Servers> = sqlx::query_as(LOCK_SERVER)
        .bind(id.as_uuid())
        .bind(account.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(Switch::Missing) };
    let server = row.model_server_id;
    let latest = find_backend(connection, server, None).await?;
    let (first, next) = match target {
        Target::To(to) => {
            if !is_there(connection, to).await? {
                return Ok(Switch::NoModel(to.to_owned()));
            }
            if row.model_deployment_id == to {
                return Ok(Switch::Done(row, to.to_owned()));
            }
            next_backend(&as_it_was(&row, account), latest, to, switching)
        }
        Target::Back => {
            let Some(latest) = latest else { return Ok(Switch::Nothing) };
            let Some(number) = latest.rollback_to else { return Ok(Switch::Nothing) };
            let before = find_backend(connection, server, Some(number)).await?;
            let Some(before) = before else { return Ok(Switch::Nothing) };
            if !is_there(connection, &before.model_deployment_id).await? {
                return Ok(Switch::NoModel(before.model_deployment_id));
            }
            (None, rolled_back(&latest, before, switching))
        }
    };
    if let Some(first) = first {
        add_backend(connection, server, &first).await?;
    }
    add_backend(connection, server, &next).await?;
    sqlx::query(FORGET_BACKENDS)
        .bind(server)
        .bind(next.number - MAX_BACKENDS)
        .execute(&mut *connection)
        .await?;
    sqlx::query(SET_BACKEND)
        .bind(server)
        .bind(&next.model_deployment_id)
        .execute(connection)
        .await?;
    Ok(Switch::Done(row, next.model_deployment_id))
}

fn as_it_was(row: &Servers, account: &AccountId) -> ModelServer {
    ModelServer {
        id: ModelServerId::from_uuid(row.model_server_id),
        account: account.clone(),
        name: row.name.clone(),
        alias: row.alias.clone(),
        model_deployment_id: row.model_deployment_id.clone(),
        created_at: row.created_at,
    }
}

impl PostgresStore {
    pub(super) async fn switch(
        &self,
        id: ModelServerId,
        account: &AccountId,
        target: Target<'_>,
        switching: Switching<'_>,
    ) -> Result<Switch, StoreError> {
        self.run(|lent| {
            Box::pin(async move {
                let mut transaction = lent.connection().begin().await?;
                let done = switch(&mut transaction, id, account, target, switching).await?;
                transaction.commit().await?;
                Ok(done)
            })
        })
        .await
    }
}
