//! This process as the others know it.

use std::sync::{Arc, RwLock};

use crate::id::InstanceId;

/// The id this process has at present. It changes when the process finds itself lost and registers
/// anew.
#[derive(Debug, Clone)]
pub struct CurrentInstance(Arc<RwLock<InstanceId>>);

impl CurrentInstance {
    pub fn new(id: InstanceId) -> Self {
        Self(Arc::new(RwLock::new(id)))
    }

    pub fn id(&self) -> InstanceId {
        *self.0.read().expect("no one panics while holding the id")
    }

    /// Takes a new id, registered with the store already.
    pub fn replace(&self, id: InstanceId) {
        *self.0.write().expect("no one panics while holding the id") = id;
    }
}
