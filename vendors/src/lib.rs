//! One adapter per model vendor: it translates and classifies, nothing more.

pub mod error;
pub mod hint;
pub mod http;
pub mod sse;

pub mod model_zoo;
pub mod openai;
#[cfg(any(test, feature = "testing"))]
pub mod scripted;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use inferq_common::{
    clock::SystemClock,
    config::Config,
    id::JobId,
    job::{Json, Route},
    usage::Usage,
    vendor::Vendor,
};

pub use self::error::{BuildError, VendorError};

/// What a worker asks of a vendor: one attempt of one job.
#[derive(Debug, Clone)]
pub struct Call {
    pub job_id: JobId,
    /// Counted from 1.
    pub attempt: u32,
    /// The vendor's own name of the model.
    pub model: String,
    /// Passed on untouched but for the model's name.
    pub args: Json,
    /// Overrides the route that the shape of `args` would choose.
    pub route: Option<Route>,
}

/// What a vendor answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The vendor's JSON, untouched.
    pub response: Json,
    pub usage: Usage,
    pub vendor_request_id: Option<String>,
}

/// One part of a streamed answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Chunk {
    /// A vendor's own chunk, untouched.
    Data(Bytes),
    /// The stream ended as it should; what it consumed.
    End { usage: Usage, vendor_request_id: Option<String> },
}

/// The parts of a streamed answer. A stream that ends without [`Chunk::End`] was cut.
pub type Chunks = BoxStream<'static, Result<Chunk, VendorError>>;

/// Speaks one vendor's format.
///
/// An adapter bounds what it reads, never the time: the worker drops the future when the attempt's
/// timeout passes or the job is cancelled, and that closes the socket. What a vendor needs beyond a
/// request, such as credentials that are refreshed or requests that are signed, an adapter holds.
#[async_trait]
pub trait Adapter: Send + Sync + std::fmt::Debug {
    /// Makes the call and reads the whole answer.
    ///
    /// **Cancel safe:** dropping the future closes the socket.
    async fn call(&self, call: &Call) -> Result<Reply, VendorError>;

    /// Makes the call and answers with its parts as they arrive.
    ///
    /// **Cancel safe:** dropping the future or the stream closes the socket.
    async fn stream(&self, call: &Call) -> Result<Chunks, VendorError>;
}

/// The adapters of a process, by vendor.
#[derive(Debug, Clone, Default)]
pub struct Registry(BTreeMap<Vendor, Arc<dyn Adapter>>);

impl Registry {
    pub fn insert(&mut self, vendor: Vendor, adapter: Arc<dyn Adapter>) {
        self.0.insert(vendor, adapter);
    }

    pub fn get(&self, vendor: Vendor) -> Option<&Arc<dyn Adapter>> {
        self.0.get(&vendor)
    }

    /// The vendors it can serve.
    pub fn vendors(&self) -> impl Iterator<Item = Vendor> {
        self.0.keys().copied()
    }
}

/// The adapters of every vendor this release serves, as `config` describes them.
///
/// # Errors
/// `BuildError` names the vendor and what to change.
pub fn registry(config: &Config) -> Result<Registry, BuildError> {
    let mut registry = Registry::default();
    for &vendor in Vendor::SERVED {
        registry.insert(vendor, adapter(vendor, config)?);
    }
    Ok(registry)
}

fn adapter(vendor: Vendor, config: &Config) -> Result<Arc<dyn Adapter>, BuildError> {
    let clock = Arc::new(SystemClock);
    match vendor {
        Vendor::OpenAi => openai::OpenAi::new(&config.vendor(vendor), clock)
            .map(|adapter| Arc::new(adapter) as Arc<dyn Adapter>)
            .map_err(|reason| BuildError { vendor, reason }),
        Vendor::ModelZoo => Ok(Arc::new(model_zoo::ModelZoo)),
        _ => Err(BuildError { vendor, reason: "this release has no adapter for it".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_an_adapter_for_every_vendor_served() {
        let mut config = Config::load(None).unwrap();
        // Without TLS, so that the machine needs no root certificates.
        config.vendors.entry(Vendor::OpenAi).or_default().base_url =
            Some("http://127.0.0.1:1/v1".parse().unwrap());
        let registry = registry(&config).unwrap();
        assert!(registry.vendors().eq(Vendor::SERVED.iter().copied()));
        assert!(registry.get(Vendor::Cohere).is_none());
    }

    #[test]
    fn a_bad_setting_is_named_with_its_vendor() {
        let mut config = Config::load(None).unwrap();
        let openai = config.vendors.entry(Vendor::OpenAi).or_default();
        openai.base_url = Some("http://127.0.0.1:1/v1".parse().unwrap());
        openai.api_key = Some("\u{7}".into());
        let error = registry(&config).unwrap_err().to_string();
        assert!(error.starts_with("vendors.openai: api_key: "), "{error}");
        assert!(!error.contains('\u{7}'));
    }
}
