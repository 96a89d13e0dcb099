//! The one HTTP client: bounded in what it connects to, keeps and reads, and clear about what broke.

mod failure;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use inferq_common::{
    config::{ProxyUrl, VendorConfig},
    error::ErrorClass,
};
use reqwest::{Client, Proxy, Url, redirect};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use self::failure::{Stage, explain};
use super::Request;
use crate::{Share, error::VendorError};

/// Idle connections kept to one vendor; the worker's default concurrency.
const MAX_IDLE_CONNECTIONS: usize = 128;
/// Below the 60 s after which common load balancers drop an idle connection.
const MAX_IDLE: Duration = Duration::from_secs(50);
/// A vendor may think for minutes without a word; what lies between must not forget the connection.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// No more of a body than this is allocated on the word of its length header.
const MAX_PREALLOCATED_BYTES: usize = 1 << 20;
/// From so many hosts on those that nothing is connected to are forgotten.
const MANY_HOSTS: usize = 256;

/// The connections of a process: vendors with the same settings share a pool. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Clients(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    pools: Mutex<HashMap<Settings, Client>>,
    hosts: Hosts,
}

/// A host (`host:port`) and the bound it is called under.
type Peer = (Arc<str>, usize);

/// Bounds the connections to each host, whichever key or model they are for: an account's own key
/// opens no door to more of them.
#[derive(Debug, Default)]
struct Hosts(Mutex<HashMap<Peer, Weak<Semaphore>>>);

impl Hosts {
    /// The permits of `peer` (`host:port`) under the bound `max`, for as long as one is held or
    /// waited for.
    fn permits(&self, peer: &Arc<str>, max: usize) -> Arc<Semaphore> {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::clone(peer), max);
        if let Some(permits) = hosts.get(&key).and_then(Weak::upgrade) {
            return permits;
        }
        if hosts.len() >= MANY_HOSTS {
            hosts.retain(|_, permits| permits.strong_count() > 0);
        }
        let permits = Arc::new(Semaphore::new(max));
        hosts.insert(key, Arc::downgrade(&permits));
        permits
    }
}

/// What two vendors must have in common to share a pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Settings {
    connect_timeout: Duration,
    proxy: Option<ProxyUrl>,
    /// Nothing is reached over TLS.
    is_plain: bool,
}

impl Clients {
    /// A way to `base_url` within the limits of `config`.
    ///
    /// # Errors
    /// A sentence for an operator: the machine's root certificates cannot be read. They are only
    /// read where TLS is needed.
    pub fn http(&self, base_url: &Url, config: &VendorConfig) -> Result<Http, String> {
        let is_plain = |url: &Url| url.scheme() == "http";
        let settings = Settings {
            connect_timeout: Duration::from_millis(config.connect_timeout_ms),
            proxy: config.proxy.clone(),
            is_plain: is_plain(base_url)
                && config.proxy.as_ref().is_none_or(|proxy| is_plain(proxy.expose())),
        };
        let mut pools = self.0.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let client = match pools.get(&settings) {
            Some(client) => client.clone(),
            None => client(&settings)?,
        };
        let connect_timeout = settings.connect_timeout;
        pools.insert(settings, client.clone());
        Ok(Http {
            client,
            connect_timeout,
            first_byte_timeout: config.first_byte_timeout_ms.map(Duration::from_millis),
            max_response_bytes: config.max_response_bytes,
            max_connections: config.max_connections,
            shared: Arc::clone(&self.0),
        })
    }
}

fn client(settings: &Settings) -> Result<Client, String> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Someone else may be first; any provider will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let mut builder = Client::builder()
        .user_agent(concat!("inferq/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(settings.connect_timeout)
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
    if let Some(proxy) = &settings.proxy {
        let proxy = Proxy::all(proxy.expose().clone())
            .map_err(|error| format!("proxy: {}", failure::root_cause(&error)))?;
        builder = builder.proxy(proxy);
    }
    if settings.is_plain {
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| {
        format!(
            "cannot set up TLS ({}); install the system's root certificates (ca-certificates)",
            failure::root_cause(&error)
        )
    })
}

/// A client for one vendor.
///
/// It follows no redirect and uses no proxy but the configured one. Beyond the timeouts for
/// connecting and for the head of an answer it sets none: its caller drops the future when time is
/// up, and that closes the socket.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client,
    connect_timeout: Duration,
    first_byte_timeout: Option<Duration>,
    max_response_bytes: usize,
    /// Of each host, together with whoever else calls it under the same bound.
    max_connections: usize,
    shared: Arc<Shared>,
}

impl Http {
    /// Sends a request and answers when the head of the response is there, whatever its status.
    ///
    /// **Cancel safe:** dropping the future closes the socket.
    ///
    /// # Errors
    /// `Transient` if no response came; the message names host and port, never the path or query.
    pub async fn send(&self, request: Request) -> Result<Answer, VendorError> {
        let peer: Arc<str> = peer(&request.url).into();
        // It is never closed, so that there always is one.
        let permits = self.shared.hosts.permits(&peer, self.max_connections);
        let connection = permits.acquire_owned().await.ok();
        let Request { method, url, headers, body } = request;
        let sent = self.client.request(method, url).headers(headers).body(body).send();
        let sent = match self.first_byte_timeout {
            None => sent.await,
            Some(limit) => timeout(limit, sent).await.map_err(|_| {
                let message = format!("{peer} sent no answer within {limit:?}");
                VendorError::new(ErrorClass::Transient, message)
            })?,
        };
        let response = sent.map_err(|error| {
            explain(&error, Stage::Head { connect_timeout: self.connect_timeout }, &peer)
        })?;
        let max_bytes = self.max_response_bytes;
        Ok(Answer {
            status: response.status(),
            headers: response.headers().clone(),
            body: Body { response, peer, n_bytes: 0, max_bytes, _connection: connection },
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

/// A body as it arrives, decompressed. Dropping it before its end closes the socket.
#[derive(Debug)]
pub struct Body {
    response: reqwest::Response,
    peer: Arc<str>,
    n_bytes: usize,
    max_bytes: usize,
    _connection: Option<OwnedSemaphorePermit>,
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

    /// The whole body, read as far as `memory` gives leave.
    ///
    /// # Errors
    /// As [`Body::next`]; `ResponseTooLarge` at once where the head already tells the size.
    pub async fn whole(mut self, memory: &Share) -> Result<Vec<u8>, VendorError> {
        let announced = self.response.content_length().unwrap_or(0);
        let announced = usize::try_from(announced).unwrap_or(usize::MAX);
        if announced > self.max_bytes {
            return Err(self.too_large());
        }
        let mut whole = Vec::with_capacity(announced.min(MAX_PREALLOCATED_BYTES));
        while let Some(part) = self.next().await? {
            whole.extend_from_slice(&part);
            memory.grow_to(whole.len().max(announced)).await;
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
