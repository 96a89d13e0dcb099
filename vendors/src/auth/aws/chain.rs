//! Asks AWS's chain of places for keys: environment, profile files (with roles and
//! `credential_process`), web identity (EKS), container (ECS, EKS pod identity), instance metadata
//! (IMDSv2).
//!
//! The chain is AWS's own crate, so that every place is read as its other tools read it. Without its
//! HTTP client (ours is lent to it) and without SSO, which no server signs in with, it adds 30 small
//! crates and about 20 s of processor time to a build.

use std::{error::Error, iter, sync::Arc};

use aws_config::{
    default_provider::credentials::DefaultCredentialsChain,
    meta::region::ProvideRegion as _,
    profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider},
    provider_config::ProviderConfig,
};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials as _, error::CredentialsError},
};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_types::region::Region;
use chrono::{DateTime, TimeDelta, Utc};
use inferq_common::{config::VendorConfig, error::ErrorClass};
use secrecy::SecretString;

use super::{Keys, connector::Connector};
use crate::{
    auth::token::{Fetch, Fetched},
    error::{VendorError, shorten},
};

/// Keys that do not end are looked for again after so long: somebody may have replaced them.
const UNENDING: TimeDelta = TimeDelta::hours(1);
/// AWS's security token service is in every region; this one is asked where none is known.
const FALLBACK_REGION: &str = "us-east-1";

/// The places and what they are asked with.
#[derive(Debug, Clone)]
pub struct Chain {
    /// If set, the profile is the only place.
    profile: Option<String>,
    connector: Connector,
}

impl Chain {
    /// Asks nobody yet, and reads nothing.
    pub fn new(config: &VendorConfig) -> Self {
        let profile = config.profile.clone().filter(|profile| !profile.trim().is_empty());
        Self { profile, connector: Connector::new(config) }
    }

    /// The region that the profile names.
    pub async fn region(&self) -> Option<String> {
        let mut region = ProfileFileRegionProvider::builder().configure(&self.settings(None));
        if let Some(profile) = &self.profile {
            region = region.profile_name(profile);
        }
        let region = region.build().region().await?;
        Some(region.as_ref().to_owned())
    }

    /// Fetches keys; `region` is where roles are taken on.
    pub fn fetch(self, region: Option<String>) -> Fetch {
        let chain = Arc::new(self);
        Box::new(move |now| {
            let (chain, region) = (Arc::clone(&chain), region.clone());
            Box::pin(async move { chain.keys(region, now).await })
        })
    }

    async fn keys(
        &self,
        region: Option<String>,
        now: DateTime<Utc>,
    ) -> Result<Fetched, VendorError> {
        let region = match region {
            Some(region) => region,
            None => self.region().await.unwrap_or_else(|| FALLBACK_REGION.to_owned()),
        };
        let region = Region::new(region);
        let settings = self.settings(Some(region.clone()));
        self.connector.forget_status();
        // Built anew each time: it keeps what it has read of the profile files.
        let credentials = if let Some(profile) = &self.profile {
            let provider = ProfileFileCredentialsProvider::builder().configure(&settings);
            provider.profile_name(profile).build().provide_credentials().await
        } else {
            let chain = DefaultCredentialsChain::builder().region(region).configure(settings);
            chain.build().await.provide_credentials().await
        };
        match credentials {
            Ok(credentials) => Ok(fetched(&credentials, now)),
            Err(error) => Err(self.failure(&error)),
        }
    }

    fn settings(&self, region: Option<Region>) -> ProviderConfig {
        ProviderConfig::without_region()
            .with_region(region)
            .with_http_client(self.connector.clone())
    }

    fn failure(&self, error: &CredentialsError) -> VendorError {
        let why = why(error);
        match error {
            CredentialsError::CredentialsNotLoaded(_) if self.profile.is_none() => {
                VendorError::new(ErrorClass::Auth, NONE)
            }
            CredentialsError::ProviderTimedOut(_) => {
                let message = format!("AWS keys were not handed out in time: {why}");
                VendorError::new(ErrorClass::Transient, message)
            }
            CredentialsError::ProviderError(_) if self.may_pass(error) => {
                let message = format!("AWS keys could not be fetched: {why}");
                VendorError::new(ErrorClass::Transient, message)
            }
            _ => {
                let message = format!(
                    "AWS keys could not be had: {why}; check the profile, the role or the keys"
                );
                VendorError::new(ErrorClass::Auth, message)
            }
        }
    }

    /// Whether the place was not reached, or answered that it is in trouble itself.
    fn may_pass(&self, error: &CredentialsError) -> bool {
        causes(error).any(<dyn Error>::is::<ConnectorError>)
            || self.connector.last_status().is_some_and(|status| status >= 500 || status == 429)
    }
}

/// What to do where nothing is set.
const NONE: &str = "there are no AWS credentials: set AWS_BEARER_TOKEN_BEDROCK or \
    vendors.bedrock.api_key; or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
    vendors.bedrock.access_key_id and vendors.bedrock.secret_access_key; or a profile, or a role of \
    the container or instance";

fn fetched(credentials: &Credentials, now: DateTime<Utc>) -> Fetched {
    let keys = Keys {
        access_key_id: credentials.access_key_id().to_owned(),
        secret_access_key: credentials.secret_access_key().into(),
        session_token: credentials.session_token().map(SecretString::from),
    };
    let ends = credentials.expiry().map_or(now + UNENDING, DateTime::<Utc>::from);
    (keys.joined(), ends)
}

/// The innermost words of an error; those around it say only that there was one.
fn why(error: &CredentialsError) -> String {
    let innermost = causes(error).last().map(|cause| shorten(&cause.to_string(), 200));
    innermost.unwrap_or_else(|| "no reason is known".to_owned())
}

fn causes(error: &CredentialsError) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let mut next = error.source();
    iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

#[cfg(test)]
mod tests;
