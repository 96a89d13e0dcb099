//! Why an attempt failed, as the queue understands it.

use std::time::Duration;

use inferq_common::{
    error::{ErrorClass, JobError},
    usage::Usage,
};

/// A failed attempt: the error to keep, and what the vendor said about trying again.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", .error.message)]
pub struct VendorError {
    pub error: JobError,
    /// The wait the vendor asked for.
    pub retry_after: Option<Duration>,
    /// What the failed attempt consumed all the same.
    pub usage: Usage,
}

impl VendorError {
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { error: JobError::new(class, message), retry_after: None, usage: Usage::default() }
    }
}
