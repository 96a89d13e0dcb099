//! Which region is called, and at what address.

use inferq_common::{config::VendorConfig, error::ErrorClass};
use tokio::sync::OnceCell;
use url::{Host, Url};

use crate::{
    auth::aws::chain::Chain,
    error::VendorError,
    remote::{Request, base_url},
};

/// Stands in requests for the host, until the region is known that it depends on.
const UNKNOWN_HOST: &str = "region-not-known-yet.invalid";

const NO_REGION: &str = "no AWS region is known: set vendors.bedrock.region, AWS_REGION, or the \
    region of the AWS profile";

/// The address and the region of Bedrock.
#[derive(Debug)]
pub(super) struct Place {
    base_url: Url,
    /// From the settings or the address.
    known: Option<String>,
    /// From the profile, which is on disk and therefore read late.
    profile: Chain,
    found: OnceCell<String>,
}

impl Place {
    /// The region is that of an address of AWS's, else the configured one, else the profile's. That
    /// of a model's ARN does not matter.
    ///
    /// # Errors
    /// A sentence for an operator: the region or the address cannot be used.
    pub(super) fn of(config: &VendorConfig) -> Result<Self, String> {
        let set = config.region.as_deref().map(str::trim).filter(|region| !region.is_empty());
        if let Some(region) = set
            && !is_word(region)
        {
            return Err("region: must be letters, digits and hyphens, such as us-east-1".to_owned());
        }
        let in_address = config.base_url.as_ref().and_then(region_of);
        let known = in_address.or_else(|| set.map(str::to_owned));
        let default = match &known {
            Some(region) => format!("https://{}", host(region)),
            None => format!("https://{UNKNOWN_HOST}"),
        };
        let base_url = base_url(config, &default)?;
        Ok(Self { base_url, known, profile: Chain::new(config), found: OnceCell::new() })
    }

    /// Where requests are sent; [`Place::settle`] makes it final.
    pub(super) fn base_url(&self) -> &Url {
        &self.base_url
    }

    /// The region, as far as it is known without a look at the disk.
    pub(super) fn known_region(&self) -> Option<&str> {
        self.known.as_deref()
    }

    /// The region.
    ///
    /// # Errors
    /// `Auth`: none is set anywhere.
    pub(super) async fn region(&self) -> Result<&str, VendorError> {
        if let Some(region) = &self.known {
            return Ok(region);
        }
        let find = || async {
            let region = self.profile.region().await.filter(|region| is_word(region));
            region.ok_or_else(|| VendorError::new(ErrorClass::Auth, NO_REGION))
        };
        self.found.get_or_try_init(find).await.map(String::as_str)
    }

    /// Puts the region's host into a request that waits for it.
    ///
    /// # Errors
    /// As [`Place::region`].
    pub(super) async fn settle(&self, request: &mut Request) -> Result<(), VendorError> {
        if request.url.host_str() != Some(UNKNOWN_HOST) {
            return Ok(());
        }
        let host = host(self.region().await?);
        request.url.set_host(Some(&host)).map_err(|error| {
            VendorError::new(ErrorClass::Auth, format!("the region makes no address: {error}"))
        })
    }
}

/// The host of Bedrock in a region.
fn host(region: &str) -> String {
    let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
    format!("bedrock-runtime.{region}.amazonaws.com{suffix}")
}

/// What signatures are made for: Bedrock's newer endpoints in OpenAI's format are a service of their
/// own.
pub(super) fn service(url: &Url) -> &'static str {
    let host = url.host_str().unwrap_or_default();
    if host.starts_with("bedrock-mantle.") { "bedrock-mantle" } else { "bedrock" }
}

/// Whether an address is AWS's own.
pub(super) fn is_aws(url: &Url) -> bool {
    let Some(Host::Domain(host)) = url.host() else { return false };
    [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"].iter().any(|end| host.ends_with(end))
}

/// The region in an address of AWS's: `bedrock-runtime.us-east-1.amazonaws.com`,
/// `vpce-0a-1b.bedrock-runtime.us-east-1.vpce.amazonaws.com`, `bedrock-mantle.us-east-1.api.aws`.
fn region_of(url: &Url) -> Option<String> {
    let mut labels = url.host_str().filter(|_| is_aws(url))?.split('.');
    labels.find(|label| label.starts_with("bedrock-"))?;
    labels.next().filter(|label| is_word(label)).map(str::to_owned)
}

fn is_word(region: &str) -> bool {
    !region.is_empty() && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(base_url: Option<&str>, region: Option<&str>) -> Result<Place, String> {
        Place::of(&VendorConfig {
            base_url: base_url.map(|url| url.parse().unwrap()),
            region: region.map(str::to_owned),
            ..VendorConfig::default()
        })
    }

    #[test]
    fn the_address_follows_the_region() {
        for (region, host) in [
            ("eu-central-1", "bedrock-runtime.eu-central-1.amazonaws.com"),
            ("us-gov-west-1", "bedrock-runtime.us-gov-west-1.amazonaws.com"),
            ("cn-north-1", "bedrock-runtime.cn-north-1.amazonaws.com.cn"),
        ] {
            let place = place(None, Some(region)).unwrap();
            assert_eq!(place.base_url().as_str(), format!("https://{host}/"));
            assert_eq!(place.known_region(), Some(region));
        }
        let bad = place(None, Some("us-east-1.evil.example/")).unwrap_err();
        assert!(bad.starts_with("region: "), "{bad}");
    }

    #[test]
    fn an_address_of_aws_names_its_region() {
        for (url, region) in [
            ("https://bedrock-runtime.us-east-1.amazonaws.com", Some("us-east-1")),
            ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", Some("us-gov-west-1")),
            ("https://bedrock-runtime.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("https://bedrock-mantle.us-west-2.api.aws/v1", Some("us-west-2")),
            ("https://vpce-0a.bedrock-runtime.eu-west-1.vpce.amazonaws.com", Some("eu-west-1")),
            ("http://127.0.0.1:9", None),
            ("http://bedrock-runtime.us-east-1.example.com", None),
        ] {
            assert_eq!(place(Some(url), None).unwrap().known_region(), region, "{url}");
        }
        let both =
            place(Some("https://bedrock-runtime.us-east-1.amazonaws.com"), Some("eu-west-1"));
        assert_eq!(both.unwrap().known_region(), Some("us-east-1"));
        let other = place(Some("http://127.0.0.1:9"), Some("eu-west-1"));
        assert_eq!(other.unwrap().known_region(), Some("eu-west-1"));
    }

    #[tokio::test]
    async fn without_a_region_nothing_is_sent_and_it_is_said_what_to_set() {
        let profile = Some("a-profile-that-nobody-has".to_owned());
        let place = Place::of(&VendorConfig { profile, ..VendorConfig::default() }).unwrap();
        let mut request = Request {
            method: http::Method::POST,
            url: place.base_url().clone(),
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::new(),
        };
        let error = place.settle(&mut request).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Auth);
        assert!(error.to_string().contains("vendors.bedrock.region"), "{error}");
        place.found.set("eu-west-3".to_owned()).unwrap();
        place.settle(&mut request).await.unwrap();
        assert_eq!(request.url.as_str(), "https://bedrock-runtime.eu-west-3.amazonaws.com/");
    }

    #[test]
    fn each_service_has_its_name_in_signatures() {
        let named = |url: &str| service(&url.parse().unwrap());
        assert_eq!(named("https://bedrock-runtime.us-east-1.amazonaws.com"), "bedrock");
        assert_eq!(named("https://bedrock-mantle.us-east-1.api.aws/v1"), "bedrock-mantle");
        assert_eq!(named("http://127.0.0.1"), "bedrock");
    }
}
