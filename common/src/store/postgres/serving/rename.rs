//! New names of models, which two of them may exchange.

use sqlx::{Connection as _, PgConnection};

use super::Models;
use crate::{
    id::{AccountId, ModelId},
    model::{Model, ModelStatus},
    store::{
        StoreError,
        postgres::{
            PostgresStore,
            models::{MAX_ROUNDS, model_columns, unsettled},
        },
        rows,
        serving::{Renamed, name_in_passing},
    },
};

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

impl PostgresStore {
    pub(super) async fn exchange_names(
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
}

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
