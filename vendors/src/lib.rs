//! One adapter per model vendor: it translates and classifies, nothing more.

pub mod assemble;
pub mod auth;
pub mod elements;
pub mod error;
pub mod eventstream;
pub mod framing;
pub mod hint;
pub mod json;
pub mod memory;
pub mod remote;
pub mod sse;

mod choices;
mod registry;

pub mod anthropic;
pub mod azure;
pub mod bedrock;
pub mod cohere;
pub mod fireworks_ai;
pub mod gemini;
pub mod launch;
pub mod llmengine;
pub mod model_zoo;
pub mod openai;
#[cfg(any(test, feature = "testing"))]
pub mod scripted;
pub mod vertex_ai;
pub mod xai;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use inferq_common::{
    id::JobId,
    job::{Json, Route},
    usage::Usage,
};

pub use self::{
    assemble::{Assemble, Collected},
    error::{BuildError, VendorError},
    memory::{AnswerMemory, Share},
    registry::{Candidate, Candidates, Registry},
};

/// What a worker asks of a vendor: one attempt of one job.
#[derive(Debug, Clone)]
pub struct Call {
    pub job_id: JobId,
    /// Counted from 1.
    pub attempt: u32,
    /// The vendor's own name of the model.
    pub model: String,
    /// Passed on untouched but for the model's name.
    pub args: Json,
    /// Overrides the route that the shape of `args` would choose.
    pub route: Option<Route>,
    /// When the caller will drop the call; for vendors that want to be told.
    pub timeout: Duration,
    /// What a whole answer may take; kept by the caller until it needs the answer no more.
    pub memory: Share,
}

/// What a vendor answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The vendor's JSON, untouched.
    pub response: Json,
    pub usage: Usage,
    pub vendor_request_id: Option<String>,
}

/// How far a call has come.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    Done(Reply),
    /// The vendor is at work and holds no connection: ask again with this ticket after the wait.
    Pending {
        /// Names the task at the vendor and holds no secret; at most 1 KiB.
        ticket: String,
        wait: Duration,
    },
}

/// One part of a streamed answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Chunk {
    /// A vendor's own chunk, untouched.
    Data(Bytes),
    /// The stream ended as it should; what it consumed.
    End { usage: Usage, vendor_request_id: Option<String> },
}

/// The parts of a streamed answer. A stream that ends without [`Chunk::End`] was cut.
pub type Chunks = BoxStream<'static, Result<Chunk, VendorError>>;

/// Speaks one vendor's format.
///
/// An adapter bounds what it reads, never the time: the worker drops the future when the attempt's
/// timeout passes or the job is cancelled, and that closes the socket. What a vendor needs beyond a
/// request, such as credentials that are refreshed or requests that are signed, an adapter holds.
#[async_trait]
pub trait Adapter: Send + Sync + std::fmt::Debug {
    /// Makes the call and reads the whole answer.
    ///
    /// **Cancel safe:** dropping the future closes the socket.
    async fn call(&self, call: &Call) -> Result<Reply, VendorError>;

    /// Does of the call what can be done without waiting for a task that runs elsewhere. `ticket` is
    /// what it answered last, to go on with that task; `None` begins. Called until it is done, it
    /// comes to what [`Self::call`] answers.
    ///
    /// **Cancel safe** as [`Self::call`]; a task that was begun goes on.
    async fn advance(&self, call: &Call, ticket: Option<&str>) -> Result<Progress, VendorError> {
        let _ = ticket;
        self.call(call).await.map(Progress::Done)
    }

    /// Makes the call and answers with its parts as they arrive.
    ///
    /// **Cancel safe:** dropping the future or the stream closes the socket.
    async fn stream(&self, call: &Call) -> Result<Chunks, VendorError>;

    /// What makes one answer of the chunks that [`Self::stream`] brings for this call.
    fn assemble(&self, call: &Call) -> Box<dyn Assemble> {
        let _ = call;
        Box::new(Collected::default())
    }
}
