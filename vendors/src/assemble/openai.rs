//! Chat completions and completions in OpenAI's format, with what other servers add to it.
//!
//! Source: <https://platform.openai.com/docs/api-reference/chat-streaming>.

use std::collections::HashMap;

use inferq_common::members::Member;

use super::{
    Shape,
    object::{Object, Slots, Strange, elements, find, index, inner, members, push},
};

/// Puts the choices together, each of its deltas.
#[derive(Debug, Default)]
pub(super) struct Choices {
    whole: Object,
    /// By the index of the choice.
    calls: HashMap<u64, Calls>,
}

/// Where the tool calls of one choice stand, by their `index`.
#[derive(Debug, Default)]
struct Calls {
    places: HashMap<u64, u64>,
}

impl Shape for Choices {
    fn take(&mut self, chunk: &str) -> Result<(), Strange> {
        for member in members(chunk)? {
            match member.key.as_ref() {
                // Padding, and the last word of Bedrock: of the stream, not of the answer.
                "obfuscation" | "amazon-bedrock-invocationMetrics" => {}
                "choices" if !member.is_null() => self.choices(member.value)?,
                "object" => {
                    let value = member.value.replace(".chunk\"", "\"");
                    self.whole.set(&Member { value: &value, ..member });
                }
                _ => self.whole.set(&member),
            }
        }
        Ok(())
    }

    fn whole(mut self: Box<Self>) -> Option<String> {
        if !self.whole.has("choices") {
            return None;
        }
        for choice in self.whole.slots("choices").ok()?.values_mut() {
            if choice.has("message") {
                let message = choice.object("message").ok()?;
                message.put_default("role", r#""assistant""#);
                message.put_default("content", "null");
            }
        }
        Some(self.whole.to_json())
    }
}

impl Choices {
    fn choices(&mut self, choices: &str) -> Result<(), Strange> {
        let all = self.whole.slots("choices")?;
        for (place, choice) in (0..).zip(elements(choices)?) {
            let members = members(choice)?;
            let index = match find(&members, "index") {
                Some(_) => index(&members, "index")?,
                None => place,
            };
            let own = all.entry(index).or_default();
            let calls = self.calls.entry(index).or_default();
            for member in members {
                match member.key.as_ref() {
                    "delta" if member.is_null() => {}
                    "delta" => delta(own.object("message")?, calls, member.value)?,
                    "text" => own.text(&member)?,
                    "logprobs" => own.continue_lists(&member)?,
                    _ => own.set(&member),
                }
            }
        }
        Ok(())
    }
}

fn delta(message: &mut Object, calls: &mut Calls, delta: &str) -> Result<(), Strange> {
    for member in members(delta)? {
        match member.key.as_ref() {
            "content" => content(message, &member)?,
            "refusal" | "reasoning_content" | "reasoning" | "thinking" => message.text(&member)?,
            "tool_calls" if !member.is_null() => {
                let all = message.slots("tool_calls")?;
                for call in elements(member.value)? {
                    calls.take(all, call)?;
                }
            }
            "function_call" if !member.is_null() => {
                texts(message.object("function_call")?, member.value, &["name", "arguments"])?;
            }
            "audio" if !member.is_null() => {
                texts(message.object("audio")?, member.value, &["data", "transcript"])?;
            }
            "annotations" | "reasoning_details" | "token_ids" => message.extend(&member)?,
            _ => message.set(&member),
        }
    }
    Ok(())
}

/// Joins those members that are pieces of texts and takes over the others.
fn texts(own: &mut Object, object: &str, joined: &[&str]) -> Result<(), Strange> {
    for member in members(object)? {
        // Old servers write arguments as an object, at once.
        if joined.contains(&member.key.as_ref()) && !member.value.starts_with('{') {
            own.text(&member)?;
        } else {
            own.set(&member);
        }
    }
    Ok(())
}

/// A text in most cases; Mistral's models that think write a list of parts, then texts.
fn content(message: &mut Object, member: &Member<'_>) -> Result<(), Strange> {
    let as_part = |text: &str| format!(r#"{{"type":"text","text":{text}}}"#);
    if member.value.starts_with('[') {
        let is_empty = message.is_empty_text("content");
        let before = is_empty.and_then(|_| message.take_out("content"));
        let parts = message.slots("content")?;
        if let Some(before) = before.filter(|_| is_empty == Some(false)) {
            add_part(parts, &as_part(&before))?;
        }
        return elements(member.value)?.into_iter().try_for_each(|part| add_part(parts, part));
    }
    match message.text(member) {
        Err(Strange) if inner(member.value).is_some() => {
            add_part(message.slots("content")?, &as_part(member.value))
        }
        taken => taken,
    }
}

/// Adds a part of a content; what continues the last one is joined to it.
fn add_part(parts: &mut Slots, part: &str) -> Result<(), Strange> {
    let kind = |part: &Object| part.value("type").map(str::to_owned);
    let new = Object::of(part)?;
    let last = parts.last_entry().filter(|last| kind(last.get()) == kind(&new));
    match (kind(&new).as_deref(), last) {
        (Some(r#""text""#), Some(mut last)) if new.has_only(&["type", "text"]) => {
            texts(last.get_mut(), part, &["text"])
        }
        (Some(r#""thinking""#), Some(mut last)) => {
            for member in members(part)? {
                if member.key == "thinking" {
                    last.get_mut().extend(&member)?;
                } else {
                    last.get_mut().set(&member);
                }
            }
            Ok(())
        }
        _ => {
            push(parts, new);
            Ok(())
        }
    }
}

impl Calls {
    fn take(&mut self, all: &mut Slots, call: &str) -> Result<(), Strange> {
        let members = members(call)?;
        let own = all.entry(self.place(all, &members)?).or_default();
        for member in members {
            match member.key.as_ref() {
                "index" => {}
                "function" if !member.is_null() => {
                    texts(own.object("function")?, member.value, &["name", "arguments"])?;
                }
                _ => own.set(&member),
            }
        }
        Ok(())
    }

    /// Where a piece of a call belongs. A call is new where its index is; or, as some servers give
    /// every call the same index or none, where it has a name and another id.
    fn place(&mut self, all: &Slots, call: &[Member<'_>]) -> Result<u64, Strange> {
        let next = all.last_key_value().map_or(0, |(last, _)| last + 1);
        let known = match find(call, "index") {
            Some(_) => self.places.get(&index(call, "index")?).copied(),
            None => next.checked_sub(1),
        };
        let id = find(call, "id").filter(|id| *id != r#""""#);
        let names = find(call, "function").map(members).transpose()?;
        let names = names.is_some_and(|it| find(&it, "name").is_some_and(|it| it != r#""""#));
        let another = known.and_then(|known| all.get(&known)).is_some_and(|own| {
            names && id.is_some() && own.value("id").is_some_and(|own| Some(own) != id)
        });
        let place = match known {
            Some(known) if !another => known,
            _ => next,
        };
        self.places.insert(index(call, "index")?, place);
        Ok(place)
    }
}
