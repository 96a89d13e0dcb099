//! The endpoints of Google's Gemini API.

use super::RouteError;
use crate::{
    job::Route,
    members::{NotAnObject, each_member},
};

pub(super) const ROUTES: &[Route] = &[
    Route::GenerateContent,
    Route::EmbedContent,
    Route::BatchEmbedContents,
    Route::CountTokens,
    Route::Interactions,
    Route::ChatCompletions,
    Route::Embeddings,
];

const NO_MEMBER: RouteError = RouteError::NoMember(
    "generate content needs 'contents', embed content 'content', batch embed contents 'requests', \
     count tokens 'generateContentRequest' (or the route count_tokens), OpenAI-compatible chat \
     completions 'messages', OpenAI-compatible embeddings 'input', interactions 'input' and \
     'generation_config', 'previous_interaction_id', 'system_instruction' or 'tools'",
);

const AMBIGUOUS: RouteError = RouteError::Ambiguous(
    "they hold more than one of 'contents', 'content', 'requests', 'generateContentRequest', \
     'messages' and 'input'",
);

/// Chooses the endpoint for `args` from the names of their top-level members. A member that is
/// `null` counts as absent.
///
/// Tokens are counted of the same `contents` that content is generated from, so that only the
/// longer form tells it. An interaction has an `input` as embeddings have, and something beside it
/// that those do not take. Cost: one pass over the text, no copy.
///
/// Source: <https://ai.google.dev/api>.
pub(super) fn route(args: &str) -> Result<Route, RouteError> {
    let mut interacts = false;
    let found = only_one(args, |name| match name {
        "generation_config" | "previous_interaction_id" | "system_instruction" | "tools" => {
            interacts = true;
            None
        }
        "contents" => Some(Route::GenerateContent),
        "content" => Some(Route::EmbedContent),
        "requests" => Some(Route::BatchEmbedContents),
        // Google takes both spellings of each name.
        "generateContentRequest" | "generate_content_request" => Some(Route::CountTokens),
        "messages" => Some(Route::ChatCompletions),
        "input" => Some(Route::Embeddings),
        _ => None,
    })?;
    match found {
        Some(Ok(Route::Embeddings)) if interacts => Ok(Route::Interactions),
        found => found.map_or(Err(NO_MEMBER), |found| found.map_err(|Several| AMBIGUOUS)),
    }
}

/// The members tell more than one endpoint.
pub(super) struct Several;

/// The endpoint that the members' names tell; `None` if none of them does.
pub(super) fn only_one(
    args: &str,
    mut tells: impl FnMut(&str) -> Option<Route>,
) -> Result<Option<Result<Route, Several>>, NotAnObject> {
    let mut found: Option<Result<Route, Several>> = None;
    each_member(args, |member| {
        if member.is_null() {
            return;
        }
        let Some(route) = tells(&member.key) else { return };
        found = Some(match found.take() {
            None => Ok(route),
            Some(Ok(before)) if before == route => Ok(route),
            Some(_) => Err(Several),
        });
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_the_arguments_chooses_the_endpoint() {
        for (args, expected) in [
            (r#"{"contents":[]}"#, Route::GenerateContent),
            (r#"{"content":{"parts":[]},"taskType":"x"}"#, Route::EmbedContent),
            (r#"{"requests":[]}"#, Route::BatchEmbedContents),
            (r#"{"generateContentRequest":{}}"#, Route::CountTokens),
            (r#"{"messages":[]}"#, Route::ChatCompletions),
            (r#"{"input":"a"}"#, Route::Embeddings),
            (r#"{"input":"a","messages":null}"#, Route::Embeddings),
            (r#"{"input":"a","generation_config":{}}"#, Route::Interactions),
            (r#"{"tools":[],"input":[]}"#, Route::Interactions),
            (r#"{"tools":[],"messages":[]}"#, Route::ChatCompletions),
            (r#"{"tools":[],"contents":[]}"#, Route::GenerateContent),
            (r#"{"input":"a","tools":null}"#, Route::Embeddings),
            (r#"{"\u0063ontents":[]}"#, Route::GenerateContent),
        ] {
            assert_eq!(route(args), Ok(expected), "{args}");
        }
    }

    #[test]
    fn what_fits_nowhere_or_twice_says_what_is_looked_for() {
        for args in ["{}", r#"{"prompt":"hi"}"#, r#"{"contents":null}"#] {
            let error = route(args).unwrap_err();
            assert_eq!(error, NO_MEMBER);
            assert!(error.to_string().contains("'contents'"), "{error}");
        }
        for args in [r#"{"contents":[],"messages":[]}"#, r#"{"content":{},"requests":[]}"#] {
            assert_eq!(route(args), Err(AMBIGUOUS));
        }
        assert_eq!(route("[]"), Err(RouteError::NotAnObject));
    }
}
