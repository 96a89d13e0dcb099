//! What `echo` is told in its `args`, and how it streams them.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use inferq_common::{
    error::ErrorClass,
    job::Json,
    members::{Member, each_member},
    usage::Usage,
};
use serde::Serialize;

use crate::{
    Chunk, Chunks,
    error::{VendorError, class_of_status},
};

/// As long as any attempt may last.
const MAX_DELAY_MS: f64 = 24.0 * 60.0 * 60.0 * 1000.0;
/// The longest wait it asks for.
const MAX_RETRY_AFTER_SECS: f64 = 24.0 * 60.0 * 60.0;
/// In so many parts it streams where it is told nothing.
const N_CHUNKS: usize = 4;
const MAX_CHUNKS: usize = 100_000;

#[derive(Debug)]
pub(super) struct Echo {
    pub delay: Duration,
    /// Attempts up to this one fail.
    fail_times: u32,
    status: u16,
    retry_after: Option<Duration>,
    n_chunks: usize,
    chunk_delay: Duration,
    /// A stream that fails does so after this many chunks.
    fail_after: usize,
}

/// One part of a streamed echo.
#[derive(Serialize)]
struct Part<'a> {
    index: usize,
    /// All of them together are the `args`.
    text: &'a str,
}

impl Echo {
    /// Reads what steers it; other members, and `args` that are no object, mean nothing to it.
    ///
    /// # Errors
    /// `InvalidRequest` names the member that cannot be followed.
    pub(super) fn of(args: &Json) -> Result<Self, VendorError> {
        let mut echo = Self {
            delay: Duration::ZERO,
            fail_times: 0,
            status: 503,
            retry_after: None,
            n_chunks: N_CHUNKS,
            chunk_delay: Duration::ZERO,
            fail_after: 0,
        };
        let mut wrong = None;
        // What is no object has no members; that is all right.
        let _ = each_member(args.as_str(), |member| {
            if !member.is_null() {
                wrong = wrong.take().or(echo.set(&member).err());
            }
        });
        match wrong {
            Some(message) => Err(VendorError::new(ErrorClass::InvalidRequest, message)),
            None => Ok(echo),
        }
    }

    fn set(&mut self, member: &Member<'_>) -> Result<(), &'static str> {
        match member.key.as_ref() {
            "delay_ms" => {
                self.delay =
                    millis(member).ok_or("delay_ms must be a number from 0 to 86400000 (24 h)")?;
            }
            "chunk_delay_ms" => {
                self.chunk_delay = millis(member)
                    .ok_or("chunk_delay_ms must be a number from 0 to 86400000 (24 h)")?;
            }
            "chunks" => {
                self.n_chunks = serde_json::from_str(member.value)
                    .ok()
                    .filter(|n_chunks| (1..=MAX_CHUNKS).contains(n_chunks))
                    .ok_or("chunks must be a whole number from 1 to 100000")?;
            }
            "fail_after" => {
                self.fail_after = serde_json::from_str(member.value)
                    .map_err(|_| "fail_after must be a whole number of chunks, from 0")?;
            }
            "fail_times" => {
                self.fail_times = serde_json::from_str(member.value)
                    .map_err(|_| "fail_times must be a whole number of attempts, from 0")?;
            }
            "status" => {
                self.status = serde_json::from_str(member.value)
                    .ok()
                    .filter(|status| (400..600).contains(status))
                    .ok_or("status must be an HTTP status from 400 to 599")?;
            }
            "retry_after" => {
                let seconds = number(member, MAX_RETRY_AFTER_SECS)
                    .ok_or("retry_after must be a number of seconds from 0 to 86400 (24 h)")?;
                self.retry_after = Some(Duration::from_secs_f64(seconds));
            }
            _ => {}
        }
        Ok(())
    }

    /// # Errors
    /// The failure that attempt number `attempt` was told to end with.
    pub(super) fn failure(&self, attempt: u32) -> Result<(), VendorError> {
        if attempt > self.fail_times {
            return Ok(());
        }
        let class = class_of_status(self.status);
        let message =
            format!("echo was told to fail {} times, with status {}", self.fail_times, self.status);
        let mut error = VendorError::new(class, message);
        error.error.vendor_status = Some(self.status);
        error.retry_after = self.retry_after.filter(|wait| class.is_transient() && !wait.is_zero());
        Err(error)
    }

    /// The `args` in parts, after the first wait.
    ///
    /// # Errors
    /// The failure that attempt number `attempt` was told to end with before its first chunk.
    pub(super) fn stream(self, args: &Json, attempt: u32) -> Result<Chunks, VendorError> {
        let failure = self.failure(attempt).err();
        if let Some(failure) = failure.clone().filter(|_| self.fail_after == 0) {
            return Err(failure);
        }
        let args = args.clone();
        let n_good =
            if failure.is_some() { self.fail_after.min(self.n_chunks) } else { self.n_chunks };
        let parts = stream::iter(0..n_good).then(move |index| {
            let text = part(args.as_str(), index, self.n_chunks);
            let chunk =
                serde_json::to_vec(&Part { index, text }).expect("text and number are JSON");
            async move {
                if index > 0 && !self.chunk_delay.is_zero() {
                    tokio::time::sleep(self.chunk_delay).await;
                }
                Ok(Chunk::Data(chunk.into()))
            }
        });
        let end = Chunk::End { usage: Usage::default(), vendor_request_id: None };
        Ok(parts.chain(stream::iter([failure.map_or(Ok(end), Err)])).boxed())
    }
}

/// Part `index` of `n` of a text; no character is split.
fn part(text: &str, index: usize, n: usize) -> &str {
    let cut = |index: usize| {
        let at = (text.len() as u128 * index as u128 / n as u128).try_into().unwrap_or(text.len());
        text.ceil_char_boundary(at)
    };
    &text[cut(index)..cut(index + 1)]
}

fn millis(member: &Member<'_>) -> Option<Duration> {
    number(member, MAX_DELAY_MS).map(|millis| Duration::from_secs_f64(millis / 1000.0))
}

fn number(member: &Member<'_>, max: f64) -> Option<f64> {
    serde_json::from_str(member.value).ok().filter(|number| (0.0..=max).contains(number))
}
