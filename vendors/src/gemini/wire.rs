//! What Google's generative APIs say, as types.
//!
//! Sources: <https://ai.google.dev/api>, <https://cloud.google.com/apis/design/errors>.

use inferq_common::usage::Usage;
use serde::Deserialize;
use serde_json::Value;

/// Where the address of the Gemini API begins; the version follows.
pub(super) const BASE_URL: &str = "https://generativelanguage.googleapis.com";

/// Preview models and the `-latest` aliases exist in this version only.
pub(super) const VERSION: &str = "v1beta";

/// A `usageMetadata` object has a few hundred bytes; a larger one is not read.
const MAX_USAGE_BYTES: usize = 16 * 1024;

/// What a `usageMetadata` member says; a count that is not there stays absent.
///
/// Tokens of tools' results count as prompt, tokens of thoughts as answer.
pub(crate) fn usage(text: &str) -> Usage {
    let Some(usage) =
        (text.len() <= MAX_USAGE_BYTES).then(|| serde_json::from_str::<Value>(text).ok()).flatten()
    else {
        return Usage::default();
    };
    let count = |name| usage.get(name).and_then(Value::as_u64);
    Usage {
        input_tokens: sum(count("promptTokenCount"), count("toolUsePromptTokenCount")),
        cached_input_tokens: count("cachedContentTokenCount"),
        cache_write_tokens: None,
        output_tokens: sum(count("candidatesTokenCount"), count("thoughtsTokenCount")),
        reasoning_tokens: count("thoughtsTokenCount"),
    }
}

fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (None, None) => None,
        _ => Some(one.unwrap_or(0).saturating_add(other.unwrap_or(0))),
    }
}

/// Whether a `finishReason` or `blockReason` says anything. Some servers write the number of the
/// word; 0 and `…_UNSPECIFIED` say nothing.
pub(super) fn is_reason(value: &str) -> bool {
    !matches!(value, "null" | "0" | "\"\"") && !value.ends_with("REASON_UNSPECIFIED\"")
}

/// An error, whichever of Google's shapes it came in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WireError {
    pub message: Option<String>,
    /// The HTTP status the server means.
    pub code: Option<u16>,
    /// The word for it: `INVALID_ARGUMENT`, or what the interactions API has under `code`.
    pub status: Option<String>,
    /// The reasons of all `google.rpc.ErrorInfo`.
    pub reasons: Vec<String>,
    /// The ids of the quotas that were exceeded, of all `google.rpc.QuotaFailure`.
    pub quotas: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    reason: Option<String>,
    #[serde(default)]
    violations: Vec<Violation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Violation {
    quota_id: Option<String>,
}

impl WireError {
    /// Finds the error in a document; `None` if there is none.
    ///
    /// Known shapes: `{"error":{…}}`, the same in a list, `{"error":"text"}` and OAuth's
    /// `{"error":"word","error_description":"text"}`.
    pub(crate) fn of(document: &Value) -> Option<Self> {
        let document = document.get(0).unwrap_or(document);
        match document.get("error")? {
            Value::String(word) => Some(match text(document, "error_description") {
                None => Self { message: Some(word.clone()), ..Self::default() },
                message => Self { message, status: Some(word.clone()), ..Self::default() },
            }),
            error @ Value::Object(_) => Some(Self::of_object(error)),
            _ => None,
        }
    }

    fn of_object(error: &Value) -> Self {
        let details = error.get("details").and_then(Value::as_array).into_iter().flatten();
        let details = details.filter_map(|detail| Detail::deserialize(detail).ok());
        let (mut reasons, mut quotas) = (Vec::new(), Vec::new());
        for Detail { reason, violations } in details {
            reasons.extend(reason);
            quotas.extend(violations.into_iter().filter_map(|violation| violation.quota_id));
        }
        let code = error.get("code").and_then(Value::as_u64);
        Self {
            message: text(error, "message"),
            code: code.and_then(|code| u16::try_from(code).ok()),
            status: text(error, "status").or_else(|| text(error, "code")),
            reasons,
            quotas,
        }
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
    fn tools_count_as_prompt_and_thoughts_as_answer() {
        let text = r#"{"promptTokenCount":9,"toolUsePromptTokenCount":181,"candidatesTokenCount":13,
            "thoughtsTokenCount":11,"cachedContentTokenCount":4,"totalTokenCount":null}"#;
        let expected = Usage {
            input_tokens: Some(190),
            cached_input_tokens: Some(4),
            cache_write_tokens: None,
            output_tokens: Some(24),
            reasoning_tokens: Some(11),
        };
        assert_eq!(usage(text), expected);
    }

    #[test]
    fn counts_that_are_absent_or_nonsense_stay_absent() {
        for text in ["{}", "null", "[]", "no", r#"{"promptTokenCount":"7"}"#] {
            assert_eq!(usage(text), Usage::default(), "{text}");
        }
        let thoughts = usage(r#"{"thoughtsTokenCount":41}"#);
        assert_eq!((thoughts.input_tokens, thoughts.output_tokens), (None, Some(41)));
        assert_eq!(usage(&format!("{{\"x\":\"{}\"}}", "a".repeat(20_000))), Usage::default());
    }

    #[test]
    fn every_shape_of_error_is_found() {
        let full = json!({"error": {"code": 429, "message": "no", "status": "RESOURCE_EXHAUSTED",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "WHY"},
            {"violations": [{"quotaId": "PerDay"}, {"quotaMetric": "x"}]},
            {"violations": "nonsense"}, 7,
        ]}});
        let expected = WireError {
            message: Some("no".into()),
            code: Some(429),
            status: Some("RESOURCE_EXHAUSTED".into()),
            reasons: vec!["WHY".into()],
            quotas: vec!["PerDay".into()],
        };
        assert_eq!(WireError::of(&full), Some(expected.clone()));
        assert_eq!(WireError::of(&json!([full])), Some(expected));
        let word = |status: &str, message: &str| WireError {
            status: Some(status.into()),
            message: Some(message.into()),
            ..WireError::default()
        };
        assert_eq!(
            WireError::of(&json!({"error": {"message": "m", "code": "too_many_requests"}})),
            Some(word("too_many_requests", "m"))
        );
        assert_eq!(
            WireError::of(&json!({"error": "invalid_grant", "error_description": "m"})),
            Some(word("invalid_grant", "m"))
        );
        assert_eq!(WireError::of(&json!({"error": "m"})).unwrap().message.as_deref(), Some("m"));
        for nothing in [json!({}), json!({"error": null}), json!([]), json!("no"), json!(7)] {
            assert_eq!(WireError::of(&nothing), None);
        }
    }
}
