//! An attempt whose answer comes in parts: each is passed on at once and stored soon after.
//!
//! **Invariant:** the store is the truth. Whoever waits is shown chunks early, and never waited for;
//! the store is waited for: when it is slow, so is the stream.

mod live;
mod pending;
mod record;

use std::time::Duration;

use futures::{
    StreamExt as _,
    future::{self, Either},
};
use inferq_common::{error::ErrorClass, job::Json, store::Claim, telemetry::metric};
use inferq_vendors::{Adapter, Call, Chunk, Reply, VendorError};
use metrics::{Counter, counter, histogram};
use tokio::{
    join,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    live::Live,
    pending::Pending,
    record::{MAX_UNSTORED_BYTES, Recorded, record},
};
use crate::{
    call::{Called, End, Limit, Turn, guarded, until_stopped},
    runner::Runner,
    running::Held,
};

/// After the last chunk is stored, what is still on its way to who waits may take so long.
const LAST_SEND: Duration = Duration::from_millis(250);

/// A stream under way.
struct Stream<'a> {
    /// For the store.
    unstored: Pending,
    /// For who waits, if anyone does.
    live: Option<Live<'a>>,
    /// Cancelled when a part cannot be stored.
    unstorable: CancellationToken,
}

/// Streams the vendor's answer until it has ended, its time is up, or someone stops the attempt.
///
/// Answers once all chunks are stored, unless the process gives up or the claim no longer holds.
pub(crate) async fn run(
    runner: &Runner,
    claim: &Claim,
    held: &Held,
    turn: Turn<'_>,
    call: &Call,
    limit: &Limit,
) -> Called {
    let stream = Stream {
        unstored: Pending::new(MAX_UNSTORED_BYTES),
        live: claim.job.reply_to.map(|to| Live::new(claim, to)),
        unstorable: CancellationToken::new(),
    };
    let reading = async {
        let mut received = Received::new(claim);
        let answer = guarded(read(&*turn.candidate.adapter, call, &stream, &mut received));
        let answer = stream.unstorable.run_until_cancelled(timeout(limit.time, answer));
        let end = match until_stopped(runner, held, answer).await {
            Ok(Some(Ok(Ok(reply)))) => End::Answered(reply),
            Ok(Some(Ok(Err(error)))) => End::Failed(error),
            Ok(Some(Err(_))) if received.n_chunks > 0 => End::Failed(limit.cut(&claim.job)),
            Ok(Some(Err(_))) => End::Failed(limit.passed(&claim.job)),
            Ok(None) => End::Failed(unstorable()),
            Err(stopped) => stopped,
        };
        turn.ended(&end, runner.worker.clock.now());
        stream.close();
        Called { end, n_chunks: received.n_chunks }
    };
    let lasting = async {
        let recording = held.revoked.run_until_cancelled(record(runner, claim, held, &stream));
        match join!(reading, recording) {
            (_, Some(Recorded::Refused { n_stored })) => {
                Called { end: End::Failed(unstorable()), n_chunks: n_stored }
            }
            (called, _) => called,
        }
    };
    let live = async {
        if let Some(live) = &stream.live {
            live.send_all(&*runner.worker.broker).await;
        }
    };
    // The vendor's socket is closed by now: what was reading from it is gone.
    match future::select(Box::pin(lasting), Box::pin(live)).await {
        Either::Left((called, live)) => {
            // Late, it is of no use: what is missed is in the store.
            let _ = timeout(LAST_SEND, live).await;
            called
        }
        Either::Right(((), lasting)) => lasting.await,
    }
}

impl Stream<'_> {
    /// Passes the next chunk on.
    ///
    /// **Cancel safe:** dropped while it waits for the store, the chunk is stored all the same.
    async fn give(&self, chunk: &Json) {
        if let Some(live) = &self.live {
            live.give(chunk);
        }
        self.unstored.give(chunk).await;
    }

    fn close(&self) {
        self.unstored.close();
        if let Some(live) = &self.live {
            live.close();
        }
    }
}

/// Counts what comes.
struct Received {
    n_chunks: u64,
    vendor: &'static str,
    began: Instant,
    counter: Counter,
}

impl Received {
    fn new(claim: &Claim) -> Self {
        let vendor = claim.job.vendor.as_str();
        let counter = counter!(metric::STREAM_CHUNKS, "vendor" => vendor);
        Self { n_chunks: 0, vendor, began: Instant::now(), counter }
    }

    fn one_more(&mut self) {
        if self.n_chunks == 0 {
            histogram!(metric::FIRST_CHUNK, "vendor" => self.vendor)
                .record(self.began.elapsed().as_secs_f64());
        }
        self.n_chunks += 1;
        self.counter.increment(1);
    }
}

/// Reads the stream to its end and makes one answer of it. An adapter bounds its size.
async fn read(
    adapter: &dyn Adapter,
    call: &Call,
    stream: &Stream<'_>,
    received: &mut Received,
) -> Result<Reply, VendorError> {
    let mut whole = adapter.assemble(call);
    let mut chunks = adapter.stream(call).await?;
    while let Some(chunk) = chunks.next().await {
        match chunk? {
            Chunk::Data(data) => {
                let chunk = as_json(&data);
                whole.push(&chunk);
                received.one_more();
                stream.give(&chunk).await;
            }
            Chunk::End { usage, vendor_request_id } => {
                return Ok(Reply { response: whole.finish(), usage, vendor_request_id });
            }
        }
    }
    Err(VendorError::new(ErrorClass::Transient, "the vendor's stream was cut before its end"))
}

/// The chunk as it is spelt; as a JSON string where it is no JSON.
fn as_json(data: &[u8]) -> Json {
    let text = String::from_utf8_lossy(data);
    match Json::parse(&*text) {
        Ok(chunk) => chunk,
        Err(_) => Json::of(&text).expect("a text is a JSON string"),
    }
}

/// What an attempt fails with whose chunks the store refuses.
fn unstorable() -> VendorError {
    let message = "a part of the stream could not be stored; this is a defect of inferq";
    VendorError::new(ErrorClass::Internal, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_kept_as_it_is_spelt() {
        for (chunk, json) in [
            (r#"{"b":1.50,"a":[1e400]}"#, r#"{"b":1.50,"a":[1e400]}"#),
            (" 1 ", "1"),
            ("", r#""""#),
            ("[DONE", r#""[DONE""#),
            ("a \"b\"\n", r#""a \"b\"\n""#),
        ] {
            assert_eq!(as_json(chunk.as_bytes()).as_str(), json);
        }
        assert_eq!(as_json(b"\xff").as_str(), "\"\u{fffd}\"");
    }
}
