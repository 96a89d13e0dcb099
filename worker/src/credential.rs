//! The credential an attempt is made with.

use std::sync::Arc;

use inferq_common::{
    credential::OpenCredential, credential_source::CredentialError, error::ErrorClass,
    id::AccountId, job::Job, store::StoreError,
};
use inferq_vendors::VendorError;
use tracing::warn;

use crate::Worker;

/// What a job of a public model of another account is told.
const FOREIGN: &str = "the model cannot be called; its owner must mend it";

impl Worker {
    /// The credential that the job's model names, or else the default of `payer` for the vendor;
    /// `None`: the operator's own is used. `payer` is the job's account, or that of its public model.
    ///
    /// **Cancel safe.**
    ///
    /// # Errors
    /// Of class `auth` where there is one and it cannot be used, or the one that is named was
    /// deleted: the operator's must not pay for it. `transient` while the store is away. The job of
    /// another account than `payer` is told nothing of its credentials.
    pub async fn credential(
        &self,
        job: &Job,
        payer: &AccountId,
    ) -> Result<Option<Arc<OpenCredential>>, VendorError> {
        let wanted = job.credential.as_ref();
        let foreign = job.account != *payer;
        match (self.credentials.find(payer, job.vendor, wanted).await, wanted) {
            (Ok(None), Some(_)) if foreign => Err(VendorError::new(ErrorClass::Auth, FOREIGN)),
            (Ok(None), Some(name)) => {
                let message = format!(
                    "credential '{name}' was deleted before the attempt; put it again, or name \
                     another in the model's model_metadata.credential"
                );
                Err(VendorError::new(ErrorClass::Auth, message))
            }
            (Ok(found), _) => Ok(found),
            (Err(error), _) => {
                let failure = failure(&error);
                if foreign && failure.class() == ErrorClass::Auth {
                    return Err(VendorError::new(ErrorClass::Auth, FOREIGN));
                }
                Err(failure)
            }
        }
    }
}

fn failure(error: &CredentialError) -> VendorError {
    let class = match error {
        CredentialError::Sealed { .. } | CredentialError::OtherVendor { .. } => ErrorClass::Auth,
        CredentialError::Store(cause) => match **cause {
            StoreError::Unavailable(_) | StoreError::NotMigrated(_) => ErrorClass::Transient,
            StoreError::Corrupt { .. } | StoreError::Other(_) => ErrorClass::Internal,
        },
    };
    let message = match error {
        CredentialError::Store(cause) => {
            // The client sees the message; the cause is the operator's.
            warn!(error = inferq_common::outage::chain(&**cause), "credentials cannot be read");
            "the account's credentials could not be read from the store".to_owned()
        }
        other => other.to_string(),
    };
    VendorError::new(class, message)
}
