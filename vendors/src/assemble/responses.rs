//! OpenAI's Responses: the last event carries the whole response.
//!
//! Source: <https://platform.openai.com/docs/api-reference/responses-streaming>.

use super::{
    Shape,
    object::{Strange, find, members},
};

#[derive(Debug, Default)]
pub(super) struct Response {
    whole: Option<String>,
}

impl Shape for Response {
    fn take(&mut self, chunk: &str) -> Result<(), Strange> {
        let members = members(chunk)?;
        let kind = find(&members, "type").unwrap_or_default();
        let is_last = matches!(
            kind.trim_matches('"'),
            "response.completed" | "response.incomplete" | "response.failed"
        );
        if is_last {
            self.whole = find(&members, "response").map(str::to_owned);
        }
        Ok(())
    }

    fn whole(self: Box<Self>) -> Option<String> {
        self.whole
    }
}
