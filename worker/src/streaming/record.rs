//! Stores the chunks of a stream, in small groups.

use std::time::Duration;

use inferq_common::{store::Claim, stream::ChunkGroup};
use tokio::time::Instant;
use tracing::info;

use super::{Stream, pending::Taken};
use crate::{
    runner::{Appended, Runner},
    running::Held,
};

/// Chunks are stored this often while they come, so that a reader elsewhere is little behind and a
/// busy stream costs ten small writes a second.
const EVERY: Duration = Duration::from_millis(100);
/// Or as soon as this much is there.
const GROUP_BYTES: usize = 64 * 1024;
/// What may wait for the store, and as much again may be on its way: beyond it the stream waits.
pub(super) const MAX_UNSTORED_BYTES: usize = 512 * 1024;

/// How the storing of a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recorded {
    /// With all that was given.
    All,
    /// The claim no longer holds, or the process gives up: what is missing is no longer asked for.
    Useless,
    /// The store does not take what follows the first so many chunks.
    Refused { n_stored: u64 },
}

/// Stores what is given until no more will be, or storing it has no use any more.
pub(super) async fn record(
    runner: &Runner,
    claim: &Claim,
    held: &Held,
    stream: &Stream<'_>,
) -> Recorded {
    let mut due_at = Instant::now();
    while let Some(taken) = stream.unstored.take_ripe(due_at, GROUP_BYTES).await {
        due_at = Instant::now() + EVERY;
        let Taken { first, chunks } = taken;
        let group = ChunkGroup { job_id: claim.job.id, attempt: claim.attempt(), first, chunks };
        match runner.append(claim, &group).await {
            Appended::Stored => {}
            Appended::NotHeld => {
                info!("the claim of a streaming attempt no longer holds");
                held.revoked.cancel();
                return Recorded::Useless;
            }
            Appended::Refused => {
                stream.unstorable.cancel();
                return Recorded::Refused { n_stored: group.first };
            }
            // Whoever gives up has stopped the call before.
            Appended::GivenUp => return Recorded::Useless,
        }
    }
    Recorded::All
}
