//! Credentials of accounts.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{Added, Page, PageRequest, StoreError};
use crate::{
    credential::{CredentialName, Envelope, SealedCredential},
    id::{AccountId, CredentialId},
    vendor::Vendor,
};

/// A credential to be put.
#[derive(Debug, Clone)]
pub struct NewCredential {
    /// Its id if the name is free; else the credential that has the name keeps its own.
    pub id: CredentialId,
    pub account: AccountId,
    pub name: CredentialName,
    pub vendor: Vendor,
    pub secret: Envelope,
    /// Whether it is to be its vendor's default; `None`: as it was, and a new one is not.
    pub default: Option<bool>,
    pub now: DateTime<Utc>,
}

/// Credentials of accounts, sealed.
#[async_trait]
pub trait CredentialStore: Send + Sync {
    /// Adds a credential to an existing account, or replaces the secret of the one that has the name
    /// and counts its version up. One that becomes the default takes that from its predecessor.
    /// `Conflict` where the name is taken by one of another vendor.
    async fn put_credential(
        &self,
        new: &NewCredential,
    ) -> Result<Added<SealedCredential>, StoreError>;

    async fn find_credential(
        &self,
        account: &AccountId,
        name: &CredentialName,
    ) -> Result<Option<SealedCredential>, StoreError>;

    /// The default of a vendor within an account, if it has one.
    async fn find_default_credential(
        &self,
        account: &AccountId,
        vendor: Vendor,
    ) -> Result<Option<SealedCredential>, StoreError>;

    /// Those of one vendor, or of all.
    async fn list_credentials(
        &self,
        account: &AccountId,
        vendor: Option<Vendor>,
        page: &PageRequest<CredentialId>,
    ) -> Result<Page<SealedCredential>, StoreError>;

    /// Up to `limit` credentials of all accounts whose ids come after `after`, in the order of ids.
    async fn all_credentials(
        &self,
        after: Option<CredentialId>,
        limit: u32,
    ) -> Result<Vec<SealedCredential>, StoreError>;

    /// Replaces the envelope of a credential that still has this version by another one of the same
    /// content. `false`: it was put again or deleted meanwhile.
    async fn reseal_credential(
        &self,
        id: CredentialId,
        version: i64,
        envelope: &Envelope,
    ) -> Result<bool, StoreError>;

    /// Deletes a credential and answers its id. `None`: there is no such credential.
    async fn delete_credential(
        &self,
        account: &AccountId,
        name: &CredentialName,
    ) -> Result<Option<CredentialId>, StoreError>;
}
