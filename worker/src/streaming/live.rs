//! Shows chunks to who waits for them, at once.

use inferq_common::{
    broker::{Broker, Event},
    id::InstanceId,
    job::Json,
    store::Claim,
    stream::ChunkGroup,
    telemetry::metric,
};
use metrics::counter;
use tokio::time::timeout;
use tracing::debug;

use super::pending::Pending;
use crate::attempt::SEND_TIMEOUT;

/// What may wait for the broker; beyond it the older is dropped for the newer. Well below what
/// brokers take as one message.
const MAX_UNSENT_BYTES: usize = 1 << 20;

/// The chunks on their way to the process a caller waits at.
///
/// All that comes while one event is sent goes with the next one. What does not go out in time is
/// dropped: it can be read from the store.
#[derive(Debug)]
pub(super) struct Live<'a> {
    claim: &'a Claim,
    to: InstanceId,
    unsent: Pending,
}

impl<'a> Live<'a> {
    pub(super) fn new(claim: &'a Claim, to: InstanceId) -> Self {
        Self { claim, to, unsent: Pending::new(MAX_UNSENT_BYTES) }
    }

    pub(super) fn give(&self, chunk: &Json) {
        self.count_lost(self.unsent.give_or_drop(chunk));
    }

    pub(super) fn close(&self) {
        self.unsent.close();
    }

    /// Sends until all is sent and no more will be given.
    pub(super) async fn send_all(&self, broker: &dyn Broker) {
        while let Some(taken) = self.unsent.take().await {
            let n_chunks = taken.chunks.len();
            let event = Event::Chunks(ChunkGroup {
                job_id: self.claim.job.id,
                attempt: self.claim.attempt(),
                first: taken.first,
                chunks: taken.chunks,
            });
            match timeout(SEND_TIMEOUT, broker.send(self.to, &event)).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => debug!(%error, "chunks were not sent"),
                Err(_) => debug!("chunks were not sent in time"),
            }
            self.count_lost(n_chunks);
        }
    }

    fn count_lost(&self, n_chunks: usize) {
        if n_chunks > 0 {
            let vendor = self.claim.job.vendor.as_str();
            counter!(metric::LIVE_CHUNKS_DROPPED, "vendor" => vendor).increment(n_chunks as u64);
        }
    }
}
