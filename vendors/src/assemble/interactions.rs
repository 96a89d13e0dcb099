//! Google's interactions. The last event has the interaction without its steps, as a rule.
//!
//! Source: <https://ai.google.dev/api/interactions-api> and recorded answers.

use std::collections::BTreeMap;

use inferq_common::members::Member;

use super::{
    Shape,
    object::{Object, Slots, Strange, find, index, inner, members, push, said_json},
};

#[derive(Debug, Default)]
pub(super) struct Interaction {
    whole: Object,
    steps: Slots,
    /// What was said of the arguments of functions, by the index of their steps; as it is spelt
    /// inside a text.
    arguments: BTreeMap<u64, String>,
}

impl Shape for Interaction {
    fn take(&mut self, chunk: &str) -> Result<(), Strange> {
        let event = members(chunk)?;
        if let Some(interaction) = find(&event, "interaction") {
            members(interaction)?.iter().for_each(|member| self.whole.set(member));
        }
        match find(&event, "event_type").unwrap_or_default().trim_matches('"') {
            "step.start" => {
                let step = Object::of(find(&event, "step").ok_or(Strange)?)?;
                self.steps.insert(index(&event, "index")?, step);
            }
            "step.delta" => {
                self.delta(index(&event, "index")?, find(&event, "delta").ok_or(Strange)?)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn whole(self: Box<Self>) -> Option<String> {
        let Self { mut whole, mut steps, arguments } = *self;
        for (index, said) in arguments {
            if !said.is_empty() {
                steps.get_mut(&index)?.put("arguments", said_json(&said));
            }
        }
        whole.value("id").or(whole.value("status"))?;
        if whole.value("steps").is_none_or(|steps| steps == "[]") {
            *whole.slots("steps").ok()? = steps;
        }
        Some(whole.to_json())
    }
}

impl Interaction {
    fn delta(&mut self, index: u64, delta: &str) -> Result<(), Strange> {
        let step = self.steps.get_mut(&index).ok_or(Strange)?;
        let members = members(delta)?;
        let kind = find(&members, "type").unwrap_or_default().trim_matches('"');
        match kind {
            "arguments_delta" => {
                let piece = find(&members, "arguments").and_then(inner).ok_or(Strange)?;
                self.arguments.entry(index).or_default().push_str(piece);
            }
            "thought_summary" => {
                add_content(step.slots("summary")?, find(&members, "content").ok_or(Strange)?)?;
            }
            "text_annotation" => annotate(step, &members)?,
            _ if step.value("type") == Some(r#""model_output""#) => {
                add_content(step.slots("content")?, delta)?;
            }
            _ => members.iter().filter(|it| it.key != "type").for_each(|it| step.set(it)),
        }
        Ok(())
    }
}

/// Adds what a model said; a text continues the text before it.
fn add_content(contents: &mut Slots, content: &str) -> Result<(), Strange> {
    let is_text = |content: &Object| content.value("type") == Some(r#""text""#);
    let new = Object::of(content)?;
    let mut last = contents.last_entry().filter(|last| is_text(last.get()) && is_text(&new));
    let Some(last) = last.as_mut() else {
        push(contents, new);
        return Ok(());
    };
    for member in members(content)? {
        match member.key.as_ref() {
            "text" => last.get_mut().text(&member)?,
            "annotations" => last.get_mut().extend(&member)?,
            _ => last.get_mut().set(&member),
        }
    }
    Ok(())
}

/// Adds annotations to the text that was said last.
fn annotate(step: &mut Object, delta: &[Member<'_>]) -> Result<(), Strange> {
    let contents = step.slots("content")?;
    let mut last = contents.last_entry().ok_or(Strange)?;
    for member in delta {
        match member.key.as_ref() {
            "type" => {}
            "annotations" => last.get_mut().extend(member)?,
            _ => last.get_mut().set(member),
        }
    }
    Ok(())
}
