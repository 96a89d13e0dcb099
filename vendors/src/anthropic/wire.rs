//! What the Messages API says, as types.
//!
//! Sources: <https://platform.claude.com/docs/en/api/messages>,
//! <https://platform.claude.com/docs/en/api/errors>,
//! <https://platform.claude.com/docs/en/api/versioning>.

use http::HeaderValue;
use inferq_common::{job::Route, usage::Usage};
use serde_json::Value;

/// Where the address of Anthropic itself begins.
pub(super) const BASE_URL: &str = "https://api.anthropic.com";

pub(super) const VERSION_HEADER: &str = "anthropic-version";

/// The version spoken where none is configured: the one that takes sampling parameters.
pub(super) const VERSION: &str = "2023-06-01";

/// The members that a version answers 400 to, even at their default values.
pub(super) fn refused_members(version: Option<&HeaderValue>) -> &'static [&'static str] {
    match version.map(HeaderValue::as_bytes) {
        Some(b"2026-10-21") => &["temperature", "top_p", "top_k"],
        _ => &[],
    }
}

/// The segments of an endpoint's path, after the base address.
pub(super) fn path(route: Route) -> &'static [&'static str] {
    match route {
        Route::Messages => &["v1", "messages"],
        Route::CountTokens => &["v1", "messages", "count_tokens"],
        // No other is chosen for Anthropic.
        _ => &[],
    }
}

/// What a `usage` object says; a count that is not there stays absent.
pub(crate) fn usage(usage: &Value) -> Usage {
    let mut counts = Counts::default();
    counts.update(usage);
    counts.usage()
}

/// The counts of a message. Those in a stream are cumulative, but need not name all every time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Without what the cache served or took.
    input: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    output: Option<u64>,
    thinking: Option<u64>,
}

impl Counts {
    /// Takes the counts that `usage` names in place of earlier ones.
    pub(crate) fn update(&mut self, usage: &Value) {
        for (count, pointer) in [
            (&mut self.input, "/input_tokens"),
            (&mut self.cache_read, "/cache_read_input_tokens"),
            (&mut self.cache_write, "/cache_creation_input_tokens"),
            (&mut self.output, "/output_tokens"),
            (&mut self.thinking, "/output_tokens_details/thinking_tokens"),
        ] {
            *count = usage.pointer(pointer).and_then(Value::as_u64).or(*count);
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        let cached = [self.cache_read, self.cache_write].into_iter().flatten();
        Usage {
            input_tokens: self.input.map(|input| cached.fold(input, u64::saturating_add)),
            cached_input_tokens: self.cache_read,
            cache_write_tokens: self.cache_write,
            output_tokens: self.output,
            reasoning_tokens: self.thinking,
        }
    }
}

/// An error document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WireError {
    pub message: Option<String>,
    /// `error.type`.
    pub kind: Option<String>,
    /// `error.details.error_code`.
    pub code: Option<String>,
    pub request_id: Option<String>,
}

impl WireError {
    /// Finds the error in a document; `None` if there is none.
    ///
    /// Known shapes: `{"type":"error","error":{…},"request_id":…}`, in which all but the inner
    /// object may be missing, and what gateways say: `{"error":"text"}`, `{"message":"text"}`,
    /// `{"detail":"text"}`.
    pub(crate) fn of(document: &Value) -> Option<Self> {
        let request_id = text(document, "request_id");
        let plain = |message| Self { message, request_id: request_id.clone(), ..Self::default() };
        match document.get("error") {
            Some(error @ Value::Object(_)) => Some(Self {
                message: text(error, "message"),
                kind: text(error, "type"),
                code: error.get("details").and_then(|details| text(details, "error_code")),
                request_id,
            }),
            Some(Value::String(message)) => Some(plain(Some(message.clone()))),
            _ => {
                let keys = ["message", "Message", "detail"];
                let found = keys.iter().find_map(|key| text(document, key));
                let is_error = document.get("type").and_then(Value::as_str) == Some("error");
                (found.is_some() || is_error).then(|| plain(found))
            }
        }
    }

    /// The vendor's own words for it, the most exact first.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        self.code.iter().chain(&self.kind).map(String::as_str)
    }
}

fn text(object: &Value, key: &str) -> Option<String> {
    object.get(key)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cached_tokens_are_part_of_the_input() {
        let read = usage(&json!({
            "input_tokens": 3, "cache_read_input_tokens": 1217, "cache_creation_input_tokens": 40,
            "cache_creation": {"ephemeral_5m_input_tokens": 40}, "output_tokens": 9,
            "output_tokens_details": {"thinking_tokens": 4}, "service_tier": "standard",
        }));
        let expected = Usage {
            input_tokens: Some(1260),
            cached_input_tokens: Some(1217),
            cache_write_tokens: Some(40),
            output_tokens: Some(9),
            reasoning_tokens: Some(4),
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn counts_that_are_absent_or_nonsense_stay_absent() {
        for nothing in [json!({}), json!(null), json!([1]), json!({"input_tokens": "7"})] {
            assert_eq!(usage(&nothing), Usage::default(), "{nothing}");
        }
        let old = usage(&json!({"input_tokens": 7, "cache_read_input_tokens": null}));
        assert_eq!(old, Usage { input_tokens: Some(7), ..Usage::default() });
        let huge = json!({"input_tokens": u64::MAX, "cache_read_input_tokens": 1});
        assert_eq!(usage(&huge).input_tokens, Some(u64::MAX));
    }

    #[test]
    fn later_counts_replace_earlier_ones() {
        let mut counts = Counts::default();
        counts
            .update(&json!({"input_tokens": 12, "cache_read_input_tokens": 5, "output_tokens": 1}));
        counts.update(&json!({"output_tokens": 11, "cache_read_input_tokens": null}));
        let usage = counts.usage();
        assert_eq!((usage.input_tokens, usage.output_tokens), (Some(17), Some(11)));
        counts.update(&json!({"input_tokens": 0}));
        assert_eq!(counts.usage().input_tokens, Some(5));
    }

    #[test]
    fn every_shape_of_error_is_found() {
        let full = json!({"type": "error", "request_id": "req_1", "error": {
            "type": "rate_limit_error", "message": "no", "details": {"error_code": "c"},
        }});
        let found = WireError::of(&full).unwrap();
        assert_eq!(found.words().collect::<Vec<_>>(), ["c", "rate_limit_error"]);
        assert_eq!(found.message.as_deref(), Some("no"));
        assert_eq!(found.request_id.as_deref(), Some("req_1"));
        for gateway in [
            json!({"error": "no"}),
            json!({"message": "no"}),
            json!({"detail": "no"}),
            json!({"error": {"message": "no", "details": null}}),
        ] {
            assert_eq!(WireError::of(&gateway).unwrap().message.as_deref(), Some("no"));
        }
        assert_eq!(WireError::of(&json!({"type": "error"})), Some(WireError::default()));
        for nothing in [json!({}), json!({"error": null}), json!("no"), json!([]), json!(7)] {
            assert_eq!(WireError::of(&nothing), None, "{nothing}");
        }
    }
}
