//! LLM Engine's own completions.
//!
//! Source: <https://llm-engine.scale.com/api/data_types/>.

use super::{
    Shape,
    object::{Object, Strange, members},
};

#[derive(Debug, Default)]
pub(super) struct Completion {
    whole: Object,
}

impl Shape for Completion {
    fn take(&mut self, chunk: &str) -> Result<(), Strange> {
        for member in members(chunk)? {
            match member.key.as_ref() {
                // An error ends the stream before it comes here.
                "error" if member.is_null() => {}
                "output" if !member.is_null() => self.output(member.value)?,
                _ => self.whole.set(&member),
            }
        }
        Ok(())
    }

    fn whole(self: Box<Self>) -> Option<String> {
        self.whole.has("output").then(|| self.whole.to_json())
    }
}

impl Completion {
    fn output(&mut self, output: &str) -> Result<(), Strange> {
        let own = self.whole.object("output")?;
        for member in members(output)? {
            match member.key.as_ref() {
                "finished" => {}
                "text" => own.text(&member)?,
                "token" if member.is_null() => {}
                "token" => own.add("tokens", member.value)?,
                _ => own.set(&member),
            }
        }
        Ok(())
    }
}
