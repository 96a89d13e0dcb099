//! What xAI counts in its own way.

use inferq_common::{job::Route, usage::Usage};
use serde_json::Value;

use crate::openai::wire;

/// What a `usage` object says.
///
/// Of chat completions and completions xAI keeps the tokens of reasoning out of
/// `completion_tokens`: the total is prompt, completion and reasoning. Of responses it counts them
/// in, as OpenAI does everywhere.
pub(super) fn usage(route: Route, usage: &Value) -> Usage {
    let read = wire::usage(route, usage);
    if route == Route::Responses {
        return read;
    }
    let reasoning = read.reasoning_tokens.unwrap_or(0);
    let output = read.output_tokens.map(|tokens| tokens.saturating_add(reasoning));
    Usage { output_tokens: output, ..read }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reasoning_comes_on_top_of_a_chats_completion_but_not_of_a_response() {
        let chat = json!({
            "prompt_tokens": 204, "completion_tokens": 2, "total_tokens": 268,
            "prompt_tokens_details": {"cached_tokens": 128},
            "completion_tokens_details": {"reasoning_tokens": 62}
        });
        let expected = Usage {
            input_tokens: Some(204),
            cached_input_tokens: Some(128),
            cache_write_tokens: None,
            output_tokens: Some(64),
            reasoning_tokens: Some(62),
        };
        assert_eq!(usage(Route::ChatCompletions, &chat), expected);
        let response = json!({
            "input_tokens": 204, "output_tokens": 64, "total_tokens": 268,
            "input_tokens_details": {"cached_tokens": 128},
            "output_tokens_details": {"reasoning_tokens": 62}
        });
        assert_eq!(usage(Route::Responses, &response), expected);
    }

    #[test]
    fn what_is_not_told_stays_absent() {
        assert_eq!(usage(Route::ChatCompletions, &json!({})), Usage::default());
        let plain = json!({"completion_tokens": 3});
        assert_eq!(usage(Route::ChatCompletions, &plain).output_tokens, Some(3));
        let odd = json!({"completion_tokens_details": {"reasoning_tokens": 3}});
        assert_eq!(usage(Route::ChatCompletions, &odd).output_tokens, None);
        let huge = json!({"completion_tokens": u64::MAX, "completion_tokens_details": {"reasoning_tokens": 3}});
        assert_eq!(usage(Route::ChatCompletions, &huge).output_tokens, Some(u64::MAX));
    }
}
