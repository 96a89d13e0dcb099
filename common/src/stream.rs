//! Parts of a streamed answer, as they are stored and passed on.

use serde::{Deserialize, Serialize};

use crate::{
    id::JobId,
    job::{Attempt, Job, JobResult, Json},
};

/// Chunks that an attempt's stream brought one after the other.
///
/// A chunk is a JSON document of the vendor's; it is known by its attempt and its index there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChunkGroup {
    pub job_id: JobId,
    /// Counted from 1.
    pub attempt: u32,
    /// The index of the first chunk within its attempt, counted from 0.
    pub first: u64,
    /// Never empty.
    pub chunks: Vec<Json>,
}

impl ChunkGroup {
    /// The index that follows the last chunk.
    pub fn end(&self) -> u64 {
        self.first + self.chunks.len() as u64
    }
}

/// All that a job's events are made of, as of one moment, but for the chunks themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    pub job: Job,
    /// Once it has ended.
    pub result: Option<JobResult>,
    /// Those that are over, in their order.
    pub attempts: Vec<Attempt>,
    /// How many chunks are stored of each attempt that has any: attempt and count, in order.
    pub chunks: Vec<(u32, u64)>,
}
