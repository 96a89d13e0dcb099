//! The layers of an adapter one by one, without a socket: for benchmarks and property tests.

mod samples;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ::http::HeaderMap;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use inferq_common::{clock::Clock, config::VendorConfig, job::Route, vendor::Vendor};

pub use self::samples::Sample;
use super::{Dialect, Failure, Follow, Mode, Parsed, Remote, Request, http::Clients};
use crate::{
    Adapter, Call, anthropic, azure, bedrock, cohere,
    error::{BuildError, VendorError},
    fireworks_ai,
    framing::Framing,
    gemini, launch, llmengine, openai, vertex_ai, xai,
};

/// An adapter whose layers can be had alone. What it says of errors is what the adapter says.
#[async_trait]
pub trait Probe: Adapter {
    /// # Errors
    /// `InvalidRequest`: no endpoint fits the call.
    fn route(&self, call: &Call) -> Result<Route, VendorError>;

    /// The request for a call, with what proves who calls.
    ///
    /// # Errors
    /// As the adapter's, before anything is sent.
    async fn request(&self, call: &Call, mode: Mode) -> Result<Request, VendorError>;

    /// Reads the body of a 2xx answer.
    ///
    /// # Errors
    /// As [`Dialect::parse`].
    fn parse(
        &self,
        route: Route,
        headers: &HeaderMap,
        body: Vec<u8>,
    ) -> Result<Parsed, VendorError>;

    /// Who reads a streamed answer, if it is one.
    fn follow(&self, route: Route, headers: &HeaderMap) -> Option<(Framing, Box<dyn Follow>)>;

    /// What an answer means that is not 2xx.
    fn failure(&self, failure: Failure<'_>) -> VendorError;

    /// An error of a stream as the adapter hands it on.
    fn labelled(&self, headers: &HeaderMap, error: VendorError) -> VendorError;

    /// By the adapter's clock.
    fn now(&self) -> DateTime<Utc>;
}

#[async_trait]
impl<D: Dialect> Probe for Remote<D> {
    fn route(&self, call: &Call) -> Result<Route, VendorError> {
        Self::route(self, call)
    }

    async fn request(&self, call: &Call, mode: Mode) -> Result<Request, VendorError> {
        let route = Self::route(self, call)?;
        let mut request = self.dialect.request(call, route, mode)?;
        self.auth.authorize(&mut request, self.clock.now()).await?;
        Ok(request)
    }

    fn parse(
        &self,
        route: Route,
        headers: &HeaderMap,
        body: Vec<u8>,
    ) -> Result<Parsed, VendorError> {
        self.dialect
            .parse(route, headers, body, self.clock.now())
            .map_err(|error| self.labels(headers).add_to(error))
    }

    fn follow(&self, route: Route, headers: &HeaderMap) -> Option<(Framing, Box<dyn Follow>)> {
        self.dialect.follow(route, headers)
    }

    fn failure(&self, failure: Failure<'_>) -> VendorError {
        let error = self.dialect.failure(failure, self.clock.now());
        self.labels(failure.headers).add_to(error)
    }

    fn labelled(&self, headers: &HeaderMap, error: VendorError) -> VendorError {
        self.labels(headers).add_to(error)
    }

    fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }
}

/// The adapter that `config` describes; of the catalogue, one of its entries.
///
/// # Errors
/// Which setting is at fault.
pub fn adapter(
    vendor: Vendor,
    config: &VendorConfig,
    clients: &Clients,
    clock: Arc<dyn Clock>,
) -> Result<Box<dyn Probe>, BuildError> {
    fn boxed<D: Dialect>(remote: Remote<D>) -> Box<dyn Probe> {
        Box::new(remote)
    }
    match vendor {
        Vendor::Anthropic => anthropic::adapter(config, clients, clock).map(boxed),
        Vendor::Cohere => cohere::adapter(config, clients, clock).map(boxed),
        Vendor::OpenAi => openai::adapter(config, clients, clock).map(boxed),
        Vendor::Gemini => gemini::adapter(config, clients, clock).map(boxed),
        Vendor::VertexAi => vertex_ai::adapter(config, clients, clock).map(boxed),
        Vendor::Azure => azure::adapter(config, clients, clock).map(boxed),
        Vendor::Xai => xai::adapter(config, clients, clock).map(boxed),
        Vendor::FireworksAi => fireworks_ai::adapter(config, clients, clock).map(boxed),
        Vendor::ModelZoo => {
            openai::compatible(&openai::MODEL_ZOO, config, clients, clock).map(boxed)
        }
        Vendor::Bedrock => bedrock::adapter(config, clients, clock).map(boxed),
        Vendor::Launch => launch::adapter(config, clients, clock).map(|own| boxed(own.0)),
        Vendor::LlmEngine => llmengine::adapter(config, clients, clock).map(boxed),
    }
    .map_err(|reason| BuildError { vendor, reason })
}
