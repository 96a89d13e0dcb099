//! The one HTTP client: bounded in what it connects to, keeps and reads, and clear about what broke.

mod failure;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use inferq_common::{config::VendorConfig, error::ErrorClass};
use reqwest::{Client, Url, redirect};

use self::failure::{Stage, explain};
use crate::error::VendorError;

/// Idle connections kept to one vendor; the worker's default concurrency.
const MAX_IDLE_CONNECTIONS: usize = 128;
/// Below the 60 s after which common load balancers drop an idle connection.
const MAX_IDLE: Duration = Duration::from_secs(50);
/// A vendor may think for minutes without a word; what lies between must not forget the connection.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// No more of a body than this is allocated on the word of its length header.
const MAX_PREALLOCATED_BYTES: usize = 1 << 20;

/// A client for one vendor.
///
/// It follows no redirect and uses no proxy. It sets no timeout but the one for connecting: its
/// caller drops the future when time is up, and that closes the socket.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client,
    connect_timeout: Duration,
    max_response_bytes: usize,
}

impl Http {
    /// A client for calls to `base_url` within the limits of `config`.
    ///
    /// # Errors
    /// A sentence for an operator: the machine's root certificates cannot be read. They are only
    /// read where `base_url` needs TLS.
    pub fn new(base_url: &Url, config: &VendorConfig) -> Result<Self, String> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Someone else may be first; any provider will do.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let connect_timeout = Duration::from_millis(config.connect_timeout_ms);
        let mut builder = Client::builder()
            .user_agent(concat!("inferq/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(connect_timeout)
            // One call, one socket: over HTTP/2 long calls would queue behind the bound of streams
            // that a vendor sets on its one connection.
            .http1_only()
            .tcp_nodelay(true)
            .tcp_keepalive(KEEPALIVE)
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .pool_idle_timeout(MAX_IDLE)
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy();
        if base_url.scheme() == "http" {
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|error| {
            format!(
                "cannot set up TLS ({}); install the system's root certificates (ca-certificates)",
                failure::root_cause(&error)
            )
        })?;
        Ok(Self { client, connect_timeout, max_response_bytes: config.max_response_bytes })
    }

    /// Posts `body` and answers when the head of the response is there, whatever its status.
    ///
    /// **Cancel safe:** dropping the future closes the socket.
    ///
    /// # Errors
    /// `Transient` if no response came; the message names host and port, never the path or query.
    pub async fn post(
        &self,
        url: Url,
        headers: HeaderMap,
        body: String,
    ) -> Result<Answer, VendorError> {
        let peer: Arc<str> = peer(&url).into();
        let sent = self.client.post(url).headers(headers).body(body).send().await;
        let response = sent.map_err(|error| {
            explain(&error, Stage::Head { connect_timeout: self.connect_timeout }, &peer)
        })?;
        Ok(Answer {
            status: response.status(),
            headers: response.headers().clone(),
            body: Body { response, peer, n_bytes: 0, max_bytes: self.max_response_bytes },
        })
    }
}

/// `host:port`, as messages name a vendor's server.
fn peer(url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or(0);
    format!("{}:{port}", url.host_str().unwrap_or_default())
}

/// The head of a response, and its body still to be read.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
}

impl Answer {
    /// The text of a header, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A body as it arrives, decompressed. Dropping it before its end closes the socket.
#[derive(Debug)]
pub struct Body {
    response: reqwest::Response,
    peer: Arc<str>,
    n_bytes: usize,
    max_bytes: usize,
}

impl Body {
    /// The next part, or `None` at the end.
    ///
    /// **Cancel safe.**
    ///
    /// # Errors
    /// `ResponseTooLarge` once more than the configured bytes have come, counted after
    /// decompression; `Transient` if the connection broke; `Protocol` if the compression did.
    pub async fn next(&mut self) -> Result<Option<Bytes>, VendorError> {
        let part = match self.response.chunk().await {
            Ok(part) => part,
            Err(error) => return Err(explain(&error, Stage::Body, &self.peer)),
        };
        self.n_bytes += part.as_ref().map_or(0, Bytes::len);
        if self.n_bytes > self.max_bytes { Err(self.too_large()) } else { Ok(part) }
    }

    /// The whole body.
    ///
    /// # Errors
    /// As [`Body::next`]; `ResponseTooLarge` at once where the head already tells the size.
    pub async fn whole(mut self) -> Result<Vec<u8>, VendorError> {
        let announced = self.response.content_length().unwrap_or(0);
        let announced = usize::try_from(announced).unwrap_or(usize::MAX);
        if announced > self.max_bytes {
            return Err(self.too_large());
        }
        let mut whole = Vec::with_capacity(announced.min(MAX_PREALLOCATED_BYTES));
        while let Some(part) = self.next().await? {
            whole.extend_from_slice(&part);
        }
        Ok(whole)
    }

    /// At most `max` bytes from the beginning, and what came before the connection broke: enough
    /// to say what an error was about.
    pub async fn beginning(mut self, max: usize) -> Vec<u8> {
        let mut beginning = Vec::new();
        while beginning.len() < max {
            let Ok(Some(part)) = self.next().await else { break };
            beginning.extend_from_slice(&part[..part.len().min(max - beginning.len())]);
        }
        beginning
    }

    /// What [`Body::next`] hands out at most, all parts together.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    fn too_large(&self) -> VendorError {
        VendorError::new(
            ErrorClass::ResponseTooLarge,
            format!(
                "the answer of {} is larger than {} bytes (max_response_bytes of the vendor)",
                self.peer, self.max_bytes
            ),
        )
    }
}
