//! Bedrock's InvokeModel: what each model's vendor writes, the older formats among them.
//!
//! Source: <https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html>.

use inferq_common::members::Member;

use super::{
    Shape, converse, messages,
    object::{Object, Strange, find, index, members},
    openai,
};

/// The shape that begins with this chunk.
pub(super) fn of_model(first: &str) -> Result<Box<dyn Shape>, Strange> {
    let members = members(first)?;
    let has = |key| members.iter().any(|member| member.key == key);
    let texts = |form| Ok(Box::new(Texts { form, whole: Object::default() }) as Box<dyn Shape>);
    if has("choices") {
        Ok(Box::new(openai::Choices::default()))
    } else if has("messageStart") {
        Ok(Box::new(converse::Conversation::default()))
    } else if has("generation") {
        texts(Form::Llama)
    } else if has("outputs") {
        texts(Form::Mistral)
    } else if has("outputText") {
        texts(Form::Titan)
    } else if has("event_type") {
        Ok(Box::new(CommandR::default()))
    } else if has("is_finished") {
        texts(Form::Command)
    } else if find(&members, "type").is_some() {
        Ok(Box::new(messages::Message::default()))
    } else {
        Err(Strange)
    }
}

/// Whose format of mere texts it is.
#[derive(Debug, Clone, Copy)]
enum Form {
    Llama,
    Mistral,
    Titan,
    Command,
}

#[derive(Debug)]
struct Texts {
    form: Form,
    whole: Object,
}

impl Shape for Texts {
    fn take(&mut self, chunk: &str) -> Result<(), Strange> {
        let mut members = members(chunk)?;
        members.retain(|it| it.key != "amazon-bedrock-invocationMetrics");
        match self.form {
            Form::Llama => take_over(&mut self.whole, &members, "generation"),
            Form::Mistral => self.outputs(&members),
            Form::Titan => self.result(&members),
            Form::Command => {
                let place = index(&members, "index")?;
                members.retain(|it| !matches!(it.key.as_ref(), "is_finished" | "index"));
                let generations = self.whole.slots("generations")?;
                take_over(generations.entry(place).or_default(), &members, "text")
            }
        }
    }

    fn whole(self: Box<Self>) -> Option<String> {
        Some(self.whole.to_json())
    }
}

impl Texts {
    fn outputs(&mut self, chunk: &[Member<'_>]) -> Result<(), Strange> {
        for member in chunk {
            if member.key != "outputs" {
                self.whole.set(member);
                continue;
            }
            let outputs = self.whole.slots("outputs")?;
            for (n, output) in (0..).zip(super::object::elements(member.value)?) {
                take_over(outputs.entry(n).or_default(), &members(output)?, "text")?;
            }
        }
        Ok(())
    }

    fn result(&mut self, chunk: &[Member<'_>]) -> Result<(), Strange> {
        let place = index(chunk, "index")?;
        for member in chunk {
            let member = member.clone();
            let result = self.whole.slots("results")?.entry(place).or_default();
            match member.key.as_ref() {
                "index" => {}
                "inputTextTokenCount" => self.whole.set(&member),
                "outputText" => result.text(&member)?,
                "totalOutputTextTokenCount" => {
                    if !member.is_null() {
                        result.put("tokenCount", member.value);
                    }
                }
                _ => result.set(&member),
            }
        }
        Ok(())
    }
}

/// Takes members over; the one with this name is a piece of a text.
fn take_over(own: &mut Object, members: &[Member<'_>], text: &str) -> Result<(), Strange> {
    members.iter().try_for_each(|member| {
        if member.key == text {
            return own.text(member);
        }
        own.set(member);
        Ok(())
    })
}

/// Cohere's Command R, whose last event has the whole answer.
#[derive(Debug, Default)]
struct CommandR {
    whole: Option<String>,
}

impl Shape for CommandR {
    fn take(&mut self, chunk: &str) -> Result<(), Strange> {
        let members = members(chunk)?;
        if find(&members, "event_type") == Some(r#""stream-end""#) {
            self.whole = find(&members, "response").map(str::to_owned);
        }
        Ok(())
    }

    fn whole(self: Box<Self>) -> Option<String> {
        self.whole
    }
}
