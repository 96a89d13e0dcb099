//! Anthropic's messages, wherever they are served.
//!
//! Source: <https://platform.claude.com/docs/en/build-with-claude/streaming>.

use std::collections::BTreeMap;

use inferq_common::members::Member;

use super::{
    Shape,
    object::{Object, Strange, find, index, inner, members, said_json},
};

/// Puts the blocks of the content together. Events of a kind that is not known mean nothing, as
/// Anthropic asks of clients.
#[derive(Debug, Default)]
pub(super) struct Message {
    whole: Option<Object>,
    /// What was said of the inputs of tools, by the index of their blocks; as it is spelt inside a
    /// text.
    inputs: BTreeMap<u64, String>,
}

impl Shape for Message {
    fn take(&mut self, chunk: &str) -> Result<(), Strange> {
        let event = members(chunk)?;
        match find(&event, "type").ok_or(Strange)?.trim_matches('"') {
            "message_start" => {
                self.whole = Some(Object::of(find(&event, "message").ok_or(Strange)?)?);
            }
            "content_block_start" => {
                let block = Object::of(find(&event, "content_block").ok_or(Strange)?)?;
                let blocks = self.message()?.slots("content")?;
                blocks.insert(index(&event, "index")?, block);
            }
            "content_block_delta" => {
                self.delta(index(&event, "index")?, find(&event, "delta").ok_or(Strange)?)?;
            }
            "message_delta" => self.end(&event)?,
            _ => {}
        }
        Ok(())
    }

    fn whole(self: Box<Self>) -> Option<String> {
        let mut whole = self.whole?;
        let blocks = whole.slots("content").ok()?;
        for (index, input) in &self.inputs {
            // Where nothing came, the block began with the whole input.
            if !input.is_empty() {
                blocks.get_mut(index)?.put("input", said_json(input));
            }
        }
        Some(whole.to_json())
    }
}

impl Message {
    fn message(&mut self) -> Result<&mut Object, Strange> {
        self.whole.as_mut().ok_or(Strange)
    }

    fn delta(&mut self, index: u64, delta: &str) -> Result<(), Strange> {
        let delta = members(delta)?;
        let blocks = self.message()?.slots("content")?;
        let block = blocks.get_mut(&index).ok_or(Strange)?;
        match find(&delta, "type").unwrap_or_default().trim_matches('"') {
            "input_json_delta" => {
                let piece = find(&delta, "partial_json").and_then(inner).ok_or(Strange)?;
                self.inputs.entry(index).or_default().push_str(piece);
            }
            "citations_delta" => {
                block.add("citations", find(&delta, "citation").ok_or(Strange)?)?;
            }
            kind => {
                for member in &delta {
                    match (kind, member.key.as_ref()) {
                        (_, "type") => {}
                        ("text_delta", "text") | ("thinking_delta", "thinking") => {
                            block.text(member)?;
                        }
                        // Of a kind that is not known, or a signature.
                        _ => block.set(member),
                    }
                }
            }
        }
        Ok(())
    }

    /// The last words on the message: why it ended, what it took.
    fn end(&mut self, event: &[Member<'_>]) -> Result<(), Strange> {
        let message = self.message()?;
        for member in event {
            match member.key.as_ref() {
                "type" => {}
                "delta" if !member.is_null() => {
                    members(member.value)?.iter().for_each(|member| message.set(member));
                }
                // What was told before and is left out now still holds.
                "usage" if !member.is_null() => {
                    let usage = message.object("usage")?;
                    members(member.value)?.iter().for_each(|member| usage.set(member));
                }
                _ => message.set(member),
            }
        }
        Ok(())
    }
}
