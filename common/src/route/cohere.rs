//! The endpoints of Cohere.

use super::RouteError;
use crate::{job::Route, members::each_member};

/// The last, which speaks OpenAI's format, is only taken where it is named: its arguments look like
/// those of the first.
pub(super) const ROUTES: &[Route] =
    &[Route::Chat, Route::Embed, Route::Rerank, Route::ChatCompletions];

const NO_MEMBER: RouteError = RouteError::NoMember(
    "chat needs 'messages', embed 'texts', 'images' or 'inputs', rerank 'query' and 'documents' \
     (version 1, with 'message' or 'prompt', is not served)",
);
const AMBIGUOUS: RouteError = RouteError::Ambiguous(
    "'messages' means chat, 'texts', 'images' and 'inputs' mean embed, 'query' means rerank",
);

/// Chooses the endpoint for `args` from the names of their top-level members. A member that is
/// `null` counts as absent.
///
/// Source: <https://docs.cohere.com/reference/about>.
pub(super) fn route(args: &str) -> Result<Route, RouteError> {
    let (mut chat, mut embed, mut query, mut documents) = (false, false, false, false);
    each_member(args, |member| match member.key.as_ref() {
        _ if member.is_null() => {}
        "messages" => chat = true,
        "texts" | "images" | "inputs" => embed = true,
        "query" => query = true,
        // Chat takes them as well.
        "documents" => documents = true,
        _ => {}
    })?;
    match (chat, embed, query) {
        (true, false, false) => Ok(Route::Chat),
        (false, true, false) => Ok(Route::Embed),
        (false, false, true) if documents => Ok(Route::Rerank),
        (false, false, _) => Err(NO_MEMBER),
        _ => Err(AMBIGUOUS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_the_arguments_chooses_the_endpoint() {
        for (args, expected) in [
            (r#"{"messages":[]}"#, Ok(Route::Chat)),
            (r#"{"messages":[],"documents":[]}"#, Ok(Route::Chat)),
            (r#"{"texts":["a"],"input_type":"search_query"}"#, Ok(Route::Embed)),
            (r#"{"images":["a"],"texts":null}"#, Ok(Route::Embed)),
            (r#"{"inputs":[]}"#, Ok(Route::Embed)),
            (r#"{"query":"a","documents":["b"]}"#, Ok(Route::Rerank)),
            (r#"{"query":"a"}"#, Err(NO_MEMBER)),
            (r#"{"documents":["b"]}"#, Err(NO_MEMBER)),
            (r#"{"message":"a"}"#, Err(NO_MEMBER)),
            (r#"{"prompt":"a"}"#, Err(NO_MEMBER)),
            (r#"{"messages":null}"#, Err(NO_MEMBER)),
            ("{}", Err(NO_MEMBER)),
            (r#"{"messages":[],"texts":["a"]}"#, Err(AMBIGUOUS)),
            (r#"{"texts":["a"],"query":"a"}"#, Err(AMBIGUOUS)),
            ("[]", Err(RouteError::NotAnObject)),
        ] {
            assert_eq!(route(args), expected, "{args}");
        }
    }
}
