//! The endpoints of Fireworks: OpenAI's, and rerank.

use super::{RouteError, openai};
use crate::{job::Route, members::each_member};

pub(super) const ROUTES: &[Route] = &[
    Route::ChatCompletions,
    Route::Completions,
    Route::Embeddings,
    Route::Responses,
    Route::Rerank,
];

/// `query` and `documents` mean rerank; anything else is told apart as for OpenAI. A member that is
/// `null` counts as absent.
///
/// Source: <https://docs.fireworks.ai/api-reference/rerank-documents>.
pub(super) fn route(args: &str, model: &str) -> Result<Route, RouteError> {
    let (mut query, mut documents) = (false, false);
    each_member(args, |member| match member.key.as_ref() {
        _ if member.is_null() => {}
        "query" => query = true,
        "documents" => documents = true,
        _ => {}
    })?;
    match openai::route(args, model) {
        Err(RouteError::NoMember(_)) if query && documents => Ok(Route::Rerank),
        Err(RouteError::NoMember(_)) => Err(NO_MEMBER),
        Ok(_) if query && documents => Err(AMBIGUOUS),
        chosen => chosen,
    }
}

const NO_MEMBER: RouteError = RouteError::NoMember(
    "chat completions need 'messages', completions 'prompt', rerank 'query' and 'documents', \
     responses 'input' (or 'previous_response_id', 'conversation' or 'instructions'), embeddings \
     'input' and an embedding model, 'encoding_format' or 'dimensions'",
);

const AMBIGUOUS: RouteError = RouteError::Ambiguous(
    "'query' and 'documents' mean rerank, the other members another endpoint",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_the_arguments_chooses_the_endpoint() {
        for (args, expected) in [
            (r#"{"query":"a","documents":["b"]}"#, Ok(Route::Rerank)),
            (r#"{"messages":[]}"#, Ok(Route::ChatCompletions)),
            (r#"{"messages":[],"documents":["b"]}"#, Ok(Route::ChatCompletions)),
            (r#"{"messages":[],"documents":["b"],"query":"a"}"#, Err(AMBIGUOUS)),
            (r#"{"prompt":"a"}"#, Ok(Route::Completions)),
            (r#"{"input":"a","dimensions":8}"#, Ok(Route::Embeddings)),
            (r#"{"input":"a"}"#, Ok(Route::Responses)),
            (r#"{"query":"a"}"#, Err(NO_MEMBER)),
            (r#"{"query":"a","documents":null}"#, Err(NO_MEMBER)),
            ("[]", Err(RouteError::NotAnObject)),
        ] {
            assert_eq!(route(args, "accounts/a/models/m"), expected, "{args}");
        }
        let embedding = route(r#"{"input":"a"}"#, "nomic-ai/nomic-embed-text-v1.5");
        assert_eq!(embedding, Ok(Route::Embeddings));
    }
}
