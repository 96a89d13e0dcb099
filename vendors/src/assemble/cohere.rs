//! Cohere's chat, version 2.
//!
//! Source: <https://docs.cohere.com/docs/streaming>.

use inferq_common::members::Member;

use super::{
    Shape,
    object::{Object, Strange, find, index, members, push},
};

/// Puts the message together of the events, each of which stands for one member of it.
#[derive(Debug, Default)]
pub(super) struct Chat {
    whole: Object,
}

impl Shape for Chat {
    fn take(&mut self, chunk: &str) -> Result<(), Strange> {
        let event = members(chunk)?;
        let kind = find(&event, "type").ok_or(Strange)?.trim_matches('"');
        let delta = find(&event, "delta").map(members).transpose()?.unwrap_or_default();
        match kind {
            "message-start" => {
                event.iter().filter(|it| it.key == "id").for_each(|it| self.whole.set(it));
                for member in message(&delta)? {
                    // The rest is empty, and absent from a whole answer where it stays so.
                    if member.key == "role" {
                        self.whole.object("message")?.set(&member);
                    }
                }
            }
            "message-end" => delta.iter().for_each(|member| self.whole.set(member)),
            _ => self.part(kind, index(&event, "index")?, &message(&delta)?)?,
        }
        // Of one piece each; a whole answer has them in a list.
        if let Some(logprobs) = find(&event, "logprobs") {
            self.whole.add("logprobs", logprobs)?;
        }
        Ok(())
    }

    fn whole(self: Box<Self>) -> Option<String> {
        self.whole.has("message").then(|| self.whole.to_json())
    }
}

impl Chat {
    /// One part of the message, or a piece of it.
    fn part(&mut self, kind: &str, index: u64, parts: &[Member<'_>]) -> Result<(), Strange> {
        let own = self.whole.object("message")?;
        for member in parts {
            match (kind, member.key.as_ref()) {
                ("content-start", "content") => {
                    own.slots("content")?.insert(index, Object::of(member.value)?);
                }
                ("content-delta", "content") => {
                    let content = own.slots("content")?.entry(index).or_default();
                    for member in members(member.value)? {
                        match member.key.as_ref() {
                            "text" | "thinking" => content.text(&member)?,
                            _ => content.set(&member),
                        }
                    }
                }
                ("tool-plan-delta", "tool_plan") => own.text(member)?,
                ("tool-call-start", "tool_calls") => {
                    own.slots("tool_calls")?.insert(index, Object::of(member.value)?);
                }
                ("tool-call-delta", "tool_calls") => {
                    let call = own.slots("tool_calls")?.entry(index).or_default();
                    continue_call(call, member.value)?;
                }
                // Each block of the content counts its own.
                ("citation-start", "citations") => {
                    push(own.slots("citations")?, Object::of(member.value)?);
                }
                _ => own.set(member),
            }
        }
        Ok(())
    }
}

/// The members of the message that a delta has.
fn message<'a>(delta: &[Member<'a>]) -> Result<Vec<Member<'a>>, Strange> {
    find(delta, "message").map_or(Ok(Vec::new()), members)
}

fn continue_call(call: &mut Object, piece: &str) -> Result<(), Strange> {
    for member in members(piece)? {
        if member.key != "function" {
            call.set(&member);
            continue;
        }
        let function = call.object("function")?;
        for member in members(member.value)? {
            match member.key.as_ref() {
                "arguments" => function.text(&member)?,
                _ => function.set(&member),
            }
        }
    }
    Ok(())
}
