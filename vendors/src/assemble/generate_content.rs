//! Google's generated content, of the Gemini API and of Vertex AI.
//!
//! Source: <https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent>.

use super::{
    Shape,
    object::{Object, Slots, Strange, elements, find, index, members, push},
};

/// Puts the candidates together, each of its parts. Usage and what else stands beside them is told
/// anew by every chunk: the last one counts.
#[derive(Debug, Default)]
pub(super) struct Content {
    whole: Object,
}

impl Shape for Content {
    fn take(&mut self, chunk: &str) -> Result<(), Strange> {
        for member in members(chunk)? {
            match member.key.as_ref() {
                "candidates" if !member.is_null() => self.candidates(member.value)?,
                _ => self.whole.set(&member),
            }
        }
        Ok(())
    }

    fn whole(self: Box<Self>) -> Option<String> {
        let is_answer = self.whole.has("candidates") || self.whole.has("promptFeedback");
        is_answer.then(|| self.whole.to_json())
    }
}

impl Content {
    fn candidates(&mut self, candidates: &str) -> Result<(), Strange> {
        let all = self.whole.slots("candidates")?;
        for (place, candidate) in (0..).zip(elements(candidates)?) {
            let members = members(candidate)?;
            let index = match find(&members, "index") {
                Some(_) => index(&members, "index")?,
                None => place,
            };
            let own = all.entry(index).or_default();
            for member in members {
                match member.key.as_ref() {
                    "content" if !member.is_null() => {
                        content(own.object("content")?, member.value)?;
                    }
                    // Each chunk tells of its own words.
                    "logprobsResult" | "citationMetadata" => own.continue_lists(&member)?,
                    _ => own.set(&member),
                }
            }
        }
        Ok(())
    }
}

fn content(own: &mut Object, content: &str) -> Result<(), Strange> {
    for member in members(content)? {
        if member.key == "parts" && !member.is_null() {
            let parts = own.slots("parts")?;
            elements(member.value)?.into_iter().try_for_each(|part| add_part(parts, part))?;
        } else {
            own.set(&member);
        }
    }
    Ok(())
}

/// Adds a part. A mere text continues the text before it, if both are thoughts or neither is; one
/// with a signature must stay as it is:
/// <https://ai.google.dev/gemini-api/docs/thought-signatures>.
fn add_part(parts: &mut Slots, part: &str) -> Result<(), Strange> {
    let new = Object::of(part)?;
    let is_mere_text = |part: &Object| {
        part.has_only(&["text", "thought"]).then(|| part.is_empty_text("text")).flatten()
    };
    let is_thought = |part: &Object| part.value("thought") == Some("true");
    if let (Some(is_empty), Some(mut last)) = (is_mere_text(&new), parts.last_entry()) {
        let last = last.get_mut();
        if is_mere_text(last).is_some() && is_thought(last) == is_thought(&new) {
            let members = members(part)?;
            return members.iter().filter(|it| it.key == "text").try_for_each(|it| last.text(it));
        }
        if is_empty {
            return Ok(());
        }
    }
    push(parts, new);
    Ok(())
}
