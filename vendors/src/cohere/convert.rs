//! Turns a body of a response into a reply; pure.

use chrono::{DateTime, Utc};
use http::HeaderMap;
use inferq_common::{members::each_member, usage::Usage};

use super::{classify, wire};
use crate::{
    error::VendorError,
    json,
    remote::{Failure, Parsed},
};

/// Reads the body of a 2xx answer to chat, embed or rerank.
///
/// # Errors
/// What an error inside the answer means; `Transient` where the model gave up on it or the JSON
/// ends too early; `Protocol` for what is no JSON object.
pub(super) fn parse(
    headers: &HeaderMap,
    body: Vec<u8>,
    now: DateTime<Utc>,
) -> Result<Parsed, VendorError> {
    let text = json::text(headers, body)?;
    let (mut usage, mut finish, mut id) = (Usage::default(), None, None);
    let (mut complains, mut answers) = (false, false);
    each_member(&text, |member| match member.key.as_ref() {
        "usage" | "meta" => usage = wire::usage(member.value),
        "finish_reason" => finish = serde_json::from_str::<String>(member.value).ok(),
        "id" => id = serde_json::from_str::<String>(member.value).ok(),
        // A result has an object there.
        "message" => complains = member.value.starts_with('"'),
        "embeddings" | "results" => answers = true,
        _ => {}
    })
    .map_err(|_| json::no_object(headers, &text))?;
    let id = id.filter(|id| !id.is_empty());
    let request_id = id.or_else(|| wire::trace_id(headers));
    if let Some(reason) = finish.as_deref().filter(|reason| classify::is_failure(reason)) {
        let mut error = classify::gave_up(reason, None, now);
        error.error.vendor_request_id = request_id;
        return Err(VendorError { usage, ..error });
    }
    if complains && finish.is_none() && !answers {
        let failure = Failure { status: None, headers, body: &text };
        return Err(VendorError { usage, ..classify::error(failure, now) });
    }
    Ok(Parsed { response: json::keep(text)?, usage, request_id })
}

#[cfg(test)]
mod tests;
