//! One POST to a URL that a client chose.

use std::{error::Error as _, sync::Arc, time::Duration};

use bytes::Bytes;
use inferq_common::{
    egress::{EgressError, Guard},
    tls,
};
use reqwest::{
    dns::{Addrs, Name, Resolve, Resolving},
    header::HeaderMap,
};
use tracing::warn;

/// How much of an answer is read so that the receiver can finish writing it; nobody looks at it.
const MAX_DRAINED_BYTES: usize = 64 * 1024;

/// How long that may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Longer causes are cut.
const MAX_CAUSE_CHARS: usize = 300;

/// Why there was no answer. The texts are shown to the client.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    #[error(transparent)]
    Refused(#[from] EgressError),
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("TLS failed: {0}")]
    Tls(String),
    #[error("no connection: {0}")]
    NoConnection(String),
    #[error("no answer: {0}")]
    NoAnswer(String),
}

/// Posts to clients' URLs, and only where the guard lets it.
///
/// One HTTP client serves all. Its resolver is the guard, so a connection can only be made to
/// addresses that were looked up and checked for it. Connections are not kept: a second attempt must
/// be looked up and checked anew, and a receiver that closes an idle one must not cost an attempt.
#[derive(Debug, Clone)]
pub(super) struct Poster {
    client: reqwest::Client,
    guard: Arc<Guard>,
    timeout: Duration,
}

impl Poster {
    /// `timeout` bounds one POST, from name resolution to the answer's status.
    ///
    /// # Errors
    /// If the HTTP client cannot be made.
    pub(super) fn new(guard: Arc<Guard>, timeout: Duration) -> reqwest::Result<Self> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Fails when another task was faster with the same one.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let client = client(&guard).build().or_else(|error| {
            // A slim image may come without any; plain http can still be served.
            warn!(%error, "no root certificates: callbacks to https:// will fail");
            client(&guard).tls_certs_only([]).build()
        })?;
        Ok(Self { client, guard, timeout })
    }

    /// Posts `body` and answers the receiver's status.
    pub(super) async fn post(
        &self,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<u16, PostError> {
        // The resolver is not asked about literal addresses: they are judged here.
        let url = self.guard.check_url(url)?;
        let request = self.client.post(url).headers(headers).body(body).send();
        let response = match tokio::time::timeout(self.timeout, request).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(explain(&error)),
            Err(_) => return Err(PostError::TimedOut(self.timeout)),
        };
        let status = response.status().as_u16();
        // The status has decided; whatever becomes of the rest changes nothing.
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, drain(response)).await;
        Ok(status)
    }
}

fn client(guard: &Arc<Guard>) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("inferq/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(GuardedResolver(Arc::clone(guard)))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .no_gzip()
        .http1_only()
        .pool_max_idle_per_host(0)
        .tcp_nodelay(true)
}

struct GuardedResolver(Arc<Guard>);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = Arc::clone(&self.0);
        Box::pin(async move {
            // Port 0 stands for the URL's own.
            let addresses = guard.resolve_name(name.as_str(), 0).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

async fn drain(mut response: reqwest::Response) {
    let mut n_bytes = 0;
    while n_bytes < MAX_DRAINED_BYTES {
        match response.chunk().await {
            Ok(Some(chunk)) => n_bytes += chunk.len(),
            Ok(None) | Err(_) => return,
        }
    }
}

/// Finds the cause that says something, and leaves out the URL.
fn explain(error: &reqwest::Error) -> PostError {
    if let Some(tls) = tls::error_in(error) {
        return PostError::Tls(shortened(&tls::words(tls)));
    }
    let mut cause = String::new();
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(refusal) = inner.downcast_ref::<EgressError>() {
            return PostError::Refused(refusal.clone());
        }
        cause = inner.to_string();
        source = inner.source();
    }
    let cause = shortened(&cause);
    if error.is_connect() { PostError::NoConnection(cause) } else { PostError::NoAnswer(cause) }
}

fn shortened(cause: &str) -> String {
    cause.chars().take(MAX_CAUSE_CHARS).collect()
}
