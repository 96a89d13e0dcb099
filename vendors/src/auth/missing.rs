//! Stands where a credential should be.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use inferq_common::{config::VendorConfig, error::ErrorClass, vendor::Vendor};
use secrecy::ExposeSecret as _;

use super::Authorize;
use crate::{error::VendorError, remote::Request};

/// No credential: every call fails at once, says what to set, and sends nothing.
#[derive(Debug)]
pub struct Missing {
    vendor: Vendor,
    advice: &'static str,
}

impl Missing {
    /// `advice` follows the vendor's name: `set THIS or that`.
    pub fn of(vendor: Vendor, advice: &'static str) -> Self {
        Self { vendor, advice }
    }
}

/// `auth`; or, where `config` has neither a key nor an address of someone's own, what fails every call
/// and says what to set. `advice` as for [`Missing::of`].
pub fn or_missing(
    auth: impl Authorize + 'static,
    vendor: Vendor,
    config: &VendorConfig,
    advice: &'static str,
) -> Arc<dyn Authorize> {
    let key = config.api_key.as_ref().map(|key| key.expose_secret().trim());
    if config.base_url.is_some() || key.is_some_and(|key| !key.is_empty()) {
        Arc::new(auth)
    } else {
        Arc::new(Missing::of(vendor, advice))
    }
}

#[async_trait]
impl Authorize for Missing {
    async fn authorize(&self, _: &mut Request, _: DateTime<Utc>) -> Result<(), VendorError> {
        let message = format!("{} is not configured: {}", self.vendor, self.advice);
        Err(VendorError::new(ErrorClass::Auth, message))
    }

    fn redact(&self, _: &mut String) {}
}
