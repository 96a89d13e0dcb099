//! Which credential of the settings is used.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use inferq_common::{config::VendorConfig, vendor::Vendor};
use url::Url;

use crate::{
    auth::{Authorize, Key, Missing, entra::Entra},
    error::VendorError,
    remote::{Request, http::Clients},
};

const NO_ENDPOINT: &str = "set AZURE_OPENAI_ENDPOINT or vendors.azure.base_url to the endpoint of \
                           your resource, and AZURE_OPENAI_API_KEY or vendors.azure.api_key";
const NO_CREDENTIAL: &str = "set AZURE_OPENAI_API_KEY or vendors.azure.api_key; or for Microsoft \
                             Entra tenant_id, client_id and client_secret, federated_token_file, \
                             or managed_identity of vendors.azure";

/// A key, else an identity of Microsoft Entra, else nothing; but Azure itself takes no call without
/// a credential, so there none is sent.
///
/// # Errors
/// A sentence for an operator: which setting is at fault.
pub(super) fn authorize(
    config: &VendorConfig,
    clients: &Clients,
) -> Result<Arc<dyn Authorize>, String> {
    let Some(endpoint) = &config.base_url else {
        return Ok(Arc::new(Missing::of(Vendor::Azure, NO_ENDPOINT)));
    };
    let key = config.api_key.as_ref();
    let (openai, anthropic) = (Key::header("api-key", key)?, Key::header("x-api-key", key)?);
    if !openai.is_none() {
        return Ok(Arc::new(ResourceKey { openai, anthropic }));
    }
    match Entra::of(config, resource(endpoint), clients)? {
        Some(entra) => Ok(Arc::new(entra)),
        None if is_azure(endpoint) => Ok(Arc::new(Missing::of(Vendor::Azure, NO_CREDENTIAL))),
        None => Ok(Arc::new(Key::default())),
    }
}

/// What a token has to be for: each cloud has its own.
fn resource(endpoint: &Url) -> &'static str {
    match endpoint.host_str().unwrap_or_default() {
        host if host.ends_with(".azure.us") => "https://cognitiveservices.azure.us",
        host if host.ends_with(".azure.cn") => "https://cognitiveservices.azure.cn",
        _ => "https://cognitiveservices.azure.com",
    }
}

fn is_azure(endpoint: &Url) -> bool {
    let host = endpoint.host_str().unwrap_or_default();
    [".azure.com", ".azure.us", ".azure.cn"].iter().any(|cloud| host.ends_with(cloud))
}

/// The key of a resource, in the header that the surface wants.
#[derive(Debug)]
struct ResourceKey {
    openai: Key,
    anthropic: Key,
}

#[async_trait]
impl Authorize for ResourceKey {
    async fn authorize(
        &self,
        request: &mut Request,
        now: DateTime<Utc>,
    ) -> Result<(), VendorError> {
        let is_claude = request.url.path().contains("/anthropic/v1/");
        let key = if is_claude { &self.anthropic } else { &self.openai };
        key.authorize(request, now).await
    }

    fn redact(&self, words: &mut String) {
        self.openai.redact(words);
    }
}

#[cfg(test)]
mod tests {
    use inferq_common::error::ErrorClass;

    use super::*;

    /// The headers that a call goes out with.
    async fn headers(
        path: &str,
        change: impl FnOnce(&mut VendorConfig),
    ) -> Result<Vec<String>, VendorError> {
        let base_url = Some("https://r.openai.azure.com".parse().unwrap());
        let mut config = VendorConfig { base_url, ..VendorConfig::default() };
        change(&mut config);
        let auth = authorize(&config, &Clients::default()).unwrap();
        let url = format!("https://r.openai.azure.com{path}").parse().unwrap();
        let (headers, body) = (http::HeaderMap::new(), bytes::Bytes::new());
        let mut request = Request { method: http::Method::POST, url, headers, body };
        auth.authorize(&mut request, DateTime::UNIX_EPOCH).await?;
        let lines = request.headers.iter();
        Ok(lines.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect())
    }

    #[tokio::test]
    async fn a_key_stands_in_the_header_of_its_surface() {
        let with_key = |config: &mut VendorConfig| config.api_key = Some("key-number-1".into());
        for (path, header) in [
            ("/openai/v1/responses", "api-key: key-number-1"),
            ("/models/chat/completions", "api-key: key-number-1"),
            ("/anthropic/v1/messages", "x-api-key: key-number-1"),
        ] {
            assert_eq!(headers(path, with_key).await.unwrap(), [header]);
        }
    }

    #[tokio::test]
    async fn what_is_missing_is_said_and_a_stand_in_needs_nothing() {
        let error = headers("/", |config| config.base_url = None).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Auth);
        assert!(error.to_string().contains("AZURE_OPENAI_ENDPOINT"), "{error}");
        let error = headers("/", |config| config.api_key = Some(" ".into())).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Auth);
        assert!(error.to_string().contains("AZURE_OPENAI_API_KEY"), "{error}");
        let stand_in = |config: &mut VendorConfig| {
            config.base_url = Some("http://127.0.0.1:1".parse().unwrap());
        };
        assert_eq!(headers("/", stand_in).await.unwrap(), [] as [&str; 0]);
    }

    #[test]
    fn each_cloud_has_its_own_resource() {
        for (host, expected) in [
            ("r.openai.azure.com", "https://cognitiveservices.azure.com"),
            ("r.services.ai.azure.com", "https://cognitiveservices.azure.com"),
            ("r.openai.azure.us", "https://cognitiveservices.azure.us"),
            ("gateway.example", "https://cognitiveservices.azure.com"),
        ] {
            assert_eq!(resource(&format!("https://{host}/").parse().unwrap()), expected);
        }
    }
}
