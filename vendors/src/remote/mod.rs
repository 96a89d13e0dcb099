//! Calls a vendor over HTTP: everything that is the same for all of them.
//!
//! What differs is a [`Dialect`], which is pure, and an [`Authorize`], which proves who calls.

pub mod http;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod probe;
mod streaming;

use std::{fmt, sync::Arc, time::Duration};

use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use inferq_common::{
    clock::Clock,
    config::VendorConfig,
    error::ErrorClass,
    job::{Json, Route},
    route,
    usage::Usage,
    vendor::Vendor,
};
use secrecy::ExposeSecret as _;
use url::Url;

use self::{
    http::{Answer, Http},
    streaming::Streaming,
};
use crate::{
    Adapter, Assemble, Call, Chunks, Collected, Reply,
    auth::{Authorize, Refusal},
    error::{VendorError, invalid, shorten},
    framing::{Frame, Framing},
    json,
};

/// What is read of the body of a failure.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// Whether the answer is wanted whole or in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Whole,
    Stream,
}

impl Mode {
    /// What to say in `Accept`, of a vendor that streams server-sent events.
    pub fn accept(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Whole => "application/json",
            Self::Stream => "text/event-stream",
        })
    }
}

/// The configured address, or the vendor's own.
///
/// # Errors
/// A sentence for an operator: there is neither.
pub fn base_url(config: &VendorConfig, default: &str) -> Result<Url, String> {
    match &config.base_url {
        Some(url) => Ok(url.clone()),
        None => Url::parse(default).map_err(|error| format!("base_url: {error}")),
    }
}

/// An address below `base`.
pub fn below(base: &Url, path: impl IntoIterator<Item: AsRef<str>>) -> Url {
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    url
}

/// The headers that `config` adds to every call.
///
/// # Errors
/// A sentence for an operator: the header that cannot be sent.
pub fn base_headers(config: &VendorConfig) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &config.headers {
        let name: HeaderName =
            name.parse().map_err(|_| format!("headers.{name}: is no name of an HTTP header"))?;
        let mut value = HeaderValue::from_str(value.expose_secret())
            .map_err(|_| format!("headers.{name}: no HTTP header can carry its value"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// One HTTP request, complete but for what proves who calls.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Request {
    /// A POST of a JSON document, whose answer is wanted as `accept` says.
    pub fn post(url: Url, mut headers: HeaderMap, accept: HeaderValue, body: String) -> Self {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, accept);
        Self { method: Method::POST, url, headers, body: body.into() }
    }
}

/// The result of a 2xx answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    pub response: Json,
    pub usage: Usage,
    /// Where the vendor's id of the request stands in the body.
    pub request_id: Option<String>,
}

/// An answer that is not 2xx, or an error inside one that is.
#[derive(Debug, Clone, Copy)]
pub struct Failure<'a> {
    /// `None` for an error inside a 2xx answer.
    pub status: Option<u16>,
    pub headers: &'a HeaderMap,
    pub body: &'a str,
}

/// What one vendor does in its own way; pure.
pub trait Dialect: fmt::Debug + Send + Sync + 'static {
    fn vendor(&self) -> Vendor;

    /// The request for a call.
    ///
    /// # Errors
    /// `InvalidRequest` for what cannot be sent to this vendor.
    fn request(&self, call: &Call, route: Route, mode: Mode) -> Result<Request, VendorError>;

    /// Reads the body of a 2xx answer.
    ///
    /// # Errors
    /// What an error inside the answer means; `Transient` where the answer is cut; `Protocol` for
    /// what is not of the vendor's format.
    fn parse(
        &self,
        route: Route,
        headers: &HeaderMap,
        body: Vec<u8>,
        now: DateTime<Utc>,
    ) -> Result<Parsed, VendorError>;

    /// How the frames of a streamed 2xx answer are told apart, and who reads them; `None` if such
    /// an answer is no stream.
    fn follow(&self, route: Route, headers: &HeaderMap) -> Option<(Framing, Box<dyn Follow>)>;

    /// What makes one answer of what [`Self::follow`] lets through.
    fn assemble(&self, route: Route) -> Box<dyn Assemble>;

    /// What a failure means.
    fn failure(&self, failure: Failure<'_>, now: DateTime<Utc>) -> VendorError;

    /// The headers that may carry the vendor's id of a request, the best first.
    fn request_id_headers(&self) -> &'static [&'static str] {
        &["x-request-id"]
    }
}

/// Reads one streamed answer; pure.
pub trait Follow: fmt::Debug + Send {
    /// Takes a frame and answers with what to pass on of it.
    ///
    /// # Errors
    /// What an error inside the stream means; `Protocol` for a frame that cannot be read.
    fn take(&mut self, frame: Frame, now: DateTime<Utc>) -> Result<Option<Bytes>, VendorError>;

    /// Whether nothing more is to come.
    fn is_over(&self) -> bool;

    /// The connection ended, or broke.
    ///
    /// # Errors
    /// `Transient` where the answer was not complete by then. Afterwards it is over.
    fn end(&mut self) -> Result<(), VendorError>;

    /// What the answer consumed, as far as the vendor has told.
    fn usage(&self) -> Usage;

    /// The vendor's id of the request, where it stands in the frames.
    fn request_id(&self) -> Option<String> {
        None
    }
}

/// How many of these events a reader hands on, each as it came, and how the stream ends.
#[cfg(test)]
pub(crate) fn follow_events(
    reader: &mut impl Follow,
    events: &[&str],
) -> (usize, Result<(), VendorError>) {
    let mut n_passed = 0;
    for &event in events {
        if reader.is_over() {
            break;
        }
        match reader.take(Bytes::from(event.to_owned()).into(), DateTime::UNIX_EPOCH) {
            Ok(Some(data)) => {
                assert_eq!(data, event);
                n_passed += 1;
            }
            Ok(None) => {}
            Err(error) => return (n_passed, Err(error)),
        }
    }
    (n_passed, if reader.is_over() { Ok(()) } else { reader.end() })
}

/// Calls the vendor that `D` speaks to.
///
/// `args` go out and the response comes back as they are; waits that the vendor asks for are taken
/// from the clock.
pub struct Remote<D> {
    dialect: D,
    http: Http,
    auth: Arc<dyn Authorize>,
    idle_timeout: Duration,
    clock: Arc<dyn Clock>,
}

impl<D: Dialect> fmt::Debug for Remote<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("vendor", &self.dialect.vendor()).finish_non_exhaustive()
    }
}

impl<D: Dialect> Remote<D> {
    /// An adapter that sends over `http`, within the limits of `config`.
    pub fn new(
        dialect: D,
        http: Http,
        auth: Arc<dyn Authorize>,
        config: &VendorConfig,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let idle_timeout = Duration::from_millis(config.idle_timeout_ms);
        Self { dialect, http, auth, idle_timeout, clock }
    }

    pub(crate) fn dialect(&self) -> &D {
        &self.dialect
    }

    pub(crate) fn route(&self, call: &Call) -> Result<Route, VendorError> {
        route::choose(self.dialect.vendor(), &call.model, call.args.as_str(), call.route)
            .map_err(|error| invalid(error.to_string()))
    }

    /// Sends a request and answers once a 2xx head is there. A credential that the vendor refuses
    /// and that can be had anew is replaced once.
    pub(crate) async fn send(&self, request: Request) -> Result<Answer, VendorError> {
        let mut spare = self.auth.is_refreshable().then(|| request.clone());
        let mut request = request;
        loop {
            self.auth.authorize(&mut request, self.clock.now()).await?;
            let authorization = request.headers.get(AUTHORIZATION).cloned();
            let answer = self.http.send(request).await.map_err(|error| self.redacted(error))?;
            if answer.status.is_success() {
                return Ok(answer);
            }
            let headers = answer.headers.clone();
            let error = self.failure(answer).await;
            let Some(again) = spare.take().filter(|_| error.class() == ErrorClass::Auth) else {
                return Err(error);
            };
            let (authorization, now) = (authorization.as_ref(), self.clock.now());
            let refusal = Refusal { authorization, headers: &headers, error: &error, now };
            if !self.auth.learn(refusal).await {
                return Err(error);
            }
            request = again;
        }
    }

    /// The error of an answer that is not 2xx.
    async fn failure(&self, answer: Answer) -> VendorError {
        let Answer { status, headers, body } = answer;
        let body = body.beginning(MAX_ERROR_BYTES).await;
        let body = String::from_utf8_lossy(&body);
        let failure = Failure { status: Some(status.as_u16()), headers: &headers, body: &body };
        let error = self.dialect.failure(failure, self.clock.now());
        self.labels(&headers).add_to(error)
    }

    pub(crate) fn labels(&self, headers: &HeaderMap) -> Labels {
        let names = self.dialect.request_id_headers().iter();
        let mut ids = names.filter_map(|name| headers.get(*name)?.to_str().ok());
        let id = ids.find(|id| !id.is_empty()).map(|id| shorten(id, 200));
        Labels { auth: Arc::clone(&self.auth), request_id: id }
    }

    fn redacted(&self, mut error: VendorError) -> VendorError {
        self.auth.redact(&mut error.error.message);
        error
    }
}

/// What an adapter does to every error of one exchange.
#[derive(Debug)]
pub(crate) struct Labels {
    auth: Arc<dyn Authorize>,
    /// From the head of the answer.
    request_id: Option<String>,
}

impl Labels {
    /// Adds the vendor's id of the request, and takes our secrets out of the vendor's words: some
    /// servers repeat them.
    pub(crate) fn add_to(&self, mut error: VendorError) -> VendorError {
        let own = &mut error.error;
        if self.request_id.is_some() {
            own.vendor_request_id.clone_from(&self.request_id);
        }
        let others = [&mut own.vendor_code, &mut own.vendor_request_id];
        for words in others.into_iter().flatten().chain([&mut own.message]) {
            self.auth.redact(words);
        }
        error
    }
}

#[async_trait]
impl<D: Dialect> Adapter for Remote<D> {
    async fn call(&self, call: &Call) -> Result<Reply, VendorError> {
        let route = self.route(call)?;
        let request = self.dialect.request(call, route, Mode::Whole)?;
        let Answer { headers, body, .. } = self.send(request).await?;
        let labels = self.labels(&headers);
        let read = body.whole(&call.memory).await;
        let now = self.clock.now();
        match read.and_then(|body| self.dialect.parse(route, &headers, body, now)) {
            Ok(Parsed { response, usage, request_id }) => {
                let vendor_request_id = labels.request_id.or(request_id);
                Ok(Reply { response, usage, vendor_request_id })
            }
            Err(error) => Err(labels.add_to(error)),
        }
    }

    async fn stream(&self, call: &Call) -> Result<Chunks, VendorError> {
        let route = self.route(call)?;
        if !route::can_be_streamed(self.dialect.vendor(), route) {
            let vendor = self.dialect.vendor();
            return Err(invalid(format!("{vendor}: '{route}' cannot be streamed")));
        }
        let request = self.dialect.request(call, route, Mode::Stream)?;
        let Answer { headers, body, .. } = self.send(request).await?;
        let labels = self.labels(&headers);
        let Some((framing, follow)) = self.dialect.follow(route, &headers) else {
            let read = body.whole(&call.memory).await;
            let now = self.clock.now();
            let error = match read.and_then(|body| self.dialect.parse(route, &headers, body, now)) {
                Err(error) => error,
                Ok(Parsed { response, usage, .. }) => {
                    let why = "it is whole, not a stream";
                    VendorError { usage, ..json::unusable(&headers, response.as_str(), why) }
                }
            };
            return Err(labels.add_to(error));
        };
        let decoder = framing.decoder(body.max_bytes());
        let clock = Arc::clone(&self.clock);
        Ok(Streaming::new(body, decoder, follow, self.idle_timeout, labels, clock).chunks())
    }

    fn assemble(&self, call: &Call) -> Box<dyn Assemble> {
        match self.route(call) {
            Ok(route) => self.dialect.assemble(route),
            // Such a call has no stream.
            Err(_) => Box::new(Collected::default()),
        }
    }
}
