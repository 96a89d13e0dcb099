//! Registered models and model servers, as they are added and looked up.

use async_trait::async_trait;

use super::{Added, Page, PageRequest, StoreError};
use crate::{
    id::{AccountId, ModelId, ModelServerId},
    model::{Model, ModelServer},
    vendor::Vendor,
};

/// Which models to list.
#[derive(Debug, Clone, Default)]
pub struct ModelFilter {
    pub vendor: Option<Vendor>,
    pub name: Option<String>,
}

/// Registered models and model servers.
#[async_trait]
pub trait ModelStore: Send + Sync {
    /// Adds a model; where `vendor/name` is taken in the account, updates configuration, type,
    /// metadata, status and default callback URL of the one there if `update`, else answers
    /// `Conflict`, as for one that is being deployed.
    async fn add_model(&self, model: &Model, update: bool) -> Result<Added<Model>, StoreError>;

    async fn find_model(
        &self,
        id: ModelId,
        account: &AccountId,
    ) -> Result<Option<Model>, StoreError>;

    async fn find_model_by_name(
        &self,
        account: &AccountId,
        vendor: Vendor,
        name: &str,
    ) -> Result<Option<Model>, StoreError>;

    async fn list_models(
        &self,
        account: &AccountId,
        filter: &ModelFilter,
        page: &PageRequest<ModelId>,
    ) -> Result<Page<Model>, StoreError>;

    /// How many models of `account` the filter lets through.
    async fn count_models(
        &self,
        account: &AccountId,
        filter: &ModelFilter,
    ) -> Result<u64, StoreError>;

    /// Adds a model server, made by `by`; `Conflict` where its alias is taken in the account; `None`
    /// where the registered model it is to run is gone.
    async fn add_model_server(
        &self,
        server: &ModelServer,
        by: Option<&str>,
    ) -> Result<Option<Added<ModelServer>>, StoreError>;

    async fn find_model_server(
        &self,
        id: ModelServerId,
        account: &AccountId,
    ) -> Result<Option<ModelServer>, StoreError>;

    async fn find_model_server_by_alias(
        &self,
        alias: &str,
        account: &AccountId,
    ) -> Result<Option<ModelServer>, StoreError>;

    async fn list_model_servers(&self, account: &AccountId)
    -> Result<Vec<ModelServer>, StoreError>;
}
