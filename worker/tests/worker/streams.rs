//! What becomes of jobs whose answer comes in parts; under paused time where none dies.

use std::{sync::Arc, time::Duration};

use inferq_common::{
    broker::Event,
    error::ErrorClass,
    id::JobId,
    job::{AttemptOutcome, Job, JobResult, JobStatus},
    store::JobStore as _,
    stream::ChunkGroup,
};
use inferq_vendors::scripted::Scripted;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    broker::StuckBroker,
    platform::{Events, Platform, SOON, eventually},
};

struct Streams {
    platform: Platform,
    scripted: Arc<Scripted>,
    events: Events,
}

impl Streams {
    async fn still() -> Self {
        let scripted = Arc::new(Scripted::default());
        let platform = Platform::start_still(Arc::clone(&scripted) as Arc<_>).await;
        let events = platform.inbox_of(platform.api).await;
        Self { platform, scripted, events }
    }

    async fn submit(&self, model: &str, edit: impl FnOnce(&mut Job)) -> JobId {
        let api = self.platform.api;
        let of_stream = |job: &mut Job| {
            (job.stream, job.reply_to) = (true, Some(api));
            edit(job);
        };
        self.platform.submit(model, of_stream).await
    }

    /// The stored chunks of an attempt, checked to follow each other.
    async fn stored(&self, id: JobId, attempt: u32) -> Vec<String> {
        let mut chunks = Vec::new();
        loop {
            let from = chunks.len() as u64;
            let groups = self.platform.store.read_chunks(id, attempt, from, 1 << 20).await.unwrap();
            if groups.is_empty() {
                return chunks;
            }
            for group in groups {
                assert_eq!((group.job_id, group.attempt), (id, attempt));
                assert_eq!(group.first, chunks.len() as u64);
                chunks.extend(texts(&group));
            }
        }
    }

    /// Waits until so many chunks of the first attempt are stored.
    async fn stores(&self, id: JobId, n: usize) {
        let stored = eventually(async || (self.stored(id, 1).await.len() >= n).then_some(()));
        timeout(SOON, stored).await.expect("chunks are stored in time");
    }

    /// The chunks of one attempt that were sent, checked to follow each other, and how it ended.
    async fn shown(&mut self, id: JobId, attempt: u32) -> (Vec<String>, JobStatus, u64) {
        let mut chunks = Vec::new();
        loop {
            match self.events.next().await {
                Event::Chunks(group) => {
                    assert_eq!((group.job_id, group.attempt), (id, attempt));
                    assert_eq!(group.first, chunks.len() as u64);
                    chunks.extend(texts(&group));
                }
                Event::Finished { job_id, status, attempt: last, chunks: n_chunks, .. } => {
                    assert_eq!((job_id, last), (id, attempt));
                    return (chunks, status, n_chunks);
                }
                other @ (Event::Cancel { .. } | Event::Lent { .. }) => {
                    panic!("an api runs nothing: {other:?}")
                }
            }
        }
    }

    async fn ends(&self, id: JobId) -> (Job, JobResult) {
        let ended = eventually(async || {
            let (job, result) = self.platform.find(id).await;
            job.status.is_final().then_some((job, result))
        });
        timeout(Duration::from_secs(300), ended).await.expect("it ends in time")
    }
}

fn texts(group: &ChunkGroup) -> Vec<String> {
    assert!(!group.chunks.is_empty());
    group.chunks.iter().map(|chunk| chunk.as_str().to_owned()).collect()
}

fn expected(n: u64) -> Vec<String> {
    (0..n).map(Scripted::chunk).collect()
}

#[tokio::test]
async fn every_chunk_is_shown_and_stored_in_its_order_and_the_whole_is_the_result() {
    let mut streams = Streams::still().await;
    let worker = streams.platform.worker().await;
    for (model, n) in [("stream_1", 1), ("stream_5000", 5000), ("stream_60_every_25", 60)] {
        let id = streams.submit(model, |_| {}).await;
        let (shown, status, n_chunks) = streams.shown(id, 1).await;
        assert_eq!((status, n_chunks), (JobStatus::Succeeded, n));
        assert_eq!(shown, expected(n), "{model}");
        assert_eq!(streams.stored(id, 1).await, expected(n), "{model}");
        let (job, result) = streams.platform.find(id).await;
        assert_eq!((job.status, job.attempt), (JobStatus::Succeeded, 1));
        let whole = format!("[{}]", expected(n).join(","));
        assert_eq!(result.response.unwrap().as_str(), whole);
        assert_eq!(result.usage, Scripted::usage());
        let attempts = streams.platform.attempts(id).await;
        assert_eq!(attempts[0].vendor_request_id.as_deref(), Some("req_scripted"));
        assert_eq!(attempts[0].usage, Scripted::usage());
    }
    worker.stop().await;
}

#[tokio::test]
async fn a_stream_without_chunks_succeeds() {
    let mut streams = Streams::still().await;
    let worker = streams.platform.worker().await;
    let id = streams.submit("stream_0", |_| {}).await;
    assert_eq!(streams.shown(id, 1).await, (vec![], JobStatus::Succeeded, 0));
    assert!(streams.stored(id, 1).await.is_empty());
    assert_eq!(streams.platform.find(id).await.1.response.unwrap().as_str(), "[]");
    worker.stop().await;
}

#[tokio::test]
async fn chunks_are_shown_at_once_and_stored_soon_after() {
    let mut streams = Streams::still().await;
    let worker = streams.platform.worker().await;
    let id = streams.submit("stream_20_every_40", |_| {}).await;
    let Event::Chunks(first) = streams.events.next().await else { panic!("it begins") };
    let began = Instant::now();
    assert_eq!(texts(&first), expected(1));
    streams.stores(id, 1).await;
    assert!(began.elapsed() < Duration::from_millis(40), "the first one is stored at once");
    for n in 1..20 {
        let Event::Chunks(group) = streams.events.next().await else { panic!("it goes on") };
        assert_eq!((group.first, group.chunks.len()), (n, 1));
        let due = Duration::from_millis(40 * n);
        let took = began.elapsed();
        assert!(took >= due && took < due + Duration::from_millis(35), "{n}: {took:?}");
    }
    streams.ends(id).await;
    let groups = streams.platform.store.read_chunks(id, 1, 0, 1 << 20).await.unwrap();
    let n_stored: Vec<_> = groups.iter().map(|group| group.chunks.len()).collect();
    assert_eq!(n_stored.iter().sum::<usize>(), 20);
    assert!((8..=12).contains(&n_stored.len()), "one group each 100 ms: {n_stored:?}");
    worker.stop().await;
}

#[tokio::test]
async fn a_failure_before_the_first_chunk_is_retried() {
    let mut streams = Streams::still().await;
    let worker = streams.platform.worker().await;
    let id = streams.submit("fails_once", |_| {}).await;
    let (shown, status, n_chunks) = streams.shown(id, 2).await;
    assert_eq!((shown.len(), status, n_chunks), (1, JobStatus::Succeeded, 1));
    assert!(streams.stored(id, 1).await.is_empty());
    assert_eq!(streams.stored(id, 2).await, shown);
    worker.stop().await;
}

#[tokio::test]
async fn a_failure_after_the_first_chunk_ends_the_job() {
    let mut streams = Streams::still().await;
    let worker = streams.platform.worker().await;
    for (model, class, words) in [
        ("stream_then_fails", ErrorClass::Transient, "scripted: transient"),
        ("stream_then_cut", ErrorClass::Transient, "the vendor's stream was cut"),
        ("stream_then_panics", ErrorClass::Internal, "the adapter panicked"),
        ("stream_then_hangs", ErrorClass::Timeout, "the stream from openai did not end within 2 s"),
    ] {
        let edit = |job: &mut Job| job.limits.timeout = Duration::from_secs(2);
        let id = streams.submit(model, edit).await;
        let (shown, status, n_chunks) = streams.shown(id, 1).await;
        assert_eq!((status, n_chunks), (JobStatus::Failed, 2), "{model}");
        assert_eq!(shown, expected(2), "{model}");
        assert_eq!(streams.stored(id, 1).await, expected(2), "{model}");
        let (job, result) = streams.platform.find(id).await;
        assert_eq!((job.status, job.attempt), (JobStatus::Failed, 1));
        let error = result.error.unwrap();
        assert_eq!(error.class, class);
        assert!(error.message.starts_with(words), "{error:?}");
        streams.scripted.runs(0).await;
        assert_eq!(streams.scripted.calls(id), 1);
    }
    worker.stop().await;
}

#[tokio::test]
async fn a_cancel_closes_the_stream_and_what_came_stays() {
    let streams = Streams::still().await;
    let worker = streams.platform.worker().await;
    let id = streams.submit("stream_held", |_| {}).await;
    streams.stores(id, 2).await;
    let ran_at = streams.platform.cancel(id).await;
    assert_eq!(ran_at, Some(worker.instance.id()));
    timeout(SOON, streams.scripted.runs(0)).await.expect("the socket is closed in time");
    streams.scripted.release();
    let (job, _) = streams.platform.find(id).await;
    assert_eq!(job.status, JobStatus::Cancelled);
    assert_eq!(streams.stored(id, 1).await, expected(2));
    worker.stop().await;
}

#[tokio::test]
async fn a_stream_whose_claim_is_lost_notices_at_its_next_chunk() {
    let streams = Streams::still().await;
    let worker = streams.platform.worker().await;
    let id = streams.submit("stream_100_every_50", |_| {}).await;
    streams.stores(id, 3).await;
    // Nobody tells the worker, and it asks once a second only.
    streams.platform.cancel(id).await;
    let began = Instant::now();
    let n_stored = streams.stored(id, 1).await.len();
    timeout(SOON, streams.scripted.runs(0)).await.expect("the socket is closed in time");
    assert!(began.elapsed() <= Duration::from_millis(200), "{:?}", began.elapsed());
    assert_eq!(streams.stored(id, 1).await.len(), n_stored, "they are frozen");
    worker.stop().await;
}

#[tokio::test]
async fn a_store_that_is_away_for_a_while_misses_nothing() {
    let mut streams = Streams::still().await;
    let worker = streams.platform.worker().await;
    let id = streams.submit("stream_60_every_50", |_| {}).await;
    streams.stores(id, 3).await;
    streams.platform.store.set_down(true);
    sleep(Duration::from_millis(1500)).await;
    assert!(streams.platform.store.refused() > 0);
    streams.platform.store.set_down(false);
    let (shown, status, _) = streams.shown(id, 1).await;
    assert_eq!(status, JobStatus::Succeeded);
    assert_eq!(shown, expected(60));
    assert_eq!(streams.stored(id, 1).await, expected(60));
    worker.stop().await;
}

#[tokio::test]
async fn a_group_whose_answer_was_lost_is_stored_once() {
    let mut streams = Streams::still().await;
    let worker = streams.platform.worker().await;
    let id = streams.submit("stream_40_every_25", |_| {}).await;
    streams.stores(id, 1).await;
    streams.platform.store.lose_answer_of("append_chunks");
    let (shown, status, _) = streams.shown(id, 1).await;
    assert_eq!((shown, status), (expected(40), JobStatus::Succeeded));
    assert_eq!(streams.stored(id, 1).await, expected(40));
    worker.stop().await;
}

#[tokio::test]
async fn a_soft_stop_lets_a_stream_end() {
    let streams = Streams::still().await;
    let worker = streams.platform.worker().await;
    let id = streams.submit("stream_40_every_50", |_| {}).await;
    streams.stores(id, 1).await;
    worker.stop().await;
    assert_eq!(streams.platform.find(id).await.0.status, JobStatus::Succeeded);
    assert_eq!(streams.stored(id, 1).await, expected(40));
}

#[tokio::test]
async fn a_hard_stop_ends_a_job_that_was_shown_in_part_and_hands_back_others() {
    let mut streams = Streams::still().await;
    let worker = streams.platform.worker().await;
    let begun = streams.submit("stream_then_hangs", |_| {}).await;
    streams.stores(begun, 2).await;
    let not_begun = streams.submit("hangs", |_| {}).await;
    streams.scripted.runs(2).await;
    worker.hard_stop().await;
    assert_eq!(streams.scripted.running(), 0);

    let (shown, status, n_chunks) = streams.shown(begun, 1).await;
    assert_eq!((shown, status, n_chunks), (expected(2), JobStatus::Failed, 2));
    let (_, result) = streams.platform.find(begun).await;
    let error = result.error.unwrap();
    assert_eq!(error.class, ErrorClass::Lost);
    assert!(error.message.starts_with("the worker stopped"), "{error:?}");

    let (job, _) = streams.platform.find(not_begun).await;
    assert_eq!((job.status, job.lost_attempts), (JobStatus::Queued, 1));
    let attempts = streams.platform.attempts(not_begun).await;
    assert_eq!(attempts[0].outcome, AttemptOutcome::Lost);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_in_a_stream_costs_the_job_and_one_before_it_does_not() {
    let scripted = Arc::new(Scripted::default());
    let platform = Platform::start_with(Arc::clone(&scripted) as Arc<_>).await;
    let events = platform.inbox_of(platform.api).await;
    let streams = Streams { platform, scripted, events };
    let worker = streams.platform.worker().await;
    let begun = streams.submit("stream_held", |_| {}).await;
    streams.stores(begun, 2).await;
    let not_begun = streams.submit("held", |_| {}).await;
    timeout(SOON, streams.scripted.runs(2)).await.expect("both run");
    worker.kill();
    let other = streams.platform.worker().await;
    let (job, result) = streams.platform.reaches(begun, JobStatus::Failed).await;
    assert_eq!((job.attempt, result.error.unwrap().class), (1, ErrorClass::Lost));
    assert_eq!(streams.stored(begun, 1).await, expected(2));
    streams.scripted.release();
    let (job, _) = streams.platform.reaches(not_begun, JobStatus::Succeeded).await;
    assert_eq!(job.attempt, 2);
    assert_eq!(streams.stored(not_begun, 2).await, [Scripted::RESPONSE]);
    other.stop().await;
}

#[tokio::test]
async fn a_stuck_broker_holds_up_no_stream() {
    let mut streams = Streams::still().await;
    let stuck = Arc::new(StuckBroker::over(Arc::clone(&streams.platform.broker)));
    streams.platform.broker = Arc::clone(&stuck) as Arc<_>;
    let worker = streams.platform.worker().await;
    let began = Instant::now();
    let id = streams.submit("stream_100_every_10", |_| {}).await;
    let (job, _) = streams.ends(id).await;
    let took = began.elapsed();
    assert_eq!(job.status, JobStatus::Succeeded);
    assert!(took < Duration::from_millis(1600), "it lasts a second: {took:?}");
    assert_eq!(streams.stored(id, 1).await, expected(100));
    assert!(stuck.n_events() > 0);
    worker.stop().await;
}

#[tokio::test]
async fn a_stream_the_store_does_not_take_waits_and_loses_nothing_it_has_shown() {
    let mut streams = Streams::still().await;
    streams.platform.store.get_stuck_at(Some("append_chunks"));
    let worker = streams.platform.worker().await;
    let began = Instant::now();
    let edit = |job: &mut Job| job.limits.timeout = Duration::from_secs(2);
    let id = streams.submit("stream_400000", edit).await;
    timeout(SOON, streams.scripted.runs(1)).await.expect("it begins");
    timeout(SOON, streams.scripted.runs(0)).await.expect("its time passes");
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert_eq!(streams.platform.find(id).await.0.status, JobStatus::Running);

    streams.platform.store.get_stuck_at(None);
    let (shown, status, n_chunks) = streams.shown(id, 1).await;
    assert_eq!(status, JobStatus::Failed);
    // 512 KiB of them under way and as much again.
    assert!((40_000..110_000).contains(&n_chunks), "{n_chunks}");
    assert_eq!(shown.len() as u64, n_chunks);
    assert_eq!(streams.stored(id, 1).await, shown);
    worker.stop().await;
}

#[tokio::test]
async fn a_stream_the_store_refuses_fails() {
    let mut streams = Streams::still().await;
    let worker = streams.platform.worker().await;
    let id = streams.submit("stream_10000_every_10", |_| {}).await;
    streams.stores(id, 10).await;
    streams.platform.store.refuse("append_chunks");
    let (_, status, n_chunks) = streams.shown(id, 1).await;
    assert_eq!(status, JobStatus::Failed);
    assert_eq!(streams.stored(id, 1).await, expected(n_chunks));
    let error = streams.platform.find(id).await.1.error.unwrap();
    assert_eq!(error.class, ErrorClass::Internal);
    assert!(error.message.starts_with("a part of the stream could not be stored"), "{error:?}");
    streams.scripted.runs(0).await;
    worker.stop().await;
}
