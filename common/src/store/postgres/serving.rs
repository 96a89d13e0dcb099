//! Changes of models and model servers.
//!
//! Who switches a model server holds its row, and shares the model's; who adds one shares its model's too; who deletes a model holds the
//! model's row. So no server comes to run a model that is being deleted.

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::{
    PostgresStore,
    models::{MAX_ROUNDS, model_columns, server_columns, unsettled},
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

type Models = ModelRow<DateTime<Utc>>;
type Servers = ModelServerRow<DateTime<Utc>>;
type Backends = ServerBackendRow<DateTime<Utc>>;

macro_rules! backend_columns {
    () => {
        "number, model_deployment_id, since, by_user_id, rollback_to"
    };
}

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

/// A model and who holds the name it wants, in the order of ids, so that no two of these wait for
/// each other.
const LOCK_NAMES: &str = concat!(
    "SELECT ",
    model_columns!(),
    " FROM models
    WHERE account_id = $2
        AND (model_id = $1 OR (name = $3 AND vendor = (
            SELECT m.vendor FROM models AS m WHERE m.model_id = $1 AND m.account_id = $2
        )))
    ORDER BY model_id
    FOR UPDATE"
);

const SET_NAME: &str = "UPDATE models SET name = $2 WHERE model_id = $1";

const LOCK_MODEL: &str = concat!(
    "SELECT ",
    model_columns!(),
    " FROM models WHERE model_id = $1 AND account_id = $2 FOR UPDATE"
);

/// Not held up by changes of the model, only by its deletion.
const SHARE_MODEL: &str = "SELECT model_id FROM models WHERE model_id = $1 FOR KEY SHARE";

const FIND_RUNNING: &str = concat!(
    "SELECT ",
    server_columns!(),
    " FROM model_servers WHERE account_id = $1 AND model_deployment_id = $2 LIMIT 1"
);

const DELETE: &str = "DELETE FROM models WHERE model_id = $1";

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

/// What a step found out, for reading once the transaction is over.
enum Rename {
    Read(Vec<Models>),
    Done(Vec<Models>),
    /// Someone took the name meanwhile.
    Again,
}

/// Exchanges the names if all that stands there allows it.
async fn rename(
    connection: &mut PgConnection,
    id: ModelId,
    account: &AccountId,
    name: &str,
    swap: bool,
) -> Result<Rename, sqlx::Error> {
    let found: Vec<Models> = sqlx::query_as(LOCK_NAMES)
        .bind(id.as_uuid())
        .bind(account.as_str())
        .bind(name)
        .fetch_all(&mut *connection)
        .await?;
    let Some(model) = found.iter().find(|row| row.model_id == id.as_uuid()) else {
        return Ok(Rename::Read(found));
    };
    let deploying = found.iter().any(|row| row.status == ModelStatus::Deploying.as_str());
    let holder = found.iter().find(|row| row.model_id != id.as_uuid());
    if deploying || model.name == name || (holder.is_some() && !swap) {
        return Ok(Rename::Read(found));
    }
    let mut names = vec![(model.model_id, name.to_owned())];
    if let Some(holder) = holder {
        let holder_id = ModelId::from_uuid(holder.model_id);
        names.insert(0, (holder.model_id, name_in_passing(holder_id)));
        names.push((holder.model_id, model.name.clone()));
    }
    for (id, name) in names {
        match sqlx::query(SET_NAME).bind(id).bind(name).execute(&mut *connection).await {
            Ok(_) => {}
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                return Ok(Rename::Again);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Rename::Done(found))
}

/// What the rows say where nothing was written.
fn unchanged(
    found: Vec<Models>,
    id: ModelId,
    name: &str,
    swap: bool,
) -> Result<Renamed, StoreError> {
    let found: Vec<Model> = rows::all(found)?;
    let Some(model) = found.iter().find(|model| model.id == id).cloned() else {
        return Ok(Renamed::Missing);
    };
    if model.status == ModelStatus::Deploying {
        return Ok(Renamed::Deploying(model));
    }
    if model.name == name {
        return Ok(Renamed::Done(model));
    }
    let holder = found.into_iter().find(|model| model.id != id);
    Ok(match holder {
        Some(holder) if swap => Renamed::Deploying(holder),
        Some(holder) => Renamed::Conflict(holder),
        None => Renamed::Missing,
    })
}

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

/// Where a switch goes.
#[derive(Clone, Copy)]
enum Target<'a> {
    To(&'a str),
    Back,
}

enum Switch {
    Missing,
    Nothing,
    NoModel(String),
    /// The row as it was before, and what the server runs now.
    Done(Servers, String),
}

/// Whether a deployment is not the id of a model that is gone; such a model stays until the
/// transaction ends.
pub(super) async fn is_there(
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
    async fn switch(
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
        for _ in 0..MAX_ROUNDS {
            let renamed = self
                .run(|lent| {
                    Box::pin(async move {
                        let mut transaction = lent.connection().begin().await?;
                        let renamed = rename(&mut transaction, id, account, name, swap).await?;
                        if matches!(renamed, Rename::Done(_)) {
                            transaction.commit().await?;
                        } else {
                            transaction.rollback().await?;
                        }
                        Ok(renamed)
                    })
                })
                .await?;
            match renamed {
                Rename::Again => {}
                Rename::Read(found) => return unchanged(found, id, name, swap),
                Rename::Done(found) => {
                    let own = found.into_iter().find(|row| row.model_id == id.as_uuid());
                    let Some(row) = own else { return Ok(Renamed::Missing) };
                    let row = Models { name: name.to_owned(), ..row };
                    return Ok(Renamed::Done(row.try_into()?));
                }
            }
        }
        Err(unsettled("the model's name"))
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
