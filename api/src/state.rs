//! What all handlers share.

use std::{ops::Deref, sync::Arc};

use crate::{
    Api,
    auth::{self, Keys},
};

/// The parts of the api process, shared by all requests.
#[derive(Debug, Clone)]
pub struct AppState(Arc<Shared>);

/// Reached through [`AppState`].
#[derive(Debug)]
pub struct Shared {
    pub api: Api,
    pub(crate) keys: Keys,
}

impl AppState {
    pub(crate) fn new(api: Api) -> Self {
        Self(Arc::new(Shared { api, keys: auth::keys() }))
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
