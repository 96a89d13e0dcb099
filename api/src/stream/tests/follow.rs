//! Followers of a job, who read the store.

use std::fmt::Write as _;

use http::Method;
use inferq_common::{
    error::{ErrorClass, JobError},
    job::Outcome,
    store::Claim,
    usage::Usage,
};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use serde_json::{Value, json};

use super::{STREAM, start, take_all};
use crate::testing::{Opened, Reply, TestApi, succeeded};

/// One event as a client reads it.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    id: u64,
    name: String,
    data: Value,
}

/// The whole events of `text`, comments left out.
fn events(text: &str) -> Vec<Event> {
    let blocks = text.split_terminator("\n\n").filter(|block| !block.starts_with(':'));
    let event = |block: &str| {
        let lines: Vec<&str> = block.split('\n').collect();
        let [id, name, data] = lines[..] else { panic!("three lines: {block}") };
        Event {
            id: id.strip_prefix("id: ").unwrap().parse().unwrap(),
            name: name.strip_prefix("event: ").unwrap().to_owned(),
            data: serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap(),
        }
    };
    blocks.map(event).collect()
}

async fn follow(api: &TestApi, path: &str, headers: &[(&str, &str)]) -> Opened {
    api.open(api.request(Method::GET, path, headers, "")).await
}

async fn whole(api: &TestApi, path: &str, headers: &[(&str, &str)]) -> Reply {
    api.send(api.request(Method::GET, path, headers, "")).await
}

fn retry(api: &TestApi) -> Outcome {
    let error = JobError::new(ErrorClass::Overloaded, "busy");
    Outcome::Retry { error, usage: Usage::default(), run_at: api.state.clock.now() }
}

async fn end(api: &TestApi, claim: Claim, outcome: Outcome) {
    let now = api.state.clock.now();
    assert_eq!(api.store.finish(&[(claim, outcome)], now).await.unwrap(), [true]);
}

/// Claims a job whatever was published of it.
async fn claim(api: &TestApi, id: inferq_common::id::JobId) -> Claim {
    let now = api.state.clock.now();
    let claims = api.store.claim(&[id], api.state.instance.id(), now).await.unwrap();
    claims.into_iter().next().expect("the job can be claimed")
}

#[tokio::test]
async fn the_events_of_a_job_are_its_statuses_attempts_and_chunks() {
    let api = start().await;
    let id = api.accepted(STREAM).await;
    let path = format!("/v5/jobs/{id}/events");
    let mut stream = follow(&api, &path, &[]).await;
    assert_eq!(stream.status, 200);
    assert_eq!(stream.header("content-type"), "text/event-stream; charset=utf-8");
    assert_eq!(stream.header("x-job-id"), id.to_string());
    let mut text = stream.until("\"queued\"").await;
    let first = claim(&api, id).await;
    text += &stream.until("\"running\"").await;
    end(&api, first, retry(&api)).await;
    text += &stream.until("event: attempt").await;
    let second = claim(&api, id).await;
    api.append(&second, 0, &["{ \"t\":1.50 }"]).await;
    text += &stream.until("1.50").await;
    assert!(text.contains(r#"data: {"attempt":2,"index":0,"chunk":{ "t":1.50 }}"#), "{text}");
    api.append(&second, 1, &["2", "3"]).await;
    api.finish_stream(second, 3, succeeded("[1.5,2,3]")).await;
    text += &stream.rest().await;

    let events = events(&text);
    let short: Vec<Value> = events
        .iter()
        .map(|event| {
            let data = &event.data;
            match event.name.as_str() {
                "status" => json!([event.id, "status", data["status"], data["attempt"]]),
                "attempt" => json!([event.id, "attempt", data["outcome"], data["number"]]),
                _ => json!([event.id, event.name, data["attempt"], data["index"], data["chunk"]]),
            }
        })
        .collect();
    assert_eq!(
        json!(short),
        json!([
            [1, "status", "queued", 0],
            [2, "status", "running", 1],
            [3, "attempt", "failed", 1],
            [4, "status", "running", 2],
            [5, "chunk", 2, 0, {"t": 1.5}],
            [6, "chunk", 2, 1, 2],
            [7, "chunk", 2, 2, 3],
            [8, "attempt", "succeeded", 2],
            [9, "status", "succeeded", 2],
        ])
    );
    let job = api.get(&format!("/v5/jobs/{id}")).await.json();
    assert_eq!(events.last().unwrap().data, job, "the last event is the job with its result");
    assert!(api.state.waiters.is_empty());
}

#[tokio::test]
async fn a_follower_goes_on_where_it_was() {
    let api = start().await;
    let id = api.accepted(STREAM).await;
    let run = claim(&api, id).await;
    api.append(&run, 0, &["1", "2"]).await;
    api.finish_stream(run, 2, succeeded("[]")).await;
    let path = format!("/v5/jobs/{id}/events");
    let all = events(&api.get(&path).await.text);
    assert_eq!(all.len(), 6);
    for seen in 0..6 {
        let seen_text = seen.to_string();
        let headers = [("last-event-id", seen_text.as_str())];
        let by_header = whole(&api, &path, &headers).await;
        assert_eq!(events(&by_header.text), all[seen..], "after {seen}");
        let query = format!("{path}?starting_after={seen}");
        let by_query = whole(&api, &query, &[("last-event-id", "1")]).await;
        assert_eq!(by_query.text, by_header.text, "the query wins");
    }
    for seen in ["6", "7", "9223372036854775807"] {
        assert_eq!(whole(&api, &path, &[("last-event-id", seen)]).await.status, 204);
    }
    for (query, header, places) in [
        ("?starting_after=x", "1", "int_parsing at query.starting_after"),
        ("?starting_after=-1", "1", "greater_than_equal at query.starting_after"),
        ("", "1.5", "int_parsing at header.last-event-id"),
        ("", "", "int_parsing at header.last-event-id"),
    ] {
        let reply = whole(&api, &format!("{path}{query}"), &[("last-event-id", header)]).await;
        assert_eq!(reply.places(), [places]);
    }
}

#[tokio::test]
async fn a_large_response_is_not_in_the_last_event() {
    let api = start().await;
    for (size, is_there) in [(256 * 1024, true), (256 * 1024 + 1, false)] {
        let id = api.accepted(STREAM).await;
        let run = claim(&api, id).await;
        let response = format!("\"{}\"", "x".repeat(size - 2));
        api.finish_stream(run, 0, succeeded(&response)).await;
        let last = events(&api.get(&format!("/v5/jobs/{id}/events")).await.text).pop().unwrap();
        assert_eq!(last.data["status"], "succeeded");
        assert_eq!(last.data["response"].is_string(), is_there, "{size}");
    }
}

#[tokio::test]
async fn many_chunks_are_read_in_bounded_pieces() {
    let api = start().await;
    let id = api.accepted(STREAM).await;
    let run = claim(&api, id).await;
    let chunk = format!("\"{}\"", "x".repeat(10_000));
    for n in 0..10 {
        api.append(&run, n * 10, &[chunk.as_str(); 10]).await;
    }
    api.finish_stream(run, 100, succeeded("0")).await;
    let mut stream = follow(&api, &format!("/v5/jobs/{id}/events"), &[]).await;
    let mut text = String::new();
    while let Some(part) = stream.next().await {
        assert!(part.len() < 500_000, "{}", part.len());
        text += &part;
    }
    let ids: Vec<u64> = events(&text).iter().map(|event| event.id).collect();
    assert_eq!(ids, (1..=104).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_process_that_stops_lets_its_followers_go() {
    let api = start().await;
    let id = api.accepted(STREAM).await;
    let mut stream = follow(&api, &format!("/v5/jobs/{id}/events"), &[]).await;
    stream.until("queued").await;
    api.state.shutdown.soft.cancel();
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn followers_take_a_place_among_the_streams() {
    let api = start().await;
    let id = api.accepted(STREAM).await;
    let path = format!("/v5/jobs/{id}/events");
    let stream = follow(&api, &path, &[]).await;
    assert_eq!(api.state.streams.n_taken(), 1);
    drop(stream);
    let _taken = take_all(&api.state.streams);
    assert_eq!(api.get(&path).await.status, 503);
}

/// What happens to a job, and between.
#[derive(Debug, Clone, Copy)]
enum Step {
    Stream(u8),
    Retry,
    PutOff,
    /// The follower reads so many events and breaks off.
    Read(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1_u8..5).prop_map(Step::Stream),
        1 => Just(Step::Retry),
        1 => Just(Step::PutOff),
        4 => (0_u8..6).prop_map(Step::Read),
    ];
    prop::collection::vec(step, 1..16)
}

#[tokio::test]
async fn any_life_seen_with_any_breaks_is_told_without_gap_or_repeat() {
    let api = start().await;
    let mut runner = TestRunner::deterministic();
    for _ in 0..24 {
        let steps = steps().new_tree(&mut runner).unwrap().current();
        let id = api.accepted(STREAM).await;
        let told = live(&api, id, &steps).await;
        let all = events(&api.get(&format!("/v5/jobs/{id}/events")).await.text);
        let mut told_again = told.clone();
        // Who looked at the right moment saw a claim that was taken back.
        told_again.retain(|event| all.iter().any(|its| its.id == event.id) || !is_run(event));
        let ids = |events: &[Event]| -> Vec<(u64, String, String)> {
            let key = |event: &Event| {
                let mut key = String::new();
                write!(key, "{} {}", event.data["index"], event.data["chunk"]).unwrap();
                (event.id, event.name.clone(), key)
            };
            events.iter().map(key).collect()
        };
        assert_eq!(ids(&told_again), ids(&all), "{steps:?}");
    }
}

fn is_run(event: &Event) -> bool {
    event.data["status"] == "running"
}

/// Leads a job through its life, and answers what a follower that breaks off was told.
async fn live(api: &TestApi, id: inferq_common::id::JobId, steps: &[Step]) -> Vec<Event> {
    let mut told: Vec<Event> = Vec::new();
    let mut run = claim(api, id).await;
    let mut next = 0;
    for step in steps {
        match step {
            Step::Stream(n) => {
                let texts: Vec<String> =
                    (next..next + u64::from(*n)).map(|n| n.to_string()).collect();
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                api.append(&run, next, &texts).await;
                next += u64::from(*n);
            }
            Step::Retry => {
                end(api, run, retry(api)).await;
                run = claim(api, id).await;
                next = 0;
            }
            Step::PutOff if next == 0 => {
                let run_at = api.state.clock.now();
                end(api, run, Outcome::Deferred { run_at, ticket: None }).await;
                run = claim(api, id).await;
            }
            Step::PutOff => {}
            Step::Read(n) => read(api, id, &mut told, *n).await,
        }
    }
    api.finish_stream(run, next, succeeded("0")).await;
    let seen = told.last().map_or(0, |event| event.id);
    let path = format!("/v5/jobs/{id}/events?starting_after={seen}");
    told.extend(events(&api.get(&path).await.text));
    told
}

/// Reads up to `n` of the events that are there, however they are cut.
async fn read(api: &TestApi, id: inferq_common::id::JobId, told: &mut Vec<Event>, n: u8) {
    let seen = told.last().map_or(0, |event| event.id);
    let path = format!("/v5/jobs/{id}/events?starting_after={seen}");
    let mut stream = follow(api, &path, &[]).await;
    let mut left = usize::from(n);
    while left > 0 {
        let more = tokio::time::timeout(std::time::Duration::from_millis(5), stream.next()).await;
        let Ok(Some(text)) = more else { return };
        let more = events(&text);
        // A client may die in the midst of what it was sent.
        let taken = more.len().min(left);
        told.extend(more.into_iter().take(taken));
        left -= taken;
    }
}
