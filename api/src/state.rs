//! What all handlers share.

use std::{ops::Deref, sync::Arc};

use inferq_common::{json_schema::Schemas, shutdown::Shutdown};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Api,
    auth::{self, Keys},
    catalogue::Catalogue,
    extract::SHARE_BYTES,
    stream::places::Places,
};

/// What the bodies of requests may take together, from their first byte until their job is stored:
/// as many small ones as come, a dozen of the largest.
const MAX_BODIES_BYTES: usize = 256 * 1024 * 1024;

/// The parts of the api process, shared by all requests.
#[derive(Debug, Clone)]
pub struct AppState(Arc<Shared>);

/// Reached through [`AppState`].
#[derive(Debug)]
pub struct Shared {
    /// What the process gave the api; its members are reached directly: `state.store`.
    pub api: Api,
    pub catalogue: Catalogue,
    /// Of registered models.
    pub(crate) schemas: Schemas,
    pub shutdown: Shutdown,
    pub(crate) keys: Keys,
    /// Work that must end even if its caller goes away.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when callers that still wait must be given up.
    pub(crate) closing: CancellationToken,
    pub(crate) requests: Arc<Semaphore>,
    pub(crate) streams: Places,
    /// In units of [`SHARE_BYTES`].
    pub(crate) bodies: Arc<Semaphore>,
}

impl AppState {
    pub(crate) fn new(api: Api, shutdown: Shutdown) -> Self {
        let requests = api.config.max_concurrent_requests.min(Semaphore::MAX_PERMITS);
        let bodies = api.config.max_body_bytes.max(MAX_BODIES_BYTES);
        Self(Arc::new(Shared {
            catalogue: Catalogue::new(),
            schemas: Schemas::default(),
            keys: auth::keys(),
            tasks: TaskTracker::new(),
            closing: shutdown.hard.child_token(),
            requests: Arc::new(Semaphore::new(requests)),
            streams: Places::new(api.config.max_streams_per_account),
            bodies: Arc::new(Semaphore::new(bodies.div_ceil(SHARE_BYTES))),
            shutdown,
            api,
        }))
    }
}

impl Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Deref for Shared {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}
