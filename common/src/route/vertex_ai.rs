//! The endpoints of Google's Vertex AI.

use super::{
    RouteError,
    gemini::{Several, only_one},
};
use crate::job::Route;

pub(super) const ROUTES: &[Route] = &[
    Route::GenerateContent,
    Route::CountTokens,
    Route::EmbedContent,
    Route::Predict,
    Route::Messages,
    Route::RawPredict,
    Route::ChatCompletions,
];

const NO_MEMBER: RouteError = RouteError::NoMember(
    "generate content needs 'contents', predict 'instances', embed content 'content', chat (of \
     Claude, of Mistral, or OpenAI-compatible) 'messages'; other models take the route raw_predict",
);

const AMBIGUOUS: RouteError = RouteError::Ambiguous(
    "they hold more than one of 'contents', 'instances', 'content' and 'messages'",
);

/// Chooses the endpoint for `args` from the names of their top-level members, and for `messages`
/// from who publishes the model: Anthropic's models take their own format, Mistral's and AI21's are
/// called directly, all others have the OpenAI-compatible endpoint. A member that is `null` counts
/// as absent. Cost: one pass over the text, no copy.
///
/// Source: <https://cloud.google.com/vertex-ai/docs/reference/rest>.
pub(super) fn route(args: &str, model: &str) -> Result<Route, RouteError> {
    only_one(args, |name| match name {
        "contents" => Some(Route::GenerateContent),
        "instances" => Some(Route::Predict),
        "content" => Some(Route::EmbedContent),
        "messages" => Some(match publisher(model) {
            Some("anthropic") => Route::Messages,
            Some("mistralai" | "ai21") => Route::RawPredict,
            _ => Route::ChatCompletions,
        }),
        _ => None,
    })?
    .map_or(Err(NO_MEMBER), |found| found.map_err(|Several| AMBIGUOUS))
}

/// Who publishes the model of this name; `None` where the name is that of an endpoint or of a model
/// of a project's own.
///
/// `…publishers/P/models/M` and `P/M` name the publisher. A bare name is Google's, but for Claude's.
pub fn publisher(model: &str) -> Option<&str> {
    if let Some((before, rest)) = model.split_once("publishers/")
        && (before.is_empty() || before.ends_with('/'))
    {
        return rest.split('/').next();
    }
    if model.starts_with("projects/") || model.starts_with("models/") {
        return None;
    }
    match model.split_once('/') {
        Some(("endpoints", _)) => None,
        Some((publisher, _)) => Some(publisher),
        None if model.bytes().all(|byte| byte.is_ascii_digit()) => None,
        None if model.starts_with("claude-") => Some("anthropic"),
        None => Some("google"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_the_arguments_and_the_publisher_choose_the_endpoint() {
        let messages = r#"{"messages":[]}"#;
        for (args, model, expected) in [
            (r#"{"contents":[]}"#, "gemini-2.5-flash", Route::GenerateContent),
            (r#"{"instances":[]}"#, "text-embedding-005", Route::Predict),
            (r#"{"content":{}}"#, "gemini-embedding-001", Route::EmbedContent),
            (messages, "gemini-2.5-flash", Route::ChatCompletions),
            (messages, "meta/llama-4", Route::ChatCompletions),
            (messages, "123456", Route::ChatCompletions),
            (messages, "claude-sonnet-4-5@20250929", Route::Messages),
            (messages, "publishers/anthropic/models/claude-x", Route::Messages),
            (messages, "mistralai/mistral-medium-3", Route::RawPredict),
        ] {
            assert_eq!(route(args, model), Ok(expected), "{args} for {model}");
        }
    }

    #[test]
    fn what_fits_nowhere_or_twice_says_what_is_looked_for() {
        assert_eq!(route(r#"{"prompt":"a"}"#, "m"), Err(NO_MEMBER));
        assert_eq!(route(r#"{"contents":[],"instances":[]}"#, "m"), Err(AMBIGUOUS));
        assert_eq!(route("7", "m"), Err(RouteError::NotAnObject));
    }

    #[test]
    fn the_publisher_is_read_from_every_form_of_a_name() {
        for (model, expected) in [
            ("gemini-2.5-flash", Some("google")),
            ("claude-opus-4-1@20250805", Some("anthropic")),
            ("meta/llama-4", Some("meta")),
            ("publishers/anthropic/models/c", Some("anthropic")),
            ("projects/p/locations/l/publishers/mistralai/models/m", Some("mistralai")),
            ("projects/p/locations/l/endpoints/1", None),
            ("models/1", None),
            ("endpoints/1", None),
            ("123456", None),
        ] {
            assert_eq!(publisher(model), expected, "{model}");
        }
    }
}
