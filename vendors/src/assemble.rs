//! The whole answer, made of the parts of a streamed one.

use inferq_common::job::Json;

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
