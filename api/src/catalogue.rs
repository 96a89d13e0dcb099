//! Registered models, model servers and credentials, as a submit looks them up.

use std::{sync::Arc, time::Duration};

use inferq_common::{
    cache::Cache,
    credential::CredentialName,
    id::{AccountId, ModelId},
    model::{Model, ModelServer},
    store::{SharedStore, StoreError},
    vendor::{ModelName, Vendor},
};

use crate::error::ApiError;

/// What another process changed of credentials is seen after at most this long.
const LIFETIME: Duration = Duration::from_secs(1);

/// As above, of models and model servers. Who changes them waits as long, so it is short; a hot
/// alias costs each process four queries a second.
const MODEL_LIFETIME: Duration = Duration::from_millis(250);

/// Added to [`MODEL_LIFETIME`] where it is waited out: clocks of two machines do not run equally
/// fast, and a process may be held up between its look at the clock and its question.
const MARGIN: Duration = Duration::from_millis(50);

/// Entries of each kind kept in memory, unknown names included.
const MAX_ENTRIES: usize = 10_000;

/// What the store has under a name, if anything.
type Memory<Name, T> = Cache<Name, Option<T>, StoreError>;

/// Answers from memory what the store said less than a second ago, so that a submit costs no query.
///
/// **Invariant:** a call made after the answer to a change of a model or model server goes by that
/// change, in whichever api process. An entry is no younger than the moment its question was asked
/// and no older than `MODEL_LIFETIME`, so one that was asked before the change was committed is
/// gone everywhere once that time has passed: [`Catalogue::settle_models`] and
/// [`Catalogue::settle_servers`] wait for it, and need no other process to answer.
#[derive(Debug)]
pub struct Catalogue {
    models: Memory<(AccountId, Vendor, String), Arc<Model>>,
    models_by_id: Memory<ModelId, Arc<Model>>,
    servers: Memory<(AccountId, String), Arc<ModelServer>>,
    credentials: Memory<(AccountId, CredentialName), Vendor>,
}

impl Catalogue {
    pub(crate) fn new() -> Self {
        Self {
            models: Cache::new(MODEL_LIFETIME, MAX_ENTRIES),
            models_by_id: Cache::new(MODEL_LIFETIME, MAX_ENTRIES),
            servers: Cache::new(MODEL_LIFETIME, MAX_ENTRIES),
            credentials: Cache::new(LIFETIME, MAX_ENTRIES),
        }
    }

    /// The model registered under `vendor/name` in the account, if one is.
    pub async fn model_by_name(
        &self,
        store: &SharedStore,
        account: &AccountId,
        name: &ModelName,
    ) -> Result<Option<Arc<Model>>, ApiError> {
        let key = (account.clone(), name.vendor, name.name.clone());
        let load = async {
            let found = store.find_model_by_name(account, name.vendor, &name.name).await?;
            Ok(found.map(Arc::new))
        };
        Ok(self.models.get(key, load).await?)
    }

    /// The model with this id, if the account may run it: its own, or another's that is public.
    pub async fn model(
        &self,
        store: &SharedStore,
        account: &AccountId,
        id: ModelId,
    ) -> Result<Option<Arc<Model>>, ApiError> {
        let load = async { Ok(store.find_any_model(id).await?.map(Arc::new)) };
        let found = self.models_by_id.get(id, load).await?;
        Ok(found.filter(|model| model.account == *account || model.settings().public_inference))
    }

    pub async fn server_by_alias(
        &self,
        store: &SharedStore,
        account: &AccountId,
        alias: &str,
    ) -> Result<Option<Arc<ModelServer>>, ApiError> {
        let load =
            async { Ok(store.find_model_server_by_alias(alias, account).await?.map(Arc::new)) };
        Ok(self.servers.get((account.clone(), alias.to_owned()), load).await?)
    }

    /// Whose vendor's the credential of this name is, if the account has one.
    pub async fn credential(
        &self,
        store: &SharedStore,
        account: &AccountId,
        name: &CredentialName,
    ) -> Result<Option<Vendor>, ApiError> {
        let load = async {
            let found = store.find_credential(account, name).await?;
            Ok(found.map(|credential| credential.vendor))
        };
        Ok(self.credentials.get((account.clone(), name.clone()), load).await?)
    }

    /// Waits until every api process and worker goes by what was just committed of models. The answer
    /// to who asked for the change must come after it.
    pub async fn settle_models(&self) {
        self.forget();
        // Not less on SQLite: the worker in this process keeps models in memory as long.
        tokio::time::sleep(MODEL_LIFETIME + MARGIN).await;
    }

    /// Waits until every api process goes by what was just committed of model servers. The answer to
    /// who asked for the change must come after it.
    pub async fn settle_servers(&self, store: &SharedStore) {
        self.forget();
        // A SQLite store is served by one process, and that has just forgotten.
        if store.kind() != "sqlite" {
            tokio::time::sleep(MODEL_LIFETIME + MARGIN).await;
        }
    }

    /// Forgets everything: call it after writing a credential, so that this process sees it at once.
    pub fn forget(&self) {
        self.models.clear();
        self.models_by_id.clear();
        self.servers.clear();
        self.credentials.clear();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_of_a_model_is_answered_after_every_memory_of_it_has_gone() {
        let began = Instant::now();
        Catalogue::new().settle_models().await;
        assert!(began.elapsed() > MODEL_LIFETIME);
    }
}
