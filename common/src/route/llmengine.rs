//! The endpoints of LLM Engine: its own completions, and an OpenAI-shaped surface.

use super::RouteError;
use crate::{job::Route, members::each_member};

pub(super) const ROUTES: &[Route] =
    &[Route::CompletionsSync, Route::ChatCompletions, Route::Completions];

/// `messages` means chat completions; `prompt` its own completions where `max_new_tokens` is there,
/// which they require, else completions of the OpenAI shape.
///
/// Source: <https://llm-engine.scale.com/api/python_client/>.
pub(super) fn route(args: &str) -> Result<Route, RouteError> {
    let (mut messages, mut prompt, mut own, mut openai) = (false, false, false, false);
    each_member(args, |member| match member.key.as_ref() {
        _ if member.is_null() => {}
        "messages" => messages = true,
        "prompt" => prompt = true,
        "max_new_tokens" => own = true,
        "max_tokens" => openai = true,
        _ => {}
    })?;
    match (messages, prompt) {
        (true, true) => {
            Err(RouteError::Ambiguous("'messages' means chat completions, 'prompt' completions"))
        }
        (true, false) => Ok(Route::ChatCompletions),
        (false, true) if own && openai => Err(RouteError::Ambiguous(
            "'max_new_tokens' belongs to completions_sync, 'max_tokens' to completions",
        )),
        (false, true) if own => Ok(Route::CompletionsSync),
        (false, true) => Ok(Route::Completions),
        (false, false) => Err(RouteError::NoMember(
            "chat completions need 'messages', completions 'prompt' (with 'max_new_tokens' for LLM \
             Engine's own completions)",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_the_arguments_chooses_the_endpoint() {
        for (args, expected) in [
            (r#"{"messages":[]}"#, Ok(Route::ChatCompletions)),
            (r#"{"prompt":"a","max_new_tokens":5}"#, Ok(Route::CompletionsSync)),
            (r#"{"prompt":"a","max_tokens":5}"#, Ok(Route::Completions)),
            (r#"{"prompt":"a"}"#, Ok(Route::Completions)),
            (r#"{"prompt":"a","max_new_tokens":5,"max_tokens":null}"#, Ok(Route::CompletionsSync)),
            ("[]", Err(RouteError::NotAnObject)),
        ] {
            assert_eq!(route(args), expected, "{args}");
        }
        for args in [
            r#"{"prompt":"a","max_new_tokens":5,"max_tokens":5}"#,
            r#"{"prompt":"a","messages":[]}"#,
        ] {
            let both = route(args).unwrap_err();
            assert!(matches!(both, RouteError::Ambiguous(_)), "{both}");
        }
        let neither = route(r#"{"text":"a"}"#).unwrap_err().to_string();
        assert!(neither.contains("'messages'") && neither.contains("'prompt'"), "{neither}");
    }
}
