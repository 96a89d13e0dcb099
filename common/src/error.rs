//! Why a job did not succeed, as it is stored and shown.

use serde::{Deserialize, Serialize};

use crate::vendor::text_enum;

text_enum! {
    /// What kind of failure ended an attempt. The queue acts on this and on nothing else.
    ErrorClass {
        /// The vendor asks to slow down; will pass.
        RateLimited = "rate_limited",
        /// The vendor lacks capacity.
        Overloaded = "overloaded",
        /// 408, 409, 425, 5xx, a broken connection, a cut stream.
        Transient = "transient",
        /// `timeout_seconds` passed before the attempt ended.
        Timeout = "timeout",
        /// The process that ran the attempt was lost.
        Lost = "lost",
        /// Money or a monthly quota is gone.
        QuotaExhausted = "quota_exhausted",
        /// The vendor refused the credential.
        Auth = "auth",
        /// The vendor knows no such model, deployment or endpoint.
        NotFound = "not_found",
        /// The vendor calls the request invalid.
        InvalidRequest = "invalid_request",
        /// The prompt is longer than the model takes.
        ContextLength = "context_length",
        /// Safety or content filter.
        Blocked = "blocked",
        /// The vendor answered what its own documentation does not allow.
        Protocol = "protocol",
        /// The answer was larger than this platform takes.
        ResponseTooLarge = "response_too_large",
        /// A client cancelled the job.
        Cancelled = "cancelled",
        /// The start-by deadline or the total timeout passed.
        Expired = "expired",
        /// A defect of inferq itself.
        Internal = "internal",
    }
}

impl ErrorClass {
    /// Whether the same request could succeed later.
    pub const fn is_transient(self) -> bool {
        // No wildcard: a new class must choose.
        match self {
            Self::RateLimited | Self::Overloaded | Self::Transient | Self::Timeout | Self::Lost => {
                true
            }
            Self::QuotaExhausted
            | Self::Auth
            | Self::NotFound
            | Self::InvalidRequest
            | Self::ContextLength
            | Self::Blocked
            | Self::Protocol
            | Self::ResponseTooLarge
            | Self::Cancelled
            | Self::Expired
            | Self::Internal => false,
        }
    }
}

/// The error of a job or of one attempt. Holds no secret and no input; safe to show to the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    pub class: ErrorClass,
    /// One sentence for a person: what happened and, where it is known, what to do.
    pub message: String,
    /// The HTTP status the vendor answered, if it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor_status: Option<u16>,
    /// The vendor's own word for the failure, such as `context_length_exceeded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor_code: Option<String>,
    /// The vendor's own id of the request, for its support.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor_request_id: Option<String>,
}

impl JobError {
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            vendor_status: None,
            vendor_code: None,
            vendor_request_id: None,
        }
    }
}
