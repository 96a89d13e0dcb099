//! The endpoints of a server that speaks OpenAI's API.

use super::RouteError;
use crate::{
    job::Route,
    members::{NotAnObject, each_member},
};

/// What such a server has.
pub(super) const ROUTES: &[Route] =
    &[Route::ChatCompletions, Route::Completions, Route::Embeddings, Route::Responses];

/// What OpenAI itself has. The last is only taken where it is named: its arguments are those of
/// responses.
pub(super) const OWN_ROUTES: &[Route] = &[
    Route::ChatCompletions,
    Route::Completions,
    Route::Embeddings,
    Route::Responses,
    Route::CountTokens,
];

const NO_MEMBER: RouteError = RouteError::NoMember(
    "chat completions need 'messages', completions 'prompt', responses 'input' (or \
     'previous_response_id', 'conversation' or 'instructions'), embeddings 'input' and an embedding \
     model, 'encoding_format' or 'dimensions'",
);

const AMBIGUOUS: RouteError = RouteError::Ambiguous(
    "'messages' means chat completions, 'prompt' completions (a template of responses, if it is an \
     object), 'input' embeddings or responses",
);

/// Chooses the endpoint for `args` from the names of their top-level members. A member that is
/// `null` counts as absent.
///
/// `messages` means chat completions, `prompt` completions (an object under `prompt` is a template
/// of the Responses API), `input` embeddings or responses; no endpoint takes two of them. Cost: one
/// pass over the text, no copy.
///
/// Source: <https://platform.openai.com/docs/api-reference>.
pub(super) fn route(args: &str, model: &str) -> Result<Route, RouteError> {
    let seen = Seen::of(args)?;
    if seen.is_ambiguous() {
        Err(AMBIGUOUS)
    } else if seen.messages {
        Ok(Route::ChatCompletions)
    } else if seen.prompt {
        Ok(Route::Completions)
    } else if seen.input && (seen.embedding || is_embedding_model(model)) {
        Ok(Route::Embeddings)
    } else if seen.input || seen.template || seen.responses {
        Ok(Route::Responses)
    } else {
        Err(NO_MEMBER)
    }
}

/// The members that tell the endpoints apart.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one fact about the arguments")]
struct Seen {
    messages: bool,
    prompt: bool,
    /// An object under `prompt`.
    template: bool,
    input: bool,
    /// Something only embeddings take.
    embedding: bool,
    /// Something only responses take.
    responses: bool,
}

impl Seen {
    fn of(args: &str) -> Result<Self, NotAnObject> {
        let mut seen = Self::default();
        each_member(args, |member| match member.key.as_ref() {
            _ if member.is_null() => {}
            "messages" => seen.messages = true,
            "prompt" if member.value.starts_with('{') => seen.template = true,
            "prompt" => seen.prompt = true,
            "input" => seen.input = true,
            "encoding_format" | "dimensions" => seen.embedding = true,
            "previous_response_id" | "conversation" | "instructions" => seen.responses = true,
            _ => {}
        })?;
        Ok(seen)
    }

    /// Whether they hold what no single endpoint takes.
    fn is_ambiguous(&self) -> bool {
        let ends = [self.messages, self.prompt, self.template || self.input];
        ends.into_iter().filter(|&end| end).count() > 1
    }
}

/// Whether a model of this name makes embeddings, as far as names tell: OpenAI's own all have
/// `embed` in them; the rest are the families that OpenAI-compatible servers run.
fn is_embedding_model(model: &str) -> bool {
    let name = model.to_ascii_lowercase();
    let last = name.rsplit('/').next().unwrap_or(&name);
    name.contains("embed")
        || ["bge-", "e5-", "gte-", "multilingual-e5", "all-minilm"]
            .iter()
            .any(|family| last.starts_with(family))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_the_arguments_chooses_the_endpoint() {
        for (args, model, expected) in [
            (r#"{"messages":[]}"#, "gpt-5", Route::ChatCompletions),
            (r#"{"temperature":1,"prompt":"a"}"#, "babbage-002", Route::Completions),
            (r#"{"prompt":[1,2]}"#, "babbage-002", Route::Completions),
            (r#"{"prompt":{"id":"pmpt_1"}}"#, "gpt-5", Route::Responses),
            (r#"{"prompt":{"id":"pmpt_1"},"input":"a"}"#, "gpt-5", Route::Responses),
            (r#"{"input":"a"}"#, "gpt-5", Route::Responses),
            (r#"{"input":"a"}"#, "text-embedding-3-small", Route::Embeddings),
            (r#"{"input":"a"}"#, "BAAI/bge-m3", Route::Embeddings),
            (r#"{"input":"a","dimensions":8}"#, "mine", Route::Embeddings),
            (r#"{"input":"a","encoding_format":"base64"}"#, "mine", Route::Embeddings),
            (r#"{"previous_response_id":"resp_1"}"#, "gpt-5", Route::Responses),
            (r#"{"instructions":"be brief"}"#, "gpt-5", Route::Responses),
            (r#"{"messages":null,"prompt":"a"}"#, "gpt-5", Route::Completions),
            (r#"{"\u006dessages":[]}"#, "gpt-5", Route::ChatCompletions),
        ] {
            assert_eq!(route(args, model), Ok(expected), "{args} for {model}");
        }
    }

    #[test]
    fn what_fits_two_endpoints_is_not_guessed() {
        for args in [
            r#"{"messages":[],"prompt":"a"}"#,
            r#"{"messages":[],"input":"a"}"#,
            r#"{"prompt":"a","input":"a","dimensions":8}"#,
            r#"{"messages":[],"prompt":{"id":"pmpt_1"}}"#,
        ] {
            let error = route(args, "text-embedding-3-small").unwrap_err();
            assert_eq!(error, AMBIGUOUS, "{args}");
            assert!(error.to_string().contains("inference_configuration.route"), "{error}");
        }
        let args = r#"{"messages":[],"prompt":null,"input":null}"#;
        assert_eq!(route(args, "gpt-5"), Ok(Route::ChatCompletions));
    }

    #[test]
    fn what_fits_nowhere_says_what_is_looked_for() {
        for args in ["{}", r#"{"text":"hi"}"#, r#"{"messages":null}"#, r#"{"dimensions":8}"#] {
            let error = route(args, "gpt-5").unwrap_err();
            assert_eq!(error, NO_MEMBER);
            for word in ["'messages'", "'prompt'", "'input'", "inference_configuration.route"] {
                assert!(error.to_string().contains(word), "{error}");
            }
        }
    }
}
