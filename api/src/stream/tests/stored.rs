//! Streams that need the store: missed events, replays, other processes.

use inferq_common::{error::ErrorClass, job::Outcome};
use serde_json::json;

use super::{EXECUTE, INFERENCE, STREAM, begun, post, start, unnamed};
use crate::testing::{TestApi, failed, succeeded};

const CHUNK: &str = r#"{"stream":true}"#;

/// Chunks `first..end` in a v4 stream.
fn chunks(first: u64, end: u64) -> String {
    let events: Vec<String> = (first..end).map(|n| format!("data: {n}\n\n")).collect();
    events.concat()
}

fn texts(first: u64, end: u64) -> Vec<String> {
    (first..end).map(|n| n.to_string()).collect()
}

const DONE: &str = "event: done\ndata: [DONE]\n\n";

#[tokio::test]
async fn a_gap_in_the_events_is_filled_from_the_store() {
    let api = start().await;
    let work = async {
        let claim = api.claim().await;
        api.append(&claim, 0, &["0", "1", "2", "3"]).await;
        api.tell(&claim, 0, &["0"]);
        claim
    };
    let (mut stream, claim) = tokio::join!(post(&api, EXECUTE, &[], CHUNK), work);
    assert_eq!(stream.next().await.unwrap(), chunks(0, 1));
    api.tell(&claim, 3, &["3"]);
    assert_eq!(stream.next().await.unwrap(), chunks(1, 4));
    api.append(&claim, 4, &["4", "5"]).await;
    api.finish_stream(claim, 6, succeeded("0")).await;
    assert_eq!(stream.rest().await, chunks(4, 6) + DONE, "nothing was told of the last ones");
}

#[tokio::test]
async fn a_gap_is_waited_for_until_it_is_stored() {
    let api = start().await;
    let work = async {
        let claim = api.claim().await;
        api.tell(&claim, 0, &["0"]);
        claim
    };
    let (mut stream, claim) = tokio::join!(post(&api, EXECUTE, &[], CHUNK), work);
    assert_eq!(stream.next().await.unwrap(), chunks(0, 1));
    api.tell(&claim, 2, &["2"]);
    let store = async {
        tokio::task::yield_now().await;
        api.append(&claim, 0, &["0", "1", "2"]).await;
    };
    let (more, ()) = tokio::join!(stream.next(), store);
    assert_eq!(more.unwrap(), chunks(1, 3));
}

#[tokio::test]
async fn a_slow_reader_is_served_from_the_store_and_holds_nobody_up() {
    let api = start().await;
    let (mut slow, claim) = begun(&api, EXECUTE, &[], CHUNK).await;
    let text = format!("\"{}\"", "x".repeat(20_000));
    api.append(&claim, 0, &["1"]).await;
    for n in 1..=40 {
        api.append(&claim, n, &[&text]).await;
        api.tell(&claim, n, &[&text]);
    }
    api.finish_stream(claim, 41, succeeded("0")).await;
    let mut n_parts = 0;
    let mut seen = String::new();
    while let Some(part) = slow.next().await {
        assert!(part.len() < 400_000, "{}", part.len());
        seen.push_str(&part);
        n_parts += 1;
    }
    let expected = format!("data: 1\n\n{}{DONE}", format!("data: {text}\n\n").repeat(40));
    assert!(seen == expected, "{} bytes in {n_parts} parts", seen.len());
    assert!(n_parts > 3, "800 KB never lay in memory at once");
}

#[tokio::test]
async fn a_repeated_request_is_streamed_from_the_first_chunk_on() {
    let api = start().await;
    let key = [("idempotency-key", "order-1")];
    let (mut first, claim) = begun(&api, EXECUTE, &key, CHUNK).await;
    api.append(&claim, 0, &["1", "2"]).await;
    let mut again = post(&api, EXECUTE, &key, CHUNK).await;
    assert_eq!(again.header("x-job-id"), claim.job.id.to_string());
    assert_eq!(again.next().await.unwrap(), chunks(1, 3));
    api.tell(&claim, 1, &["2", "3"]);
    assert_eq!(again.next().await.unwrap(), chunks(3, 4));
    api.append(&claim, 2, &["3"]).await;
    api.finish_stream(claim.clone(), 3, succeeded("[]")).await;
    assert_eq!(first.rest().await, chunks(1, 4) + DONE);
    assert_eq!(again.rest().await, DONE);
    let later = api.post(EXECUTE, &key, CHUNK).await;
    assert_eq!(later.text, chunks(1, 4) + DONE);
    assert_eq!(api.n_jobs().await, 1);
}

#[tokio::test]
async fn a_stream_that_failed_is_replayed_to_its_error() {
    let api = start().await;
    let key = [("idempotency-key", "order-1")];
    let (mut first, claim) = begun(&api, INFERENCE, &key, STREAM).await;
    api.append(&claim, 0, &["1"]).await;
    api.finish_stream(claim, 1, failed(ErrorClass::Transient, "cut")).await;
    let seen = first.rest().await;
    assert_eq!(api.post(INFERENCE, &key, STREAM).await.text, seen);
}

#[tokio::test]
async fn a_copy_of_a_request_that_still_streams_joins_its_job() {
    let api = start().await;
    let (mut first, claim) = begun(&api, EXECUTE, &[], CHUNK).await;
    api.append(&claim, 0, &["1"]).await;
    let again = [("x-stainless-retry-count", "1")];
    let mut copy = post(&api, EXECUTE, &again, CHUNK).await;
    assert_eq!(copy.header("x-job-id"), claim.job.id.to_string());
    assert_eq!(copy.next().await.unwrap(), chunks(1, 2));
    api.append(&claim, 1, &["2"]).await;
    api.finish_stream(claim, 2, succeeded("[]")).await;
    assert_eq!(copy.rest().await, chunks(2, 3) + DONE);
    assert_eq!(first.rest().await, chunks(1, 3) + DONE);
    assert_eq!(api.n_jobs().await, 1);
}

#[tokio::test]
async fn without_any_event_a_stream_comes_from_the_store() {
    let api = start().await;
    let work = async {
        let claim = api.claim().await;
        let all = texts(0, 5000);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        for (n, group) in all.chunks(100).enumerate() {
            api.append(&claim, n as u64 * 100, group).await;
        }
        let now = api.state.clock.now();
        let ended = api.store.finish(&[(claim, succeeded("0"))], now).await.unwrap();
        assert_eq!(ended, [true]);
    };
    let (reply, ()) = tokio::join!(api.post(EXECUTE, &[], CHUNK), work);
    assert!(reply.text == chunks(0, 5000) + DONE, "{} bytes", reply.text.len());
}

#[tokio::test]
async fn a_stream_whose_attempt_was_lost_does_not_wait_for_the_next() {
    let api = start().await;
    let (mut stream, claim) = begun(&api, INFERENCE, &[], STREAM).await;
    stream.next().await;
    // Told, but not stored before the process was lost; nobody tells of that.
    let now = api.state.clock.now();
    api.store.finish(&[(claim, Outcome::HandedBack)], now).await.unwrap();
    let error = unnamed(&stream.rest().await)["error"].clone();
    assert_eq!((&error["class"], &error["status_code"]), (&json!("transient"), &json!(502)));
}

#[tokio::test]
async fn a_job_that_is_held_too_long_goes_on_without_its_reader() {
    let api = TestApi::with(|config| config.max_wait_secs = 1).await;
    let reply = api.post(INFERENCE, &[], STREAM).await;
    assert_eq!(reply.status, 504, "{reply:?}");
    let id = reply.job_id();
    assert_eq!(api.get(&format!("/v5/jobs/{id}")).await.json()["status"], "queued");

    let claim = api.claim().await;
    api.finish_stream(claim, 0, succeeded("0")).await;
    let (mut stream, _) = begun(&api, INFERENCE, &[], STREAM).await;
    stream.next().await;
    assert_eq!(unnamed(&stream.rest().await)["error"]["status_code"], 504);
}

#[tokio::test]
async fn an_outage_of_the_store_is_waited_out_while_events_come() {
    let api = start().await;
    let (mut stream, claim) = begun(&api, EXECUTE, &[], CHUNK).await;
    assert_eq!(stream.next().await.unwrap(), chunks(1, 2));
    api.store.close().await;
    // Longer than the store is not asked.
    let quiet = tokio::time::timeout(std::time::Duration::from_millis(1500), stream.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    api.tell(&claim, 1, &["2"]);
    assert_eq!(stream.next().await.unwrap(), chunks(2, 3));
    api.state.waiters.take(inferq_common::broker::Event::Finished {
        job_id: claim.job.id,
        status: inferq_common::job::JobStatus::Succeeded,
        attempt: 1,
        result: None,
        times: None,
        chunks: 2,
        room: None,
    });
    assert_eq!(stream.rest().await, DONE);
}
