//! Registered models, model servers and credentials, as a submit looks them up.

use std::{sync::Arc, time::Duration};

use inferq_common::{
    cache::Cache,
    credential::CredentialName,
    id::{AccountId, ModelId},
    model::{Model, ModelServer},
    store::SharedStore,
    vendor::{ModelName, Vendor},
};

use crate::error::ApiError;

/// What another process changed is seen after at most this long.
const LIFETIME: Duration = Duration::from_secs(1);

/// Entries of each kind kept in memory, unknown names included.
const MAX_ENTRIES: usize = 10_000;

/// Answers from memory what the store said less than a second ago, so that a submit costs no query.
#[derive(Debug)]
pub struct Catalogue {
    models: Cache<(AccountId, Vendor, String), Option<Arc<Model>>>,
    models_by_id: Cache<(AccountId, ModelId), Option<Arc<Model>>>,
    servers: Cache<(AccountId, String), Option<Arc<ModelServer>>>,
    credentials: Cache<(AccountId, CredentialName), Option<Vendor>>,
}

impl Catalogue {
    pub(crate) fn new() -> Self {
        Self {
            models: Cache::new(LIFETIME, MAX_ENTRIES),
            models_by_id: Cache::new(LIFETIME, MAX_ENTRIES),
            servers: Cache::new(LIFETIME, MAX_ENTRIES),
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
        self.models.get(key, load).await
    }

    pub async fn model(
        &self,
        store: &SharedStore,
        account: &AccountId,
        id: ModelId,
    ) -> Result<Option<Arc<Model>>, ApiError> {
        let load = async { Ok(store.find_model(id, account).await?.map(Arc::new)) };
        self.models_by_id.get((account.clone(), id), load).await
    }

    pub async fn server_by_alias(
        &self,
        store: &SharedStore,
        account: &AccountId,
        alias: &str,
    ) -> Result<Option<Arc<ModelServer>>, ApiError> {
        let load =
            async { Ok(store.find_model_server_by_alias(alias, account).await?.map(Arc::new)) };
        self.servers.get((account.clone(), alias.to_owned()), load).await
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
        self.credentials.get((account.clone(), name.clone()), load).await
    }

    /// Forgets everything: call it after writing a model, a model server or a credential, so that this process
    /// sees it at once.
    pub fn forget(&self) {
        self.models.clear();
        self.models_by_id.clear();
        self.servers.clear();
        self.credentials.clear();
    }
}
