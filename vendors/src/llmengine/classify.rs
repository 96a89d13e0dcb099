//! What a failure of LLM Engine means to the queue; pure.

use chrono::{DateTime, Utc};
use inferq_common::error::ErrorClass;

use super::wire::StreamError;
use crate::{
    error::{VendorError, class_of_status, excerpt},
    openai,
    remote::Failure,
};

/// The error to keep of an answer that is not 2xx, or of a 2xx answer without a result.
///
/// Its errors have FastAPI's shape or `{"error": "text"}`, which OpenAI-compatible servers use too.
pub(super) fn error(failure: Failure<'_>, now: DateTime<Utc>) -> VendorError {
    let mut error = openai::classify::error(&openai::OPENAI, failure, now);
    if error.class() == ErrorClass::Auth {
        error.error.message.push_str(" (check SCALE_API_KEY or vendors.llmengine.api_key)");
    }
    error
}

/// The error of an event inside a stream.
pub(super) fn in_stream(error: &StreamError) -> VendorError {
    let message = format!("the vendor broke the stream off: {}", excerpt(&error.content.error));
    let mut failed = VendorError::new(class_of_status(error.status_code), message);
    failed.error.vendor_status = Some(error.status_code);
    failed
}
