//! The endpoints of Anthropic.

use super::RouteError;
use crate::{job::Route, members::each_member};

/// The second is only taken where it is named: its arguments are those of the first.
pub(super) const ROUTES: &[Route] = &[Route::Messages, Route::CountTokens];

const NO_MEMBER: RouteError = RouteError::NoMember(
    "messages need 'messages' (the old completions, with 'prompt', are no longer served)",
);

/// Chooses the endpoint for `args` from the names of their top-level members. A member that is
/// `null` counts as absent.
///
/// Source: <https://platform.claude.com/docs/en/api/messages>.
pub(super) fn route(args: &str) -> Result<Route, RouteError> {
    let mut messages = false;
    each_member(args, |member| messages |= member.key == "messages" && !member.is_null())?;
    if messages { Ok(Route::Messages) } else { Err(NO_MEMBER) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_sent_to_messages() {
        for args in [r#"{"messages":[]}"#, r#"{"max_tokens":1,"\u006dessages":[]}"#] {
            assert_eq!(route(args), Ok(Route::Messages), "{args}");
        }
    }

    #[test]
    fn what_has_no_messages_says_what_is_looked_for() {
        for args in ["{}", r#"{"messages":null}"#, r#"{"prompt":"a","max_tokens_to_sample":1}"#] {
            assert_eq!(route(args), Err(NO_MEMBER), "{args}");
        }
        assert!(NO_MEMBER.to_string().contains("'messages'"));
        assert_eq!(route("[]"), Err(RouteError::NotAnObject));
    }
}
