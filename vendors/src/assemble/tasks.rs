//! Launch's streaming tasks, and what containers stream by themselves.
//!
//! A model in a container says what it likes. Where that is chat completions or completions in
//! OpenAI's format, the answer is a whole one of them; anything else is a list of what was said, each
//! as a task's result would have it.
//!
//! Source: <https://github.com/scaleapi/launch-python-client>.

use serde_json::value::RawValue;

use super::{
    Shape,
    object::{Strange, find, members},
    openai::Choices,
};

#[derive(Debug)]
pub(super) struct Tasks {
    /// Whether the chunks are a gateway's tasks, with what the model said inside.
    is_gateway: bool,
    said: Vec<String>,
    /// `None` once something was said that is no chunk of OpenAI's.
    choices: Option<Box<Choices>>,
}

impl Tasks {
    pub(super) fn of_gateway() -> Self {
        Self { is_gateway: true, said: Vec::new(), choices: None }
    }

    pub(super) fn of_container() -> Self {
        Self { is_gateway: false, ..Self::of_gateway() }
    }
}

impl Shape for Tasks {
    fn take(&mut self, chunk: &str) -> Result<(), Strange> {
        let said = if self.is_gateway { said(chunk) } else { chunk.to_owned() };
        let is_chunk =
            members(&said).is_ok_and(|members| members.iter().any(|it| it.key == "choices"));
        let choices = match self.choices.take() {
            None if self.said.is_empty() => Some(Box::default()),
            choices => choices,
        };
        self.choices = choices
            .filter(|_| is_chunk)
            .and_then(|mut choices| choices.take(&said).ok().map(|()| choices));
        self.said.push(said);
        Ok(())
    }

    fn whole(self: Box<Self>) -> Option<String> {
        let whole = self.choices.and_then(Shape::whole);
        whole.or_else(|| Some(format!("[{}]", self.said.join(","))))
    }
}

/// What the model said: a gateway's task has it under `result`, and there once more; a text may be
/// the JSON.
fn said(chunk: &str) -> String {
    let task = members(chunk).unwrap_or_default();
    let Some(result) = find(&task, "result") else { return "null".to_owned() };
    let wrapped = members(result).unwrap_or_default();
    let inner = find(&wrapped, "result").unwrap_or(result);
    match serde_json::from_str::<String>(inner) {
        Ok(text) if serde_json::from_str::<&RawValue>(&text).is_ok() => text,
        _ => inner.to_owned(),
    }
}
