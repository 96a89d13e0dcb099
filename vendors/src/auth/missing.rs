//! Stands where a credential should be.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use inferq_common::{error::ErrorClass, vendor::Vendor};

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

#[async_trait]
impl Authorize for Missing {
    async fn authorize(&self, _: &mut Request, _: DateTime<Utc>) -> Result<(), VendorError> {
        let message = format!("{} is not configured: {}", self.vendor, self.advice);
        Err(VendorError::new(ErrorClass::Auth, message))
    }

    fn redact(&self, _: &mut String) {}
}
