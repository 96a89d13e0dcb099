//! Lends AWS's crates our HTTP client.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        http::{
            HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings,
            SharedHttpConnector,
        },
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use inferq_common::config::VendorConfig;
use tokio::time::timeout;
use url::Url;

use crate::{
    Share,
    remote::{
        Request,
        http::{Clients, Http},
    },
};

/// Keys have a few kilobytes.
const MAX_RESPONSE_BYTES: usize = 1 << 20;
/// Where the caller sets none. Places that hand out keys answer within a second.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends the requests by which keys are fetched.
///
/// Those over plain HTTP go to the machine itself or its host and never through a proxy.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    shared: Arc<Shared>,
    timeout: Duration,
}

#[derive(Debug)]
struct Shared {
    proxied: VendorConfig,
    direct: VendorConfig,
    /// Made on first use: TLS reads the machine's root certificates.
    https: OnceLock<Result<Http, String>>,
    http: OnceLock<Result<Http, String>>,
    /// Of the last answer; 0 before the first.
    last_status: AtomicU16,
}

impl Connector {
    pub(super) fn new(config: &VendorConfig) -> Self {
        let direct = VendorConfig {
            connect_timeout_ms: config.connect_timeout_ms,
            max_response_bytes: MAX_RESPONSE_BYTES,
            max_connections: 8,
            ..VendorConfig::default()
        };
        let proxied = VendorConfig { proxy: config.proxy.clone(), ..direct.clone() };
        let shared = Shared {
            proxied,
            direct,
            https: OnceLock::new(),
            http: OnceLock::new(),
            last_status: AtomicU16::new(0),
        };
        Self { shared: Arc::new(shared), timeout: TIMEOUT }
    }

    /// The status of the last answer since [`Connector::forget_status`].
    pub(super) fn last_status(&self) -> Option<u16> {
        Some(self.shared.last_status.load(Ordering::Relaxed)).filter(|status| *status != 0)
    }

    pub(super) fn forget_status(&self) {
        self.shared.last_status.store(0, Ordering::Relaxed);
    }

    fn client(&self, url: &Url) -> Result<Http, ConnectorError> {
        let shared = &self.shared;
        let (client, config) = if url.scheme() == "http" {
            (&shared.http, &shared.direct)
        } else {
            (&shared.https, &shared.proxied)
        };
        let client = client.get_or_init(|| Clients::default().http(url, config));
        client.clone().map_err(|reason| ConnectorError::user(reason.into()))
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request = request.try_into_http1x().map_err(unusable)?;
        let (head, body) = request.into_parts();
        let Some(body) = body.bytes() else {
            return Err(ConnectorError::user("a body that is streamed".into()));
        };
        let url: Url = head.uri.to_string().parse().map_err(unusable)?;
        let client = self.client(&url)?;
        let body = Bytes::copy_from_slice(body);
        let request = Request { method: head.method, url, headers: head.headers, body };
        let answered = async {
            let answer = client.send(request).await?;
            Ok((answer.status, answer.headers, answer.body.whole(&Share::default()).await?))
        };
        let (status, headers, body) = timeout(self.timeout, answered)
            .await
            .map_err(|late| ConnectorError::timeout(late.into()))?
            .map_err(|error: crate::VendorError| ConnectorError::io(error.into()))?;
        self.shared.last_status.store(status.as_u16(), Ordering::Relaxed);
        let mut response = http::Response::new(SdkBody::from(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        HttpResponse::try_from(response).map_err(unusable)
    }
}

fn unusable(error: impl Into<BoxError>) -> ConnectorError {
    ConnectorError::user(error.into())
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let connector = self.clone();
        HttpConnectorFuture::new(async move { connector.send(request).await })
    }
}

impl HttpClient for Connector {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let limits = [settings.connect_timeout(), settings.read_timeout()];
        let limits: Vec<Duration> = limits.into_iter().flatten().collect();
        let timeout = if limits.is_empty() { TIMEOUT } else { limits.iter().sum() };
        SharedHttpConnector::new(Self { timeout, ..self.clone() })
    }
}
