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
        Route::Rerank => &["rerank"],
        Route::CountTokens => &["responses", "input_tokens"],
        // No other is chosen for such a server.
        _ => &[],
    }
}

/// Whether a stream of this endpoint can be asked for its usage.
pub(crate) fn has_usage_option(route: Route) -> bool {
    matches!(route, Route::ChatCompletions | Route::Completions)
}

/// Reads a count. Some servers write whole numbers as `12.0`.
pub(crate) fn count(usage: &Value, pointer: &str) -> Option<u64> {
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
    /// `code` where it is a number, also one in quotes: the HTTP status the server means.
    pub status: Option<u16>,
}

impl WireError {
    /// Finds the error in a document; `None` if there is none.
    ///
    /// Known shapes: `{"error":{…}}`, the same in a list, `{"error":"text"}` (Ollama; with
    /// `error_type` text-generation-inference, with `code` xAI, with `message` Fireworks),
    /// `{"object":"error",…}` (older vLLM), `{"detail":…}` (FastAPI), `{"message":"…"}` and
    /// `{"fault":{…}}` (gateways).
    pub(crate) fn of(document: &Value) -> Option<Self> {
        let document = document.get(0).unwrap_or(document);
        match document.get("error") {
            Some(error @ Value::Object(_)) => return Some(Self::of_object(error)),
            Some(Value::String(error)) => {
                let more = text(document, "message").filter(|more| more != error);
                return Some(Self {
                    message: Some(
                        more.map_or_else(|| error.clone(), |it| format!("{error}: {it}")),
                    ),
                    kind: text(document, "error_type"),
                    code: text(document, "code"),
                    status: None,
                });
            }
            _ => {}
        }
        if document.get("object").and_then(Value::as_str) == Some("error")
            || document.get("message").is_some_and(Value::is_string)
        {
            return Some(Self::of_object(document));
        }
        if let Some(fault) = document.get("fault") {
            let code = fault.get("detail").and_then(|detail| text(detail, "errorcode"));
            return Some(Self { message: text(fault, "faultstring"), code, ..Self::default() });
        }
        let detail = document.get("detail")?;
        let message = detail.as_str().map_or_else(|| complaints(detail), str::to_owned);
        Some(Self { message: Some(message), ..Self::default() })
    }

    /// Reads the error object itself, as it also stands in the events of a stream.
    pub(crate) fn of_object(error: &Value) -> Self {
        let message = error.get("message").filter(|message| !message.is_null());
        let message = message
            .map(|message| message.as_str().map_or_else(|| message.to_string(), str::to_owned));
        let message = match (message, error.get("details")) {
            (Some(message), Some(details @ Value::Array(list))) if has_complaints(list) => {
                Some(format!("{message}: {}", complaints(details)))
            }
            (message, _) => message,
        };
        let code = text(error, "code").or_else(|| text(error.get("innererror")?, "code"));
        let number = error.get("code").and_then(|code| match code {
            Value::String(code) => code.parse().ok(),
            code => u16::try_from(code.as_u64()?).ok(),
        });
        Self {
            message,
            kind: text(error, "type"),
            code,
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

/// What FastAPI finds wrong, such as `body.tool_choice: Input should be a valid string`, without
/// the input it repeats. What is of another shape stays as it is.
fn complaints(details: &Value) -> String {
    match details {
        Value::Array(list) if has_complaints(list) => {
            list.iter().map(complaint).collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    }
}

fn has_complaints(list: &[Value]) -> bool {
    !list.is_empty() && list.iter().all(|one| one.get("msg").is_some_and(Value::is_string))
}

fn complaint(one: &Value) -> String {
    let message = one["msg"].as_str().unwrap_or_default();
    let place = one["loc"].as_array().map(|steps| {
        let steps = steps.iter().map(|step| match step {
            Value::String(name) => name.clone(),
            other => other.to_string(),
        });
        steps.collect::<Vec<_>>().join(".")
    });
    match place.filter(|place| !place.is_empty()) {
        Some(place) => format!("{place}: {message}"),
        None => message.to_owned(),
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
            found(
                json!({"detail": [{"loc": ["body", 0], "msg": "no", "input": "x"}, {"msg": "a"}]})
            ),
            Some(("body.0: no; a".into(), None, None, None))
        );
        assert_eq!(found(json!({"message": "no"})), Some(("no".into(), None, None, None)));
        assert_eq!(
            found(json!({"error": {"message": ["a"]}})),
            Some((r#"["a"]"#.into(), None, None, None))
        );
        assert_eq!(found(json!({"detail": [7]})), Some(("[7]".into(), None, None, None)));
        assert_eq!(
            found(json!({"error": "no", "code": "invalid-argument"})),
            Some(("no".into(), None, some("invalid-argument"), None))
        );
        assert_eq!(
            found(json!({"error": "Too Many Requests", "message": "no"})),
            Some(("Too Many Requests: no".into(), None, None, None))
        );
        assert_eq!(
            found(json!({"fault": {"faultstring": "no", "detail": {"errorcode": "c"}}})),
            Some(("no".into(), None, some("c"), None))
        );
        assert_eq!(
            found(json!({"error": {"code": "429", "message": "no"}})),
            Some(("no".into(), None, some("429"), Some(429)))
        );
        assert_eq!(
            found(json!({"error": {"message": "no", "innererror": {"code": "c"}}})),
            Some(("no".into(), None, some("c"), None))
        );
        let details = json!([{"loc": ["body", "a"], "msg": "not a text", "input": {}}]);
        assert_eq!(
            found(json!({"error": {"code": "Invalid input", "message": "no", "details": details}})),
            Some(("no: body.a: not a text".into(), None, some("Invalid input"), None))
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
