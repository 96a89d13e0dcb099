//! Launch: models in containers, behind Scale's gateway or called directly.
//!
//! Source: <https://github.com/scaleapi/launch-python-client>.

mod asynchronous;
mod convert;
mod stream;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use http::{
    HeaderMap, HeaderValue, Method,
    header::{ACCEPT, CONTENT_TYPE},
};
use inferq_common::{clock::Clock, config::VendorConfig, job::Route, vendor::Vendor};
use url::Url;

use crate::{
    Adapter, Assemble, Call, Chunks, Progress, Reply, assemble,
    auth::{Key, or_missing},
    error::VendorError,
    framing::Framing,
    json,
    remote::{
        Dialect, Failure, Follow, Mode, Parsed, Remote, Request, base_headers, base_url, below,
        http::Clients,
    },
};

/// Which of Launch's two faces is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Face {
    /// The gateway: the model's name is an endpoint's id; `args` travel inside a task.
    Gateway,
    /// A container: `args` go out and the answer comes back bare.
    Container,
}

/// Speaks to a Launch server.
#[derive(Debug)]
pub struct Launch {
    base_url: Url,
    headers: HeaderMap,
    face: Face,
}

/// Calls Launch models: synchronously, as a stream, or as an asynchronous task that is asked for
/// until it is done.
#[derive(Debug)]
pub struct LaunchAdapter(pub(crate) Remote<Launch>);

/// An adapter for the server that `config` names, Scale's hosted gateway by default.
///
/// # Errors
/// A sentence for an operator: which setting is at fault, or that TLS cannot be set up.
pub fn adapter(
    config: &VendorConfig,
    clients: &Clients,
    clock: Arc<dyn Clock>,
) -> Result<LaunchAdapter, String> {
    let face = match config.api.as_deref() {
        None | Some("gateway") => Face::Gateway,
        Some("direct") => Face::Container,
        Some(_) => return Err("api: must be 'gateway' or 'direct'".to_owned()),
    };
    let base_url = base_url(config, wire::BASE_URL)?;
    let key = Key::basic(config.api_key.as_ref())?;
    let auth = or_missing(key, Vendor::Launch, config, wire::NO_KEY);
    let http = clients.http(&base_url, config)?;
    let dialect = Launch { base_url, headers: base_headers(config)?, face };
    Ok(LaunchAdapter(Remote::new(dialect, http, auth, config, clock)))
}

#[async_trait]
impl Adapter for LaunchAdapter {
    async fn call(&self, call: &Call) -> Result<Reply, VendorError> {
        if self.is_task(call)? {
            asynchronous::run(&self.0, call).await
        } else {
            self.0.call(call).await
        }
    }

    async fn advance(&self, call: &Call, ticket: Option<&str>) -> Result<Progress, VendorError> {
        if self.is_task(call)? {
            asynchronous::advance(&self.0, call, ticket).await
        } else {
            self.0.call(call).await.map(Progress::Done)
        }
    }

    async fn stream(&self, call: &Call) -> Result<Chunks, VendorError> {
        self.0.stream(call).await
    }

    fn assemble(&self, call: &Call) -> Box<dyn Assemble> {
        self.0.assemble(call)
    }
}

impl LaunchAdapter {
    /// Whether the call starts an asynchronous task.
    fn is_task(&self, call: &Call) -> Result<bool, VendorError> {
        let Self(remote) = self;
        let is_gateway = remote.dialect().face == Face::Gateway;
        Ok(is_gateway && remote.route(call)? == Route::AsyncTask)
    }
}

impl Launch {
    fn url(&self, path: &[&str]) -> Url {
        below(&self.base_url, path)
    }

    fn plain(&self, method: Method, url: Url, mode: Mode, body: String) -> Request {
        let mut headers = self.headers.clone();
        if method == Method::POST {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        headers.insert(ACCEPT, mode.accept());
        Request { method, url, headers, body: body.into() }
    }
}

impl Dialect for Launch {
    fn vendor(&self) -> Vendor {
        Vendor::Launch
    }

    fn request(&self, call: &Call, route: Route, mode: Mode) -> Result<Request, VendorError> {
        let args = call.args.as_str();
        let (url, body) = match self.face {
            Face::Container => (self.url(wire::container_path(mode)), args.to_owned()),
            Face::Gateway => {
                let mut url = self.url(wire::gateway_path(route, mode));
                url.query_pairs_mut().append_pair("model_endpoint_id", &call.model);
                (url, convert::task(args, route, call.timeout))
            }
        };
        Ok(self.plain(Method::POST, url, mode, body))
    }

    fn parse(
        &self,
        _: Route,
        headers: &HeaderMap,
        body: Vec<u8>,
        _: DateTime<Utc>,
    ) -> Result<Parsed, VendorError> {
        let text = json::text(headers, body)?;
        match self.face {
            Face::Container => convert::bare(headers, text),
            Face::Gateway => convert::finished(headers, &text),
        }
    }

    fn follow(&self, _: Route, headers: &HeaderMap) -> Option<(Framing, Box<dyn Follow>)> {
        json::may_be_events(headers)
            .then(|| (Framing::Events, Box::new(stream::Reader::new(self.face)) as Box<dyn Follow>))
    }

    fn assemble(&self, _: Route) -> Box<dyn Assemble> {
        match self.face {
            Face::Gateway => assemble::tasks(),
            Face::Container => assemble::container(),
        }
    }

    fn failure(&self, failure: Failure<'_>, now: DateTime<Utc>) -> VendorError {
        convert::failure(failure, now)
    }
}
