//! Bedrock's Converse, and Nova's own format, which is the same but for the metrics.
//!
//! Source: <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html>.

use std::collections::BTreeMap;

use inferq_common::members::Member;

use super::{
    Shape,
    object::{Object, Slots, Strange, find, index, inner, members, said_json},
};

/// Puts the message together of the events, `{"TYPE": PAYLOAD}` each.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    message: Object,
    blocks: Slots,
    /// What was said of the inputs of tools, by the index of their blocks; as it is spelt inside a
    /// text.
    inputs: BTreeMap<u64, String>,
    /// What stands beside the message.
    rest: Object,
}

impl Shape for Conversation {
    fn take(&mut self, chunk: &str) -> Result<(), Strange> {
        for event in members(chunk)? {
            match event.key.as_ref() {
                "messageStart" => copy(&mut self.message, event.value)?,
                "contentBlockStart" => self.start(event.value)?,
                "contentBlockDelta" => self.delta(event.value)?,
                "messageStop" | "metadata" => copy(&mut self.rest, event.value)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn whole(self: Box<Self>) -> Option<String> {
        let Self { mut message, mut blocks, inputs, rest } = *self;
        if !message.has("role") {
            return None;
        }
        for (index, input) in inputs {
            blocks.get_mut(&index)?.object("toolUse").ok()?.put("input", said_json(&input));
        }
        // Some models begin with a text in which they say nothing.
        let is_blank =
            |it: &Object| it.has_only(&["text"]) && it.is_empty_text("text") == Some(true);
        if blocks.values().any(|block| !is_blank(block)) {
            blocks.retain(|_, block| !is_blank(block));
        }
        for block in blocks.values_mut() {
            settle(block).ok()?;
        }
        *message.slots("content").ok()? = blocks;
        let mut whole = format!(r#"{{"output":{{"message":{}}}"#, message.to_json());
        let rest = rest.to_json();
        if rest != "{}" {
            whole.push(',');
        }
        whole.push_str(&rest[1..]);
        Some(whole)
    }
}

impl Conversation {
    /// `{"contentBlockIndex": N, "start": {"toolUse": {…}}}`.
    fn start(&mut self, payload: &str) -> Result<(), Strange> {
        let payload = members(payload)?;
        let index = index(&payload, "contentBlockIndex")?;
        let block = self.blocks.entry(index).or_default();
        for member in find(&payload, "start").map(members).transpose()?.unwrap_or_default() {
            if member.key == "toolUse" {
                self.inputs.entry(index).or_default();
            }
            block.set(&member);
        }
        Ok(())
    }

    fn delta(&mut self, payload: &str) -> Result<(), Strange> {
        let payload = members(payload)?;
        let index = index(&payload, "contentBlockIndex")?;
        let block = self.blocks.entry(index).or_default();
        for member in members(find(&payload, "delta").ok_or(Strange)?)? {
            match member.key.as_ref() {
                "text" => block.text(&member)?,
                "toolUse" => {
                    let tool = members(member.value)?;
                    let piece = find(&tool, "input").and_then(inner).ok_or(Strange)?;
                    self.inputs.entry(index).or_default().push_str(piece);
                }
                "reasoningContent" => think(block.object("reasoningContent")?, member.value)?,
                "citation" => block.add("citation", member.value)?,
                "toolResult" => {
                    let content =
                        Member { key: "content".into(), raw_key: r#""content""#, ..member };
                    block.object("toolResult")?.extend(&content)?;
                }
                "image" => {
                    let image = block.object("image")?;
                    members(member.value)?.iter().for_each(|member| image.set(member));
                }
                _ => block.set(&member),
            }
        }
        Ok(())
    }
}

/// Takes over the members of a payload, but for the random letters that hide its length.
fn copy(own: &mut Object, payload: &str) -> Result<(), Strange> {
    members(payload)?.iter().filter(|it| it.key != "p").for_each(|it| own.set(it));
    Ok(())
}

fn think(own: &mut Object, piece: &str) -> Result<(), Strange> {
    for member in members(piece)? {
        match member.key.as_ref() {
            "text" | "signature" => own.object("reasoningText")?.text(&member)?,
            _ => own.set(&member),
        }
    }
    Ok(())
}

/// Gives a text with citations the form that it has in a whole answer.
fn settle(block: &mut Object) -> Result<(), Strange> {
    if let Some(citations) = block.take_out("citation") {
        let text = block.take_out("text").unwrap_or_else(|| r#""""#.to_owned());
        let own = block.object("citationsContent")?;
        own.put("content", format!(r#"[{{"text":{text}}}]"#));
        own.put("citations", citations);
    }
    Ok(())
}
