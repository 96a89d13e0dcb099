//! Streams through the queue: every chunk once and in its order, whoever leaves, is slow or dies.

#![expect(clippy::unwrap_used, reason = "stories unwrap freely")]

mod harness;

use std::time::{Duration, Instant};

use harness::{
    Mode, Platform, chat, eventually,
    sse::{Event, Events},
    vendor,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};

crate::stories!(
    two_hundred_streams_at_once_bring_every_chunk_once,
    a_thousand_disconnects_lose_and_repeat_nothing,
    what_a_stream_brought_is_stored_as_one_answer,
    a_slow_reader_slows_only_its_own_stream,
    a_reader_that_leaves_does_not_stop_the_job,
    a_reader_that_asks_for_it_stops_the_job_by_leaving,
    what_fails_before_the_first_chunk_is_a_status,
    what_fails_after_the_first_chunk_is_no_clean_end,
);

/// A request whose answer is streamed in so many parts.
fn streaming(name: &str, behaviour: &Value) -> Value {
    let mut body = chat(name, behaviour);
    body["stream"] = true.into();
    body
}

/// Opens a stream as an SDK does.
async fn open(platform: &Platform, body: &Value) -> (String, Events) {
    let response = platform.infer(body).await;
    let job = response.headers().get("x-job-id").map(|id| id.to_str().unwrap().to_owned());
    let events = Events::of(response).await;
    (job.expect("a stream names its job"), events)
}

/// Follows a job's events from after the one of this number, by the header or the parameter.
async fn follow(platform: &Platform, id: &str, after: Option<u64>) -> reqwest::Result<Events> {
    let path = format!("/v5/jobs/{id}/events");
    let request = match after {
        Some(number) if number % 2 == 0 => {
            platform.request(Method::GET, &format!("{path}?starting_after={number}"))
        }
        Some(number) => {
            platform.request(Method::GET, &path).header("last-event-id", number.to_string())
        }
        None => platform.request(Method::GET, &path),
    };
    Ok(Events::of(request.send().await?).await)
}

/// The number the vendor gave a chunk of a v5 stream, checked to be of this name.
fn number_of(chunk: &Value, name: &str, bytes: usize) -> u32 {
    let n = u32::try_from(chunk["n"].as_u64().unwrap_or_else(|| panic!("{chunk}"))).unwrap();
    let content = &chunk["choices"][0]["delta"]["content"];
    if !content.is_null() {
        assert_eq!(content.as_str().unwrap(), vendor::part(name, n, bytes));
    }
    n
}

/// Reads a v5 stream that ends as it should; answers how many chunks there were.
async fn read_to_the_end(events: &mut Events, name: &str, bytes: usize) -> u32 {
    let mut next = 0;
    while let Some(event) = events.next().await {
        assert_eq!(event.id, None, "an id is a trap for the SDKs");
        if event.name == "done" {
            assert_eq!(event.data, "[DONE]");
            assert_eq!(events.next().await, None);
            return next;
        }
        let chunk = event.json();
        assert_eq!(chunk["object"], "generic_inference.chunk", "{chunk}");
        assert!(chunk["error"].is_null(), "{name} failed after {next} chunks: {chunk}");
        assert_eq!(number_of(&chunk["response"], name, bytes), next);
        next += 1;
    }
    panic!("the stream of {name} ended after {next} chunks: {:?}", events.broken)
}

/// Fails unless these are all events of a job with so many chunks, each once.
fn assert_whole(events: &[Event], name: &str, parts: u32) {
    let numbers: Vec<u64> = events.iter().map(|event| event.id.unwrap()).collect();
    let dense: Vec<u64> = (1..=events.len() as u64).collect();
    assert_eq!(numbers, dense, "numbers follow each other");
    let chunks: Vec<Value> =
        events.iter().filter(|event| event.name == "chunk").map(Event::json).collect();
    let seen: Vec<u32> = chunks.iter().map(|chunk| number_of(&chunk["chunk"], name, 0)).collect();
    assert_eq!(seen, (0..=parts).collect::<Vec<_>>());
    assert_eq!(events.last().unwrap().json()["status"], "succeeded");
}

async fn two_hundred_streams_at_once_bring_every_chunk_once(mode: Mode) {
    let platform = Platform::start_with(mode, &[("INFERQ__WORKER__CONCURRENCY", "256")]).await;
    let streams = (0..200).map(|number| {
        let platform = &platform;
        async move {
            let name = format!("stream-{number}");
            let body = streaming(&name, &json!({"parts": 40, "part_ms": 25}));
            let (job, mut events) = open(platform, &body).await;
            assert_eq!(read_to_the_end(&mut events, &name, 0).await, 41);
            job
        }
    });
    let jobs = futures::future::join_all(streams).await;
    assert_eq!(jobs.len(), 200);
    platform.has_settled().await;
}

async fn a_thousand_disconnects_lose_and_repeat_nothing(mode: Mode) {
    let platform = Platform::start(mode).await;
    let body = streaming("followed", &json!({"parts": 300, "part_ms": 10}));
    let id = platform.submit(&body).await;
    let followers = (0..50).map(|seed| {
        let (platform, id) = (&platform, &id);
        async move {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut seen: Vec<Event> = Vec::new();
            for _ in 0..20 {
                let last = seen.last().and_then(|event| event.id);
                let mut events = follow(platform, id, last).await.unwrap();
                for _ in 0..rng.random_range(0..16) {
                    let Some(event) = events.next().await else { break };
                    seen.push(event);
                }
                if seen.last().is_some_and(is_end) {
                    break;
                }
            }
            if !seen.last().is_some_and(is_end) {
                let last = seen.last().and_then(|event| event.id);
                seen.extend(follow(platform, id, last).await.unwrap().rest().await);
            }
            assert_whole(&seen, "followed", 300);
        }
    });
    futures::future::join_all(followers).await;
    let last = follow(&platform, &id, None).await.unwrap().rest().await.last().unwrap().id.unwrap();
    let path = format!("/v5/jobs/{id}/events?starting_after={last}");
    let nothing = platform.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(nothing.status(), 204, "who has seen the end need not come back");
}

fn is_end(event: &Event) -> bool {
    event.name == "status" && !matches!(event.json()["status"].as_str(), Some("queued" | "running"))
}

async fn what_a_stream_brought_is_stored_as_one_answer(mode: Mode) {
    let platform = Platform::start(mode).await;
    let body = streaming("whole", &json!({"parts": 5}));
    let (id, mut events) = open(&platform, &body).await;
    assert_eq!(read_to_the_end(&mut events, "whole", 0).await, 6);
    let job = platform.ends(&id).await;
    assert_eq!(job["status"], "succeeded");
    let text: String = (0..5).map(|n| vendor::part("whole", n, 0)).collect();
    assert_eq!(job["response"]["object"], "chat.completion");
    assert_eq!(job["response"]["choices"][0]["message"]["content"], text);
    assert_eq!(job["response"]["choices"][0]["finish_reason"], "stop");
    assert_eq!(job["usage"]["output_tokens"], 5);
    let attempts = platform.attempts(&id).await;
    assert_eq!(attempts.len(), 1);
    assert_whole(&follow(&platform, &id, None).await.unwrap().rest().await, "whole", 5);
}

async fn a_slow_reader_slows_only_its_own_stream(mode: Mode) {
    const PART_BYTES: usize = 64 * 1024;
    const PARTS: u32 = 300;
    let platform = Platform::start(mode).await;
    let big = json!({"parts": PARTS, "part_bytes": PART_BYTES});
    let (id, mut slow) = open(&platform, &streaming("slow", &big)).await;
    let first = slow.next().await.unwrap().json();
    assert_eq!(number_of(&first["response"], "slow", PART_BYTES), 0);
    // It reads no more for now; the job ends all the same, and others are served.
    let quick = streaming("quick", &json!({"parts": 50, "part_ms": 2}));
    let (_, mut events) = open(&platform, &quick).await;
    assert_eq!(read_to_the_end(&mut events, "quick", 0).await, 51);
    assert_eq!(platform.ends(&id).await["status"], "succeeded");
    let mut next = 1;
    loop {
        let event = slow.next().await.expect("the slow reader misses nothing");
        if event.name == "done" {
            break;
        }
        assert_eq!(number_of(&event.json()["response"], "slow", PART_BYTES), next);
        next += 1;
    }
    assert_eq!(next, PARTS + 1);
}

async fn a_reader_that_leaves_does_not_stop_the_job(mode: Mode) {
    let platform = Platform::start(mode).await;
    let body = streaming("left", &json!({"parts": 40, "part_ms": 20}));
    let (id, mut events) = open(&platform, &body).await;
    events.next().await.unwrap();
    drop(events);
    assert_eq!(platform.ends(&id).await["status"], "succeeded");
    assert_whole(&follow(&platform, &id, None).await.unwrap().rest().await, "left", 40);
}

async fn a_reader_that_asks_for_it_stops_the_job_by_leaving(mode: Mode) {
    let platform = Platform::start(mode).await;
    let mut body = streaming("stopped", &json!({"parts": 100, "part_ms": 500}));
    body["cancel_on_disconnect"] = true.into();
    let (id, mut events) = open(&platform, &body).await;
    events.next().await.unwrap();
    drop(events);
    assert_eq!(platform.ends(&id).await["status"], "cancelled");
    eventually("the vendor's socket to be closed", async || {
        platform.vendor.calls("stopped")[0].abandoned
    })
    .await;
}

async fn what_fails_before_the_first_chunk_is_a_status(mode: Mode) {
    let platform = Platform::start(mode).await;
    let mut body = streaming("refused", &json!({"parts": 3, "fail_times": 9, "status": 503}));
    body["inference_configuration"] = json!({"num_retries": 0});
    let response = platform.infer(&body).await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["x-should-retry"], "false");
    let failure: Value = response.json().await.unwrap();
    assert!(failure["detail"].as_str().unwrap().contains("as asked"), "{failure}");
    // One that succeeds after a retry is a stream like any.
    let again = streaming("again", &json!({"parts": 3, "fail_times": 1, "status": 503}));
    let (id, mut events) = open(&platform, &again).await;
    assert_eq!(read_to_the_end(&mut events, "again", 0).await, 4);
    assert_eq!(platform.ends(&id).await["attempt"], 2);
}

async fn what_fails_after_the_first_chunk_is_no_clean_end(mode: Mode) {
    let platform = Platform::start(mode).await;
    let body = streaming("cut", &json!({"parts": 9, "part_ms": 5, "cut_before": 4}));
    let (id, mut events) = open(&platform, &body).await;
    let events = events.rest().await;
    let (last, chunks) = events.split_last().unwrap();
    for (n, chunk) in (0..).zip(chunks) {
        assert_eq!(number_of(&chunk.json()["response"], "cut", 0), n);
    }
    assert_eq!(chunks.len(), 4);
    let failure = last.json();
    assert_eq!((&*last.name, &failure["object"]), ("message", &json!("generic_inference.chunk")));
    assert_eq!(failure["response"], Value::Null);
    assert!(failure["error"]["message"].is_string(), "{failure}");
    let job = platform.ends(&id).await;
    assert_eq!(job["status"], "failed");
    assert_eq!(job["attempt"], 1, "part of it had been passed on: it is not repeated by itself");
    assert_eq!(platform.vendor.calls("cut").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_killed_mid_stream_fails_the_job_and_repeats_nothing() {
    let platform = Platform::start(Mode::Embedded).await;
    let body = streaming("killed", &json!({"parts": 100, "part_ms": 100}));
    let (id, mut events) = open(&platform, &body).await;
    for n in 0..8 {
        let chunk = events.next().await.unwrap().json();
        assert_eq!(number_of(&chunk["response"], "killed", 0), n);
    }
    platform.fronts[0].kill();
    assert!(events.rest().await.iter().all(|event| event.name != "done"));
    platform.fronts[0].start_again();
    platform.fronts[0].is_ready().await;
    assert_failed_after_a_part(&platform, &id, "killed").await;
}

/// The job failed because its process was lost, and its events tell what had been passed on.
async fn assert_failed_after_a_part(platform: &Platform, id: &str, name: &str) {
    let job = platform.ends(id).await;
    assert_eq!(
        (&job["status"], &job["error"]["class"]),
        (&json!("failed"), &json!("lost")),
        "{job}"
    );
    assert_eq!(platform.vendor.calls(name).len(), 1);
    let events = follow(platform, id, None).await.unwrap().rest().await;
    let numbers: Vec<u64> = events.iter().map(|event| event.id.unwrap()).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
    let chunks = events.iter().filter(|event| event.name == "chunk").map(Event::json);
    let seen: Vec<u32> = chunks.map(|chunk| number_of(&chunk["chunk"], name, 0)).collect();
    assert!(!seen.is_empty());
    assert_eq!(seen, (0..).take(seen.len()).collect::<Vec<_>>());
}

#[cfg(feature = "servers")]
mod killed {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stream_s_events_are_resumed_at_another_api() {
        let platform = Platform::start(Mode::Distributed).await;
        let id = platform.submit(&streaming("moved", &json!({"parts": 60, "part_ms": 25}))).await;
        let mut seen = Vec::new();
        let mut events = follow(&platform, &id, None).await.unwrap();
        while seen.len() < 10 {
            seen.push(events.next().await.unwrap());
        }
        platform.fronts[0].kill();
        seen.extend(events.rest().await);
        while !seen.last().is_some_and(is_end) {
            let last = seen.last().and_then(|event| event.id);
            seen.extend(follow(&platform, &id, last).await.unwrap().rest().await);
        }
        assert_whole(&seen, "moved", 60);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_direct_reader_learns_that_its_worker_died() {
        let platform = Platform::start(Mode::Distributed).await;
        let body = streaming("orphan", &json!({"parts": 600, "part_ms": 100}));
        let (id, mut events) = open(&platform, &body).await;
        for n in 0..8 {
            let chunk = events.next().await.unwrap().json();
            assert_eq!(number_of(&chunk["response"], "orphan", 0), n);
        }
        // Which worker has it is not to be seen from outside: both go, one comes back.
        let killed = Instant::now();
        platform.workers[0].kill();
        platform.workers[1].kill();
        platform.workers[1].start_again();
        let rest = events.rest().await;
        assert!(killed.elapsed() < Duration::from_secs(15), "it took {:?}", killed.elapsed());
        let failure = rest.last().unwrap().json();
        assert!(failure["error"]["message"].is_string(), "{failure}");
        assert!(rest.iter().all(|event| event.name != "done"));
        assert_failed_after_a_part(&platform, &id, "orphan").await;
    }
}
