//! The plainest HTTP client there is, so that measuring costs little.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

/// Sends requests over kept connections; each bounded in time.
#[derive(Clone)]
pub struct HttpClient {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
    key: Option<String>,
}

impl HttpClient {
    pub fn new(base: &str, key: Option<String>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { client, base: base.trim_end_matches('/').to_owned(), key }
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        prefer: Option<&str>,
        body: Bytes,
    ) -> anyhow::Result<Response<Bytes>> {
        let exchange = async {
            let (head, body) = self.open(method, path, prefer, body).await?.into_parts();
            anyhow::Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
        };
        tokio::time::timeout(Duration::from_secs(60), exchange)
            .await
            .with_context(|| format!("no answer from {}{path} within 60 s", self.base))?
    }

    /// As [`Self::send`], with the body still to be read and no bound in time.
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        prefer: Option<&str>,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        let uri: Uri = format!("{}{path}", self.base).parse()?;
        let mut request =
            Request::builder().method(method).uri(uri).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("x-api-key", key);
        }
        if let Some(prefer) = prefer {
            request = request.header("prefer", prefer);
        }
        Ok(self.client.request(request.body(Full::new(body))?).await?)
    }
}
