//! What the broker's events tell of one job, kept for one reader within bounds.

use std::sync::{Arc, Mutex, MutexGuard};

use inferq_common::{id::JobId, stream::ChunkGroup};
use tokio::sync::Notify;

use crate::waiters::{Ended, Waiters};

/// What a slow reader's chunks may take in memory (bytes); what comes beyond is read from the store
/// later, at the reader's own pace.
pub(crate) const BUFFER_BYTES: usize = 128 * 1024;

/// What one chunk costs beside its text.
const CHUNK_BYTES: usize = 64;

/// What was told since it was last asked for.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// There was no room for the chunks of this attempt up to this index; they came before `groups`.
    pub(crate) dropped: Option<(u32, u64)>,
    /// In the order of their arrival.
    pub(crate) groups: Vec<ChunkGroup>,
    pub(crate) ended: Option<Ended>,
    bytes: usize,
}

/// One reader's ear. Dropped, it hears no more.
#[derive(Debug)]
pub(crate) struct Feed {
    job: JobId,
    number: u64,
    ear: Arc<Ear>,
    waiters: Waiters,
}

/// Where the events of a job are put down for one reader.
#[derive(Debug)]
pub(crate) struct Ear {
    max_bytes: usize,
    heard: Mutex<Heard>,
    news: Notify,
}

impl Feed {
    pub(crate) fn new(job: JobId, number: u64, ear: Arc<Ear>, waiters: Waiters) -> Self {
        Self { job, number, ear, waiters }
    }

    /// Waits until something was told that has not been waited for.
    ///
    /// **Cancel safe:** news are kept until a call returns.
    pub(crate) async fn news(&self) {
        self.ear.news.notified().await;
    }

    pub(crate) fn take(&self) -> Heard {
        std::mem::take(&mut self.ear.lock())
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.waiters.close_ear(self.job, self.number);
    }
}

impl Ear {
    /// Keeps up to `max_bytes` of chunks; with 0 it only tells that there are some.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, heard: Mutex::default(), news: Notify::new() }
    }

    pub(crate) fn chunks(&self, group: &ChunkGroup) {
        let bytes: usize =
            group.chunks.iter().map(|chunk| chunk.as_str().len() + CHUNK_BYTES).sum();
        let mut heard = self.lock();
        if heard.bytes.saturating_add(bytes) <= self.max_bytes {
            heard.bytes += bytes;
            heard.groups.push(group.clone());
        } else {
            // What is older goes too: the reader turns to the store for all of it.
            heard.groups = Vec::new();
            heard.bytes = 0;
            heard.dropped = Some((group.attempt, group.end()));
        }
        drop(heard);
        self.news.notify_one();
    }

    pub(crate) fn ended(&self, ended: Ended) {
        self.lock().ended = Some(ended);
        self.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().expect("no one panics while holding what was heard")
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use inferq_common::job::Json;

    use super::*;

    fn group(first: u64, n: usize) -> ChunkGroup {
        let chunk = Json::parse(format!("\"{}\"", "x".repeat(998))).unwrap();
        let job_id = JobId::new(DateTime::UNIX_EPOCH);
        ChunkGroup { job_id, attempt: 1, first, chunks: vec![chunk; n] }
    }

    #[test]
    fn what_does_not_fit_is_forgotten_with_what_came_before_it() {
        let ear = Ear::new(5000);
        ear.chunks(&group(0, 2));
        ear.chunks(&group(2, 2));
        assert_eq!(std::mem::take(&mut *ear.lock()).groups.len(), 2);
        ear.chunks(&group(4, 3));
        ear.chunks(&group(7, 3));
        ear.chunks(&group(10, 1));
        let heard = std::mem::take(&mut *ear.lock());
        assert_eq!(heard.dropped, Some((1, 10)));
        let first: Vec<u64> = heard.groups.iter().map(|group| group.first).collect();
        assert_eq!(first, [10], "what fits again is kept");
    }

    #[test]
    fn a_group_larger_than_the_room_is_never_kept() {
        let ear = Ear::new(100);
        ear.chunks(&group(0, 1));
        let heard = std::mem::take(&mut *ear.lock());
        assert!(heard.groups.is_empty());
        assert_eq!(heard.dropped, Some((1, 1)));
    }
}
