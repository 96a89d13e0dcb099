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

    /// What a person can do about a failure of this kind; `None`: nothing that its message does not
    /// say.
    pub const fn hint(self) -> Option<&'static str> {
        // No wildcard: a new class must choose.
        Some(match self {
            Self::RateLimited => {
                "the vendor limits this model for this credential: allow more num_retries, send \
                 fewer jobs at once, add a key or ask the vendor for a higher limit"
            }
            Self::Overloaded => {
                "the vendor lacks capacity for this model: allow more num_retries, try again later \
                 or use another model"
            }
            Self::Transient => {
                "this often passes: try again or allow more num_retries; if it stays, look at the \
                 vendor's status page and at the network between it and this server"
            }
            Self::Timeout => "give the job a longer timeout_seconds, or ask for a shorter answer",
            Self::QuotaExhausted => {
                "look at plan, budget and billing of this credential with the vendor, or use another \
                 credential"
            }
            Self::Auth => {
                "check the credential and what it may be used for; `inferq vendor check` tries the \
                 operator's own"
            }
            Self::NotFound => {
                "check the model's name, and whether the credential may use the model, in this \
                 region and project"
            }
            Self::InvalidRequest => "change the args as the message says",
            Self::ContextLength => {
                "shorten the input, ask for a shorter answer or use another model"
            }
            Self::Blocked => "the vendor's filter objects to the content: change the input",
            Self::Protocol => {
                "check base_url of the vendor: something else than the vendor may have answered"
            }
            Self::ResponseTooLarge => {
                "ask for a shorter answer, or raise max_response_bytes of the vendor"
            }
            Self::Internal => "report it to whoever runs this server, with the job's id",
            Self::Lost | Self::Cancelled | Self::Expired => return None,
        })
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
    /// What a person can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl JobError {
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            vendor_status: None,
            vendor_code: None,
            vendor_request_id: None,
            hint: None,
        }
    }

    /// The same with the hint of its class, unless it has one of its own.
    #[must_use]
    pub fn with_hint(self) -> Self {
        let hint = self.hint.or_else(|| self.class.hint().map(str::to_owned));
        Self { hint, ..self }
    }
}
