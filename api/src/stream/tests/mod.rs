//! Streams as their callers see them. These tests play the worker by hand.

mod follow;
mod stored;

use http::Method;
use inferq_common::{
    broker::Event, error::ErrorClass, id::AccountId, job::JobStatus, store::Claim,
};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::places::{MAX_STREAMS, Place, Places};
use crate::testing::{Opened, TestApi, failed, succeeded};

const INFERENCE: &str = "/v5/inference";
const EXECUTE: &str = "/v4/serving/a/greeter/execute";
const STREAM: &str = r#"{"model":"model_zoo/echo","args":{"a":1},"stream":true}"#;

async fn start() -> TestApi {
    let api = TestApi::start().await;
    api.add_server("greeter", "model_zoo/echo").await;
    api
}

async fn post(api: &TestApi, path: &str, headers: &[(&str, &str)], body: &str) -> Opened {
    api.open(api.request(Method::POST, path, headers, body)).await
}

/// A stream whose first chunk, `1`, has been told.
async fn begun(api: &TestApi, path: &str, headers: &[(&str, &str)], body: &str) -> (Opened, Claim) {
    let work = async {
        let claim = api.claim().await;
        api.tell(&claim, 0, &["1"]);
        claim
    };
    tokio::join!(post(api, path, headers, body), work)
}

/// The one event of `text`, which is unnamed.
#[track_caller]
fn unnamed(text: &str) -> Value {
    let data = text.strip_prefix("data: ").unwrap_or_else(|| panic!("not unnamed: {text}"));
    serde_json::from_str(data.strip_suffix("\n\n").unwrap()).unwrap()
}

#[tokio::test]
async fn a_v5_stream_has_the_framing_that_all_clients_read() {
    let api = start().await;
    let work = async {
        let claim = api.claim().await;
        assert!(claim.job.stream);
        assert_eq!(claim.args.as_str(), r#"{"a":1}"#);
        api.tell(&claim, 0, &[r#"{ "t" : 1.50 }"#, "2"]);
        claim
    };
    let (mut stream, claim) = tokio::join!(post(&api, INFERENCE, &[], STREAM), work);
    assert_eq!(stream.status, 200);
    assert_eq!(stream.header("content-type"), "text/event-stream; charset=utf-8");
    assert_eq!(stream.header("cache-control"), "no-cache");
    assert_eq!(stream.header("x-accel-buffering"), "no");
    assert_eq!(stream.header("x-job-id"), claim.job.id.to_string());
    assert_eq!(
        stream.next().await.unwrap(),
        concat!(
            "data: {\"object\":\"generic_inference.chunk\",\"response\":{ \"t\" : 1.50 }}\n\n",
            "data: {\"object\":\"generic_inference.chunk\",\"response\":2}\n\n",
        )
    );
    api.tell(&claim, 2, &["[3]"]);
    assert_eq!(
        stream.next().await.unwrap(),
        "data: {\"object\":\"generic_inference.chunk\",\"response\":[3]}\n\n"
    );
    let id = claim.job.id;
    api.finish_stream(claim, 3, succeeded("[1,2,3]")).await;
    assert_eq!(stream.rest().await, "event: done\ndata: [DONE]\n\n");
    let job = api.get(&format!("/v5/jobs/{id}")).await.json();
    assert_eq!(job["response"], json!([1, 2, 3]), "the whole answer is kept");
    assert!(api.state.waiters.is_empty());
}

#[tokio::test]
async fn a_v4_stream_is_the_models_own_chunks() {
    let api = start().await;
    let body = r#"{"input":"hi","stream":"yes"}"#;
    let (mut stream, claim) = begun(&api, EXECUTE, &[], body).await;
    assert!(claim.job.stream);
    assert_eq!(claim.args.as_str(), r#"{"input":"hi"}"#);
    api.finish_stream(claim, 1, succeeded("[1]")).await;
    assert_eq!(stream.rest().await, "data: 1\n\nevent: done\ndata: [DONE]\n\n");
}

#[tokio::test]
async fn a_stream_is_asked_for_in_the_args_or_beside_them() {
    let api = start().await;
    let body = r#"{"model":"model_zoo/echo","args":{"stream":true}}"#;
    let (_stream, claim) = begun(&api, INFERENCE, &[], body).await;
    assert!(claim.job.stream);
    assert_eq!(claim.args.as_str(), r#"{"stream":true}"#, "the adapter knows what to do with it");
    for body in [
        r#"{"model":"model_zoo/echo","args":{"stream":false},"stream":"off"}"#,
        r#"{"model":"model_zoo/echo","args":{"x":{"stream":true}},"stream":null}"#,
    ] {
        api.accepted(body).await;
        assert!(!api.claim().await.job.stream, "{body}");
    }
}

#[tokio::test]
async fn what_cannot_be_streamed_is_refused_at_once() {
    let api = start().await;
    for (body, place) in [
        (
            r#"{"model":"openai/text-embedding-3-small","args":{"input":"x"},"stream":true}"#,
            "stream",
        ),
        (
            r#"{"model":"openai/text-embedding-3-small","args":{"input":"x","stream":true}}"#,
            "stream",
        ),
        (r#"{"model":"cohere/rerank","args":{"query":"a","documents":[]},"stream":1}"#, "stream"),
    ] {
        let reply = api.post(INFERENCE, &[], body).await;
        assert_eq!(reply.places(), [format!("value_error at body.{place}")], "{body}");
    }
    let text = api
        .post(
            INFERENCE,
            &[],
            r#"{"model":"openai/text-embedding-3-small","args":{"input":"x"},"stream":true}"#,
        )
        .await
        .text;
    assert!(text.contains("'embeddings' of openai cannot be streamed; leave stream out"), "{text}");
    api.add_server("embedder", "openai/text-embedding-3-small").await;
    let path = "/v4/serving/a/embedder/execute";
    let reply = api.post(path, &[], r#"{"input":"x","stream":true}"#).await;
    assert_eq!(reply.places(), ["value_error at body.stream"]);
    assert_eq!(api.n_jobs().await, 0);
}

#[tokio::test]
async fn a_failure_before_the_first_byte_is_a_status() {
    let api = start().await;
    for path in [INFERENCE, EXECUTE] {
        let (reply, claim) = tokio::join!(
            api.post(path, &[], STREAM),
            api.run_next(failed(ErrorClass::RateLimited, "slow down")),
        );
        assert_eq!(reply.status, 429, "{reply:?}");
        assert_eq!(reply.header("x-should-retry"), "false");
        assert_eq!(
            reply.json(),
            json!({
                "detail": "slow down",
                "error": { "class": "rate_limited", "message": "slow down" },
                "job_id": claim.job.id,
            })
        );
    }
}

#[tokio::test]
async fn a_stream_without_chunks_is_empty() {
    let api = start().await;
    let (reply, _) = tokio::join!(api.post(INFERENCE, &[], STREAM), api.run_next(succeeded("[]")));
    assert_eq!(reply.text, "event: done\ndata: [DONE]\n\n");
}

#[tokio::test]
async fn a_failure_after_the_first_byte_is_told_and_the_stream_is_not_done() {
    let api = start().await;
    let (mut stream, claim) = begun(&api, INFERENCE, &[], STREAM).await;
    let id = claim.job.id;
    api.finish_stream(claim, 1, failed(ErrorClass::Transient, "cut")).await;
    stream.next().await;
    assert_eq!(
        unnamed(&stream.rest().await),
        json!({
            "object": "generic_inference.chunk", "response": null, "job_id": id,
            "error": { "class": "transient", "message": "cut", "status_code": 502 },
        })
    );

    let (mut stream, claim) = begun(&api, EXECUTE, &[], r#"{"stream":true}"#).await;
    let id = claim.job.id;
    api.finish_stream(claim, 1, failed(ErrorClass::Timeout, "late")).await;
    stream.next().await;
    let end = stream.rest().await;
    let data = end.strip_prefix("event: error\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(data).unwrap(),
        json!({
            "status": "FAILURE", "status_code": 504, "error_message": "late", "result": null,
            "error": { "class": "timeout", "message": "late" }, "job_id": id,
        })
    );
}

#[tokio::test]
async fn a_cancelled_stream_ends_with_an_error() {
    let api = start().await;
    let (mut stream, claim) = begun(&api, INFERENCE, &[], STREAM).await;
    stream.next().await;
    let path = format!("/v5/jobs/{}/cancel", claim.job.id);
    assert_eq!(api.post(&path, &[], "").await.status, 200);
    let error = unnamed(&stream.rest().await)["error"].clone();
    assert_eq!((&error["class"], &error["status_code"]), (&json!("cancelled"), &json!(409)));
}

#[tokio::test]
async fn another_attempts_chunks_are_never_mixed_in() {
    let api = start().await;
    let (mut stream, claim) = begun(&api, INFERENCE, &[], STREAM).await;
    let mut later = claim.clone();
    later.job.attempt += 1;
    api.tell(&later, 0, &["\"again\""]);
    stream.next().await;
    let error = unnamed(&stream.rest().await)["error"].clone();
    assert_eq!(error["class"], "transient");
    assert!(error["message"].as_str().unwrap().contains("the job goes on"), "{error}");
}

#[tokio::test]
async fn an_attempt_of_which_nothing_was_passed_on_gives_way_to_the_next() {
    let api = start().await;
    let work = async {
        let claim = api.claim().await;
        let mut later = claim.clone();
        later.job.attempt += 1;
        api.tell(&later, 0, &["\"again\""]);
        // Late, of the attempt before.
        api.tell(&claim, 0, &["\"old\""]);
    };
    let (mut stream, ()) = tokio::join!(post(&api, EXECUTE, &[], r#"{"stream":true}"#), work);
    assert_eq!(stream.next().await.unwrap(), "data: \"again\"\n\n");
}

#[tokio::test]
async fn chunks_told_twice_are_passed_on_once() {
    let api = start().await;
    let (mut stream, claim) = begun(&api, EXECUTE, &[], r#"{"stream":true}"#).await;
    api.tell(&claim, 0, &["1", "2"]);
    api.tell(&claim, 1, &["2", "3"]);
    api.tell(&claim, 0, &["1"]);
    api.finish_stream(claim, 3, succeeded("0")).await;
    let text = stream.rest().await;
    assert_eq!(text, "data: 1\n\ndata: 2\n\ndata: 3\n\nevent: done\ndata: [DONE]\n\n");
}

#[tokio::test]
async fn a_stream_can_be_left_to_itself() {
    let api = start().await;
    let reply = api.post(INFERENCE, &[("prefer", "respond-async")], STREAM).await;
    assert_eq!(reply.status, 202);
    assert!(api.claim().await.job.stream);
    let body = STREAM.replace("\"stream\"", r#""callback_url":"https://example.com/","stream""#);
    assert_eq!(api.post(INFERENCE, &[], &body).await.status, 202);
    assert_eq!(api.state.streams.n_taken(), 0, "they take no place");
}

#[tokio::test]
async fn open_streams_are_bounded() {
    let api = start().await;
    let taken = take_all(&api.state.streams);
    let reply = api.post(INFERENCE, &[], STREAM).await;
    assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (503, "1"));
    assert_eq!(api.n_jobs().await, 0, "nothing was made");
    drop(taken);
    let (stream, _) = begun(&api, INFERENCE, &[], STREAM).await;
    assert_eq!(api.state.streams.n_taken(), 1);
    drop(stream);
    assert_eq!(api.state.streams.n_taken(), 0);
}

/// All places, taken by other accounts than `acme`.
fn take_all(places: &Places) -> Vec<Place> {
    let accounts: [AccountId; 2] = ["one".parse().unwrap(), "two".parse().unwrap()];
    (0..MAX_STREAMS).map(|n| places.take(&accounts[n % 2]).unwrap()).collect()
}

#[tokio::test]
async fn one_account_does_not_take_the_streams_of_all() {
    let api = TestApi::with(|config| config.max_streams_per_account = 1).await;
    let (_open, claim) = begun(&api, INFERENCE, &[], STREAM).await;
    let refused = api.post(INFERENCE, &[], STREAM).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "1"));
    let detail = "too many event streams of this account are open";
    assert_eq!(refused.json(), json!({ "detail": detail }));
    let follow = api.get(&format!("/v5/jobs/{}/events", claim.job.id)).await;
    assert_eq!(follow.json(), json!({ "detail": detail }));
    let other = api.add_key("other", &[]).await;
    begun(&api, INFERENCE, &[("x-api-key", other.expose_secret())], STREAM).await;
}

#[tokio::test]
async fn a_silent_stream_begins_in_time_and_is_kept_alive() {
    let api = start().await;
    let headers = [("x-stainless-read-timeout", "0.4")];
    let mut stream = post(&api, INFERENCE, &headers, STREAM).await;
    assert_eq!(stream.status, 200);
    assert_eq!(stream.next().await.unwrap(), ": ok\n\n");
    assert_eq!(stream.next().await.unwrap(), ": ping\n\n");
    let claim = api.claim().await;
    api.finish_stream(claim, 0, failed(ErrorClass::Auth, "no")).await;
    let end = stream.until("error").await;
    assert_eq!(unnamed(end.trim_start_matches(": ping\n\n"))["error"]["status_code"], 502);
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_process_that_stops_does_not_end_a_stream_cleanly() {
    let api = start().await;
    let (mut stream, claim) = begun(&api, INFERENCE, &[], STREAM).await;
    stream.next().await;
    api.state.closing.cancel();
    let end = unnamed(&stream.rest().await);
    assert_eq!(end["error"]["status_code"], 503);
    assert_eq!(end["job_id"], json!(claim.job.id));
}

#[tokio::test]
async fn a_reader_who_leaves_stops_the_job_only_if_it_said_so() {
    let api = start().await;
    let (stream, claim) = begun(&api, INFERENCE, &[], STREAM).await;
    drop(stream);
    assert!(api.state.waiters.is_empty());
    api.finish_stream(claim, 1, succeeded("1")).await;

    let body = STREAM.replace("\"stream\"", r#""cancel_on_disconnect":true,"stream""#);
    let header = [("x-cancel-on-disconnect", "true")];
    for (path, headers, body) in
        [(INFERENCE, &[][..], body.as_str()), (EXECUTE, &header[..], r#"{"stream":true}"#)]
    {
        let (stream, claim) = begun(&api, path, headers, body).await;
        drop(stream);
        assert_eq!(status(&api, &claim, JobStatus::Cancelled).await, "cancelled");
    }
}

#[tokio::test]
async fn a_stream_that_was_read_to_its_end_cancels_nothing() {
    let api = start().await;
    let header = [("x-cancel-on-disconnect", "true")];
    let (mut stream, claim) = begun(&api, EXECUTE, &header, r#"{"stream":true}"#).await;
    api.state.waiters.take(Event::Finished {
        job_id: claim.job.id,
        status: JobStatus::Succeeded,
        attempt: 1,
        result: None,
        times: None,
        chunks: 1,
        room: None,
    });
    stream.rest().await;
    drop(stream);
    // The store knows of no end yet, so that a cancel would show.
    api.state.tasks.close();
    api.state.tasks.wait().await;
    let job = api.get(&format!("/v5/jobs/{}", claim.job.id)).await.json();
    assert_eq!(job["status"], "running");
}

/// The job's status once it is `wanted`.
async fn status(api: &TestApi, claim: &Claim, wanted: JobStatus) -> String {
    let path = format!("/v5/jobs/{}", claim.job.id);
    let poll = [("prefer", "wait=10")];
    let job = api.send(api.request(Method::GET, &path, &poll, "")).await.json();
    assert_eq!(job["status"], wanted.as_str());
    job["status"].as_str().unwrap().to_owned()
}
