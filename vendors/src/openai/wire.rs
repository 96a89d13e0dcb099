//! What an OpenAI-compatible server says, as types.
//!
//! Sources: <https://platform.openai.com/docs/api-reference>,
//! <https://platform.openai.com/docs/guides/error-codes>, and the servers' own documents for the
//! shapes of their errors (vLLM, Ollama, llama.cpp, text-generation-inference, FastAPI).

use inferq_common::{job::Route, usage::Usage};
use serde_json::Value;

/// Where the address of OpenAI itself begins.
pub(crate) const BASE_URL: &str = "https://api.openai.com/v1";

/// The segments of an endpoint's path, after the base address.
pub(crate) fn path(route: Route) -> &'static [&'static str] {
    match route {
        Route::ChatCompletions => &["chat", "completions"],
        Route::Completions => &["completions"],
        Route::Embeddings => &["embeddings"],
        Route::Responses => &["responses"],
        // No other is chosen for such a server.
        _ => &[],
    }
}

/// Reads a count. Some servers write whole numbers as `12.0`.
fn count(usage: &Value, pointer: &str) -> Option<u64> {
    let value = usage.pointer(pointer)?;
    value.as_u64().or_else(|| {
        let float = value.as_f64().filter(|float| float.fract() == 0.0 && *float >= 0.0)?;
        format!("{float:.0}").parse().ok()
    })
}

/// What a `usage` object says; a count that is not there stays absent.
pub(crate) fn usage(route: Route, usage: &Value) -> Usage {
    let count = |pointer| count(usage, pointer);
    match route {
        Route::Responses => Usage {
            input_tokens: count("/input_tokens"),
            cached_input_tokens: count("/input_tokens_details/cached_tokens"),
            cache_write_tokens: count("/input_tokens_details/cache_write_tokens"),
            output_tokens: count("/output_tokens"),
            reasoning_tokens: count("/output_tokens_details/reasoning_tokens"),
        },
        _ => Usage {
            input_tokens: count("/prompt_tokens"),
            cached_input_tokens: count("/prompt_tokens_details/cached_tokens"),
            cache_write_tokens: count("/prompt_tokens_details/cache_write_tokens"),
            output_tokens: count("/completion_tokens"),
            reasoning_tokens: count("/completion_tokens_details/reasoning_tokens"),
        },
    }
}

/// An error object, whichever of the known shapes it came in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WireError {
    pub message: Option<String>,
    /// `type`; text-generation-inference calls it `error_type`.
    pub kind: Option<String>,
    pub code: Option<String>,
    /// `code` where it is a number: the HTTP status the server means.
    pub status: Option<u16>,
}

impl WireError {
    /// Finds the error in a document; `None` if there is none.
    ///
    /// Known shapes: `{"error":{…}}`, the same in a list, `{"error":"text"}` (Ollama, and with
    /// `error_type` text-generation-inference), `{"object":"error",…}` (older vLLM),
    /// `{"detail":…}` (FastAPI) and `{"message":"…"}` (gateways).
    pub(crate) fn of(document: &Value) -> Option<Self> {
        let document = document.get(0).unwrap_or(document);
        match document.get("error") {
            Some(error @ Value::Object(_)) => return Some(Self::of_object(error)),
            Some(Value::String(message)) => {
                return Some(Self {
                    message: Some(message.clone()),
                    kind: text(document, "error_type"),
                    ..Self::default()
                });
            }
            _ => {}
        }
        if document.get("object").and_then(Value::as_str) == Some("error")
            || document.get("message").is_some_and(Value::is_string)
        {
            return Some(Self::of_object(document));
        }
        let detail = document.get("detail")?;
        let message = detail.as_str().map_or_else(|| detail.to_string(), str::to_owned);
        Some(Self { message: Some(message), ..Self::default() })
    }

    /// Reads the error object itself, as it also stands in the events of a stream.
    pub(crate) fn of_object(error: &Value) -> Self {
        let message = error.get("message").filter(|message| !message.is_null());
        let code = error.get("code");
        let number = code.and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
        Self {
            message: message
                .map(|message| message.as_str().map_or_else(|| message.to_string(), str::to_owned)),
            kind: text(error, "type"),
            code: text(error, "code"),
            status: number.filter(|code| (400..600).contains(code)),
        }
    }

    /// Whether `word` is the code or the type.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.words().any(|own| own == word)
    }

    /// The code and the type, as far as there are any.
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
    fn every_shape_of_error_is_found() {
        let found = |document: Value| {
            let error = WireError::of(&document)?;
            Some((error.message.unwrap_or_default(), error.kind, error.code, error.status))
        };
        let some = |text: &str| Some(text.to_owned());
        let full = json!({"error": {"message": "no", "type": "t", "param": null, "code": "c"}});
        assert_eq!(found(full.clone()), Some(("no".into(), some("t"), some("c"), None)));
        assert_eq!(found(json!([full])), Some(("no".into(), some("t"), some("c"), None)));
        assert_eq!(
            found(json!({"error": {"message": "no", "code": 400}})),
            Some(("no".into(), None, None, Some(400)))
        );
        assert_eq!(
            found(
                json!({"object": "error", "message": "no", "type": "BadRequestError", "code": 400})
            ),
            Some(("no".into(), some("BadRequestError"), None, Some(400)))
        );
        assert_eq!(found(json!({"error": "no"})), Some(("no".into(), None, None, None)));
        assert_eq!(
            found(json!({"error": "no", "error_type": "overloaded"})),
            Some(("no".into(), some("overloaded"), None, None))
        );
        assert_eq!(found(json!({"detail": "no"})), Some(("no".into(), None, None, None)));
        assert_eq!(
            found(json!({"detail": [{"msg": "no"}]})),
            Some((r#"[{"msg":"no"}]"#.into(), None, None, None))
        );
        assert_eq!(found(json!({"message": "no"})), Some(("no".into(), None, None, None)));
        assert_eq!(
            found(json!({"error": {"message": ["a"]}})),
            Some((r#"["a"]"#.into(), None, None, None))
        );
        for nothing in [json!({}), json!({"error": null}), json!("no"), json!([]), json!(7)] {
            assert_eq!(found(nothing), None);
        }
    }

    #[test]
    fn counts_that_are_absent_or_nonsense_stay_absent() {
        let read = |document| usage(Route::ChatCompletions, &document);
        assert_eq!(read(json!({})), Usage::default());
        assert_eq!(
            read(json!({"prompt_tokens": null, "completion_tokens": "9"})),
            Usage::default()
        );
        assert_eq!(read(json!({"prompt_tokens": -1, "completion_tokens": 1.5})), Usage::default());
        assert_eq!(read(json!({"prompt_tokens": 12.0})).input_tokens, Some(12));
        assert_eq!(read(json!({"prompt_tokens": 0})).input_tokens, Some(0));
    }
}
