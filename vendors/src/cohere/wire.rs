//! What Cohere says, as types.
//!
//! Sources: <https://docs.cohere.com/reference/chat>, <https://docs.cohere.com/reference/embed>,
//! <https://docs.cohere.com/reference/rerank>, <https://docs.cohere.com/reference/errors>.

use http::HeaderMap;
use inferq_common::{job::Route, usage::Usage};
use serde_json::Value;

use crate::{error::shorten, openai::wire::count};

/// A `usage` or `meta` object has a few hundred bytes; a larger one is not read.
const MAX_USAGE_BYTES: usize = 16 * 1024;

/// The segments of an endpoint's path, after the base address.
pub(super) fn path(route: Route) -> &'static [&'static str] {
    match route {
        Route::Chat => &["v2", "chat"],
        Route::Embed => &["v2", "embed"],
        Route::Rerank => &["v2", "rerank"],
        Route::ChatCompletions => &["compatibility", "v1", "chat", "completions"],
        // No other is chosen for Cohere.
        _ => &[],
    }
}

/// What the `usage` of a chat, or the `meta` of the other endpoints, says; a count that is not
/// there stays absent.
///
/// The tokens that were processed count; where they are not told, those that are billed. Cohere calls
/// its numbers floats.
pub(super) fn usage(text: &str) -> Usage {
    if text.len() > MAX_USAGE_BYTES {
        return Usage::default();
    }
    let usage: Value = serde_json::from_str(text).unwrap_or_default();
    let count = |pointer| count(&usage, pointer);
    Usage {
        input_tokens: count("/tokens/input_tokens").or_else(|| count("/billed_units/input_tokens")),
        cached_input_tokens: count("/cached_tokens"),
        cache_write_tokens: None,
        output_tokens: count("/tokens/output_tokens")
            .or_else(|| count("/billed_units/output_tokens")),
        reasoning_tokens: None,
    }
}

/// The vendor's id of an exchange, where the body has none.
pub(super) fn trace_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("x-debug-trace-id")?.to_str().ok()?;
    (!id.is_empty()).then(|| shorten(id, 200))
}

/// An error document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct WireError {
    pub message: Option<String>,
    /// `error_type`.
    pub kind: Option<String>,
    pub id: Option<String>,
}

impl WireError {
    /// Finds the error in a document; `None` if there is none.
    ///
    /// Known shapes: `{"id":…,"message":"text","error_type":…}`, in which all but the text may be
    /// missing, and what gateways and the endpoint in OpenAI's format say: `{"error":"text"}`,
    /// `{"error":{"message":"text"}}`, `{"detail":"text"}`.
    pub(super) fn of(document: &Value) -> Option<Self> {
        let texts = ["/message", "/error/message", "/error", "/detail"];
        let message = texts.iter().find_map(|pointer| text(document, pointer))?;
        let kind = text(document, "/error_type").or_else(|| text(document, "/error/type"));
        Some(Self { message: Some(message), kind, id: text(document, "/id") })
    }
}

pub(super) fn text(document: &Value, pointer: &str) -> Option<String> {
    document.pointer(pointer)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn counts(usage: &Value) -> (Option<u64>, Option<u64>, Option<u64>) {
        let usage = super::usage(&usage.to_string());
        (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens)
    }

    #[test]
    fn processed_tokens_count_and_billed_ones_stand_in() {
        let both = json!({"billed_units": {"input_tokens": 7, "output_tokens": 21.0},
            "tokens": {"input_tokens": 502.0, "output_tokens": 24}, "cached_tokens": 448});
        assert_eq!(counts(&both), (Some(502), Some(448), Some(24)));
        let embed = json!({"api_version": {"version": "2"}, "billed_units": {"input_tokens": 2.0}});
        assert_eq!(counts(&embed), (Some(2), None, None));
        for nothing in [
            json!({}),
            json!(null),
            json!({"billed_units": {"search_units": 1}}),
            json!({"tokens": {"input_tokens": 1.5, "output_tokens": -1.0}, "cached_tokens": "1"}),
        ] {
            assert_eq!(counts(&nothing), (None, None, None), "{nothing}");
        }
        assert_eq!(usage(&" ".repeat(MAX_USAGE_BYTES + 1)), Usage::default());
    }

    #[test]
    fn every_shape_of_error_is_found() {
        let full = json!({"id": "i", "message": "no", "error_type": "TOO_MANY_TOKENS"});
        let found = WireError::of(&full).unwrap();
        assert_eq!(found.message.as_deref(), Some("no"));
        assert_eq!(found.kind.as_deref(), Some("TOO_MANY_TOKENS"));
        assert_eq!(found.id.as_deref(), Some("i"));
        for other in [
            json!({"message": "no"}),
            json!({"error": "no"}),
            json!({"error": {"message": "no"}}),
            json!({"detail": "no"}),
        ] {
            assert_eq!(WireError::of(&other).unwrap().message.as_deref(), Some("no"), "{other}");
        }
        for nothing in [json!({}), json!({"message": {"content": []}}), json!("no"), json!([])] {
            assert_eq!(WireError::of(&nothing), None, "{nothing}");
        }
    }
}
