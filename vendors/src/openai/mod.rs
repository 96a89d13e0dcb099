//! OpenAI, and every server that speaks its HTTP API.
//!
//! Source: <https://platform.openai.com/docs/api-reference>.

mod chunks;
mod classify;
mod convert;
mod stream;
mod wire;

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{
    HeaderMap, HeaderValue,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use inferq_common::{
    clock::Clock, config::VendorConfig, error::ErrorClass, job::Route, route::openai_route,
};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use self::{
    chunks::{Source, Streaming},
    classify::Failure,
    convert::{Mode, Parsed},
    stream::Reader,
};
use crate::{
    Adapter, Call, Chunks, Reply,
    error::{VendorError, shorten},
    http::{Answer, Http},
    sse::Decoder,
};

/// What is read of the body of a failure.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// A shorter key is a placeholder such as `EMPTY`, which self-hosted servers are given.
const MIN_SECRET_BYTES: usize = 8;

/// Calls an OpenAI-compatible server: chat completions, completions, embeddings, responses.
///
/// `args` go out and the response comes back byte for byte; only `model`, and `stream` with its
/// options, are the adapter's. Waits that the vendor asks for are taken from `clock`.
pub struct OpenAi {
    http: Http,
    base_url: Url,
    api_key: Option<SecretString>,
    headers: HeaderMap,
    idle_timeout: Duration,
    clock: Arc<dyn Clock>,
}

/// Only the host: an address may carry a password or a key in its query.
impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAi").field("host", &self.base_url.host_str()).finish_non_exhaustive()
    }
}

impl OpenAi {
    /// An adapter for the server that `config` names, OpenAI's own by default.
    ///
    /// # Errors
    /// A sentence for an operator: which setting is at fault, or that TLS cannot be set up.
    pub fn new(config: &VendorConfig, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let base_url = match &config.base_url {
            Some(url) => url.clone(),
            None => Url::parse(wire::BASE_URL).map_err(|error| format!("base_url: {error}"))?,
        };
        let key = config.api_key.as_ref().map(|key| key.expose_secret().trim());
        let key = key.filter(|key| !key.is_empty());
        Ok(Self {
            http: Http::new(&base_url, config)?,
            base_url,
            headers: headers(key)?,
            api_key: key.map(SecretString::from),
            idle_timeout: Duration::from_millis(config.idle_timeout_ms),
            clock,
        })
    }

    /// Sends a call and answers once a 2xx head is there.
    async fn send(&self, call: &Call, route: Route, mode: Mode) -> Result<Answer, VendorError> {
        let body = convert::request_body(call.args.as_str(), &call.model, route, mode)
            .map_err(|error| invalid(format!("args: {error}")))?;
        let mut headers = self.headers.clone();
        headers.insert(
            ACCEPT,
            HeaderValue::from_static(match mode {
                Mode::Whole => "application/json",
                Mode::Stream => "text/event-stream",
            }),
        );
        let answer = self.http.post(self.url(route), headers, body).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(self.failure(answer).await) }
    }

    fn url(&self, route: Route) -> Url {
        let mut url = self.base_url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(wire::path(route));
        }
        url
    }

    /// The error of an answer that is not 2xx.
    async fn failure(&self, answer: Answer) -> VendorError {
        let Answer { status, headers, body } = answer;
        let body = body.beginning(MAX_ERROR_BYTES).await;
        let body = String::from_utf8_lossy(&body);
        let failure = Failure { status: Some(status.as_u16()), headers: &headers, body: &body };
        self.labels(&headers).add_to(failure.into_error(self.clock.now()))
    }

    fn labels(&self, headers: &HeaderMap) -> Labels {
        let id = headers.get("x-request-id").and_then(|id| id.to_str().ok());
        let request_id = id.filter(|id| !id.is_empty()).map(|id| shorten(id, 200));
        Labels { api_key: self.api_key.clone(), request_id }
    }
}

/// What an adapter does to every error of one exchange.
struct Labels {
    api_key: Option<SecretString>,
    request_id: Option<String>,
}

impl Labels {
    /// Adds the vendor's id of the request, and takes our key out of the vendor's words: some
    /// servers repeat it.
    fn add_to(&self, mut error: VendorError) -> VendorError {
        let key = self.api_key.as_ref().map(SecretString::expose_secret);
        if let Some(key) = key.filter(|key| key.len() >= MIN_SECRET_BYTES) {
            error.error.message = error.error.message.replace(key, "***");
        }
        error.error.vendor_request_id.clone_from(&self.request_id);
        error
    }
}

#[async_trait]
impl Adapter for OpenAi {
    async fn call(&self, call: &Call) -> Result<Reply, VendorError> {
        let route = route(call)?;
        let Answer { headers, body, .. } = self.send(call, route, Mode::Whole).await?;
        let labels = self.labels(&headers);
        let read = body.whole().await;
        match read.and_then(|body| convert::parse(route, &headers, body, self.clock.now())) {
            Ok(Parsed { response, usage }) => {
                Ok(Reply { response, usage, vendor_request_id: labels.request_id })
            }
            Err(error) => Err(labels.add_to(error)),
        }
    }

    async fn stream(&self, call: &Call) -> Result<Chunks, VendorError> {
        let route = route(call)?;
        if route == Route::Embeddings {
            return Err(invalid("embeddings cannot be streamed".to_owned()));
        }
        let Answer { headers, body, .. } = self.send(call, route, Mode::Stream).await?;
        let labels = self.labels(&headers);
        if !convert::may_be_events(&headers) {
            let read = body.whole().await;
            let error = read.map_or_else(
                |error| error,
                |body| convert::whole_for_stream(route, &headers, body, self.clock.now()),
            );
            return Err(labels.add_to(error));
        }
        let streaming = Streaming {
            decoder: Decoder::new(body.max_bytes()),
            source: Source::Body(body),
            events: VecDeque::new(),
            reader: Reader::new(route),
            idle_timeout: self.idle_timeout,
            labels,
            clock: Arc::clone(&self.clock),
        };
        Ok(streaming.chunks())
    }
}

fn route(call: &Call) -> Result<Route, VendorError> {
    openai_route(call.args.as_str(), &call.model, call.route)
        .map_err(|error| invalid(error.to_string()))
}

fn invalid(message: String) -> VendorError {
    VendorError::new(ErrorClass::InvalidRequest, message)
}

/// The headers of every call.
fn headers(key: Option<&str>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(key) = key {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {key}"))
            .map_err(|_| "api_key: holds characters that no HTTP header can carry".to_owned())?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
    }
    Ok(headers)
}
