//! What happens to models and model servers after they were added, and what is known of their
//! health.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::StoreError;
use crate::{
    id::{AccountId, ModelId, ModelServerId},
    model::{Model, ModelServer, ServerBackend, Sighting},
};

/// What became of a change of a model.
#[derive(Debug, Clone, PartialEq)]
pub enum Changed {
    Done(Model),
    /// The account has no such model.
    Missing,
    /// It is being deployed and cannot be changed meanwhile.
    Deploying(Model),
    /// Someone else has changed it since it was read.
    Stale,
}

/// What became of a model's new name.
#[derive(Debug, Clone, PartialEq)]
pub enum Renamed {
    Done(Model),
    Missing,
    /// This one, or the one to swap names with, is being deployed.
    Deploying(Model),
    /// The name is this one's.
    Conflict(Model),
}

/// What became of a deletion.
#[derive(Debug, Clone, PartialEq)]
pub enum Removed {
    Done,
    Missing,
    Deploying(Model),
    /// A model server of the account runs it.
    InUse(ModelServer),
}

/// What became of a switch of a model server.
#[derive(Debug, Clone, PartialEq)]
pub enum Switched {
    /// The server as it is now, and what it ran before.
    Done {
        server: ModelServer,
        from: String,
    },
    Missing,
    /// The model it was to run is gone.
    NoModel,
}

/// What became of a rollback of a model server.
#[derive(Debug, Clone, PartialEq)]
pub enum RolledBack {
    /// The server as it is now, and what it ran before.
    Done {
        server: ModelServer,
        from: String,
    },
    Missing,
    /// It has run nothing else before.
    Nothing,
    /// The model that it ran before, named here, was deleted.
    NoModel(String),
}

/// Who switches a model server, and when.
#[derive(Debug, Clone, Copy)]
pub struct Switching<'a> {
    /// The id of the API key.
    pub by: &'a str,
    pub now: DateTime<Utc>,
}

/// Entries of a model server's history that are kept; the oldest go first.
pub const MAX_BACKENDS: i64 = 1000;

/// Changes of models and model servers.
#[async_trait]
pub trait ServingStore: Send + Sync {
    /// The model with this id, whichever account has it.
    async fn find_any_model(&self, id: ModelId) -> Result<Option<Model>, StoreError>;

    /// Gives `old` the configuration, metadata and default callback address of `new`, unless
    /// configuration or metadata are no longer those of `old`.
    async fn replace_model(&self, old: &Model, new: &Model) -> Result<Changed, StoreError>;

    /// Renames a model. Where another one of the same vendor has the name they exchange names if
    /// `swap`, in one transaction.
    async fn rename_model(
        &self,
        id: ModelId,
        account: &AccountId,
        name: &str,
        swap: bool,
    ) -> Result<Renamed, StoreError>;

    /// Deletes a model that no model server of its account runs.
    async fn delete_model(&self, id: ModelId, account: &AccountId) -> Result<Removed, StoreError>;

    /// Makes a model server run `to`, which is a model's id or `vendor/name`. Where it does already
    /// nothing is written.
    async fn switch_model_server(
        &self,
        id: ModelServerId,
        account: &AccountId,
        to: &str,
        switching: Switching<'_>,
    ) -> Result<Switched, StoreError>;

    /// Makes a model server run what it ran before the last switch that was not rolled back.
    async fn roll_back_model_server(
        &self,
        id: ModelServerId,
        account: &AccountId,
        switching: Switching<'_>,
    ) -> Result<RolledBack, StoreError>;

    /// Deletes a model server with its history. `false`: the account has no such server.
    async fn delete_model_server(
        &self,
        id: ModelServerId,
        account: &AccountId,
    ) -> Result<bool, StoreError>;

    /// What a server runs and ran, newest first; at most [`MAX_BACKENDS`].
    async fn list_backends(&self, id: ModelServerId) -> Result<Vec<ServerBackend>, StoreError>;

    /// Notes what a worker has seen of a model, in place of what it noted before. Nothing is noted
    /// of a model that is gone.
    async fn put_sighting(&self, sighting: &Sighting) -> Result<(), StoreError>;

    /// What live workers have noted of these models since `since`.
    async fn sightings(
        &self,
        models: &[ModelId],
        since: DateTime<Utc>,
    ) -> Result<Vec<Sighting>, StoreError>;
}

/// The next entry of a history, and what must be written before it where there is none yet: an
/// older release wrote none.
pub(crate) fn next_backend(
    server: &ModelServer,
    latest: Option<ServerBackend>,
    to: &str,
    switching: Switching<'_>,
) -> (Option<ServerBackend>, ServerBackend) {
    let (first, latest) = match latest {
        Some(latest) => (None, latest),
        None => {
            (Some(ServerBackend::first_of(server, None)), ServerBackend::first_of(server, None))
        }
    };
    let next = ServerBackend {
        number: latest.number + 1,
        model_deployment_id: to.to_owned(),
        since: switching.now,
        by_user_id: Some(switching.by.to_owned()),
        rollback_to: Some(latest.number),
    };
    (first, next)
}

/// The entry that a rollback from `latest` to `target` writes.
pub(crate) fn rolled_back(
    latest: &ServerBackend,
    target: ServerBackend,
    switching: Switching<'_>,
) -> ServerBackend {
    ServerBackend {
        number: latest.number + 1,
        since: switching.now,
        by_user_id: Some(switching.by.to_owned()),
        ..target
    }
}

/// A name that no client can give: what one of two models is called while they exchange names.
pub(crate) fn name_in_passing(id: ModelId) -> String {
    format!("\u{1}{id}")
}
