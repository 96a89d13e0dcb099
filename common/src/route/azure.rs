//! The endpoints of Azure: OpenAI's, and Anthropic's for Claude.

use super::{RouteError, openai};
use crate::{job::Route, members::each_member};

/// The last is only taken where it is named: its arguments are those of messages.
pub(super) const ROUTES: &[Route] = &[
    Route::ChatCompletions,
    Route::Completions,
    Route::Embeddings,
    Route::Responses,
    Route::Messages,
    Route::CountTokens,
];

/// `messages` to a deployment with `claude` in its name, or beside members that only Anthropic
/// knows, mean messages; anything else is told apart as for OpenAI. A member that is `null` counts
/// as absent.
///
/// Source: <https://learn.microsoft.com/en-us/azure/ai-foundry/foundry-models/how-to/use-foundry-models-claude>.
pub(super) fn route(args: &str, model: &str) -> Result<Route, RouteError> {
    let chosen = openai::route(args, model)?;
    if chosen != Route::ChatCompletions {
        return Ok(chosen);
    }
    let mut is_anthropic = model.to_ascii_lowercase().contains("claude");
    each_member(args, |member| {
        let own = ["system", "stop_sequences", "anthropic_version"];
        is_anthropic |= own.contains(&member.key.as_ref()) && !member.is_null();
    })?;
    Ok(if is_anthropic { Route::Messages } else { chosen })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claude_is_told_from_the_others_by_its_name_or_its_members() {
        let chat = r#"{"messages":[],"max_tokens":1}"#;
        for (args, model, expected) in [
            (chat, "gpt-4o", Route::ChatCompletions),
            (chat, "claude-sonnet-4-5", Route::Messages),
            (chat, "team-Claude", Route::Messages),
            (r#"{"messages":[],"system":"be brief"}"#, "mine", Route::Messages),
            (r#"{"messages":[],"stop_sequences":["a"]}"#, "mine", Route::Messages),
            (r#"{"messages":[],"system":null}"#, "mine", Route::ChatCompletions),
            (r#"{"input":"a"}"#, "text-embedding-3-small", Route::Embeddings),
            (r#"{"input":"a"}"#, "gpt-5", Route::Responses),
            (r#"{"prompt":"a"}"#, "gpt-35-turbo-instruct", Route::Completions),
        ] {
            assert_eq!(route(args, model), Ok(expected), "{args} for {model}");
        }
        assert!(route("{}", "gpt-5").is_err());
    }
}
