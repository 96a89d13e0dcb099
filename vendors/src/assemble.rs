//! The whole answer, made of the parts of a streamed one.
//!
//! Texts are joined and members merged as they are spelt, so that numbers, escapes and what is not
//! known here come out as the vendor wrote them. Each shape of stream has a file.

mod cohere;
mod completion;
mod converse;
mod generate_content;
mod interactions;
mod llmengine;
mod messages;
mod object;
mod openai;
mod responses;
mod tasks;

use std::fmt;

use inferq_common::job::Json;

use self::object::{Strange, find, members};

/// Takes the chunks of one stream and makes the answer the vendor would have given without one.
pub trait Assemble: Send {
    /// Takes the next chunk, a JSON document of the vendor's.
    fn push(&mut self, chunk: &Json);

    /// The answer, once the stream has ended as it should.
    fn finish(self: Box<Self>) -> Json;
}

/// For streams whose whole answer has no form of its own: the chunks in an array.
#[derive(Debug, Default)]
pub struct Collected(Vec<Json>);

impl Assemble for Collected {
    fn push(&mut self, chunk: &Json) {
        self.0.push(chunk.clone());
    }

    fn finish(self: Box<Self>) -> Json {
        Json::of(&self.0).expect("JSON documents are an array of JSON documents")
    }
}

/// Whatever the chunks are, the answer is this one.
#[derive(Debug)]
pub(crate) struct Known(pub Json);

impl Assemble for Known {
    fn push(&mut self, _: &Json) {}

    fn finish(self: Box<Self>) -> Json {
        self.0
    }
}

/// One shape of stream, and what whole answer it stands for.
///
/// Cost: linear in the chunks, in time and memory.
trait Shape: fmt::Debug + Send {
    /// # Errors
    /// The chunk is not of this shape.
    fn take(&mut self, chunk: &str) -> Result<(), Strange>;

    /// The JSON of the whole answer; `None`: it cannot be made of what was taken.
    fn whole(self: Box<Self>) -> Option<String>;
}

/// Assembles one shape. Where a chunk is strange to it, the answer is all the chunks in an array:
/// nothing is lost.
#[derive(Debug)]
struct Whole {
    chunks: Collected,
    /// `None` from the first strange chunk on.
    shape: Option<Box<dyn Shape>>,
}

impl Whole {
    fn of(shape: impl Shape + 'static) -> Box<dyn Assemble> {
        Box::new(Self { chunks: Collected::default(), shape: Some(Box::new(shape)) })
    }
}

impl Assemble for Whole {
    fn push(&mut self, chunk: &Json) {
        self.chunks.push(chunk);
        let taken = self.shape.as_mut().map(|shape| shape.take(chunk.as_str()));
        if let Some(Err(Strange)) = taken {
            self.shape = None;
        }
    }

    fn finish(self: Box<Self>) -> Json {
        let whole = self.shape.and_then(Shape::whole);
        match whole.and_then(|text| Json::parse(text).ok()) {
            Some(whole) => whole,
            None => Box::new(self.chunks).finish(),
        }
    }
}

/// A stream of one of several shapes; its first chunk tells which.
struct Told {
    choose: fn(&str) -> Result<Box<dyn Shape>, Strange>,
    shape: Option<Box<dyn Shape>>,
}

impl Told {
    fn by(choose: fn(&str) -> Result<Box<dyn Shape>, Strange>) -> Self {
        Self { choose, shape: None }
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Shape for Told {
    fn take(&mut self, chunk: &str) -> Result<(), Strange> {
        let shape = match &mut self.shape {
            Some(shape) => shape,
            shape => shape.insert((self.choose)(chunk)?),
        };
        shape.take(chunk)
    }

    fn whole(self: Box<Self>) -> Option<String> {
        self.shape?.whole()
    }
}

/// Chat completions and completions in OpenAI's format.
pub(crate) fn openai() -> Box<dyn Assemble> {
    Whole::of(openai::Choices::default())
}

/// OpenAI's Responses.
pub(crate) fn responses() -> Box<dyn Assemble> {
    Whole::of(responses::Response::default())
}

/// Anthropic's messages.
pub(crate) fn messages() -> Box<dyn Assemble> {
    Whole::of(messages::Message::default())
}

/// Messages, or chat completions, whichever it turns out to be.
pub(crate) fn raw_predict() -> Box<dyn Assemble> {
    Whole::of(Told::by(|first| {
        let members = members(first)?;
        Ok(match find(&members, "choices").or(find(&members, "object")) {
            Some(_) => Box::new(openai::Choices::default()),
            None => Box::new(messages::Message::default()) as Box<dyn Shape>,
        })
    }))
}

/// Google's `streamGenerateContent`.
pub(crate) fn generate_content() -> Box<dyn Assemble> {
    Whole::of(generate_content::Content::default())
}

/// Google's interactions.
pub(crate) fn interactions() -> Box<dyn Assemble> {
    Whole::of(interactions::Interaction::default())
}

/// Cohere's chat, version 2.
pub(crate) fn cohere() -> Box<dyn Assemble> {
    Whole::of(cohere::Chat::default())
}

/// Bedrock's Converse.
pub(crate) fn converse() -> Box<dyn Assemble> {
    Whole::of(converse::Conversation::default())
}

/// Bedrock's InvokeModel, in the format of the model's vendor.
pub(crate) fn invoke() -> Box<dyn Assemble> {
    Whole::of(Told::by(completion::of_model))
}

/// LLM Engine's own completions.
pub(crate) fn llmengine() -> Box<dyn Assemble> {
    Whole::of(llmengine::Completion::default())
}

/// The tasks of a Launch gateway.
pub(crate) fn tasks() -> Box<dyn Assemble> {
    Whole::of(tasks::Tasks::of_gateway())
}

/// What a container says by itself.
pub(crate) fn container() -> Box<dyn Assemble> {
    Whole::of(tasks::Tasks::of_container())
}

#[cfg(test)]
mod tests;
