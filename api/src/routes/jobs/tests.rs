use http::Method;
use inferq_common::{
    broker::{Event, Times},
    error::ErrorClass,
    job::{JobResult, JobStatus, Outcome},
    usage::Usage,
};
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::testing::{TestApi, failed, succeeded};

const ECHO: &str = r#"{"model":"model_zoo/echo","args":{"a":1}}"#;

#[tokio::test]
async fn a_job_shows_its_whole_life() {
    let api = TestApi::start().await;
    let id = api.accepted(ECHO).await;
    let claim = api.claim().await;
    let usage = Usage { input_tokens: Some(3), ..Usage::default() };
    let response = inferq_common::job::Json::parse(r#"{"z":1.50}"#).unwrap();
    let vendor_request_id = Some("req-1".to_owned());
    api.finish(claim, Outcome::Succeeded { response, usage, vendor_request_id }).await;
    let reply = api.get(&format!("/v5/jobs/{id}")).await;
    assert_eq!(reply.job_id(), id);
    assert!(reply.text.contains(r#""response":{"z":1.50}"#), "{}", reply.text);
    insta::assert_json_snapshot!(reply.json(), {
        ".id" => "[id]", ".created_at" => "[at]", ".started_at" => "[at]", ".finished_at" => "[at]",
    });
    let attempts = api.get(&format!("/v5/jobs/{id}/attempts")).await.json();
    insta::assert_json_snapshot!(attempts, {
        ".items[].job_id" => "[id]", ".items[].started_at" => "[at]", ".items[].finished_at" => "[at]",
    });
}

#[tokio::test]
async fn a_long_poll_ends_with_the_job_or_with_its_time() {
    let api = TestApi::start().await;
    let id = api.accepted(ECHO).await;
    let path = format!("/v5/jobs/{id}");
    let poll =
        |wait: &'static str| api.send(api.request(Method::GET, &path, &[("prefer", wait)], ""));
    let reply = poll("wait=1").await;
    assert_eq!(reply.json()["status"], "queued");
    assert_eq!(reply.header("preference-applied"), "wait=1");
    let (reply, _) = tokio::join!(poll("wait=30"), api.run_next(succeeded("1")));
    assert_eq!(reply.json()["status"], "succeeded");
    assert_eq!(reply.json()["response"], 1);
}

#[tokio::test]
async fn a_long_poll_shows_what_the_store_has() {
    let api = TestApi::start().await;
    let id = api.accepted(r#"{"model":"model_zoo/echo","metadata":{"z":1.50},"args":{}}"#).await;
    let path = format!("/v5/jobs/{id}");
    let poll = api.send(api.request(Method::GET, &path, &[("prefer", "wait=30")], ""));
    let (told, _) = tokio::join!(poll, api.run_next(succeeded(r#"{"a":1.50}"#)));
    assert_eq!(told.json()["status"], "succeeded");
    assert_eq!(told.text, api.get(&path).await.text);
}

#[tokio::test]
async fn who_waits_for_a_job_made_here_does_not_need_the_store() {
    let api = TestApi::start().await;
    let id = api.accepted(ECHO).await;
    let claim = api.claim().await;
    api.store.close().await;
    let path = format!("/v5/jobs/{id}");
    let poll = api.send(api.request(Method::GET, &path, &[("prefer", "wait=30")], ""));
    let tell = async {
        while api.state.waiters.is_empty() {
            tokio::task::yield_now().await;
        }
        let response = Some(inferq_common::job::Json::parse("[1]").unwrap());
        let (started_at, finished_at) = (claim.job.started_at, claim.job.created_at);
        api.state.waiters.take(Event::Finished {
            job_id: id,
            status: JobStatus::Succeeded,
            attempt: 1,
            result: Some(JobResult { response, ..JobResult::default() }),
            times: Some(Times { started_at, finished_at }),
            chunks: 0,
            room: None,
        });
    };
    let (told, ()) = tokio::join!(poll, tell);
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!((&told.json()["response"], &told.json()["attempt"]), (&json!([1]), &json!(1)));
    // What is over is not remembered.
    let again = api.send(api.request(Method::GET, &path, &[("prefer", "wait=30")], "")).await;
    assert_eq!(again.status, 503, "{again:?}");
}

#[tokio::test]
async fn another_account_does_not_wait_for_a_job_that_is_remembered() {
    let api = TestApi::start().await;
    let id = api.accepted(ECHO).await;
    let other = api.add_key("other", &[]).await;
    let headers = [("x-api-key", other.expose_secret()), ("prefer", "wait=30")];
    let path = format!("/v5/jobs/{id}");
    assert_eq!(api.send(api.request(Method::GET, &path, &headers, "")).await.status, 404);
}

#[tokio::test]
async fn another_accounts_job_does_not_exist() {
    let api = TestApi::start().await;
    let id = api.accepted(ECHO).await;
    let other = api.add_key("other", &[]).await;
    let key = [("x-api-key", other.expose_secret())];
    for (method, path) in [
        (Method::GET, ""),
        (Method::GET, "/attempts"),
        (Method::GET, "/deliveries"),
        (Method::GET, "/events"),
        (Method::POST, "/cancel"),
        (Method::POST, "/retry"),
    ] {
        let path = format!("/v5/jobs/{id}{path}");
        let reply = api.send(api.request(method, &path, &key, "")).await;
        assert_eq!(reply.status, 404, "{path}");
        assert_eq!(reply.json(), json!({ "detail": format!("job {id} was not found") }));
    }
    let list = api.send(api.request(Method::GET, "/v5/jobs", &key, "")).await;
    assert_eq!(list.json()["items"], json!([]));
    assert_eq!(api.get("/v5/jobs/no-uuid").await.status, 404);
}

#[tokio::test]
async fn a_list_is_paged_both_ways_and_filtered() {
    let api = TestApi::start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(api.accepted(ECHO).await.to_string());
    }
    let page = async |query: &str| {
        let list = api.get(&format!("/v5/jobs?{query}")).await.json();
        let items = list["items"].as_array().unwrap().iter();
        let found: Vec<String> = items.map(|job| job["id"].as_str().unwrap().to_owned()).collect();
        (found, list["has_more"].as_bool().unwrap())
    };
    // Of two that were made in the same millisecond chance has ordered the ids.
    ids.sort_unstable();
    let newest_first: Vec<String> = ids.iter().rev().cloned().collect();
    assert_eq!(page("").await, (newest_first.clone(), false));
    assert_eq!(page("limit=2").await, (newest_first[..2].to_vec(), true));
    let after = format!("limit=2&starting_after={}", newest_first[3]);
    assert_eq!(page(&after).await, (newest_first[4..].to_vec(), false));
    let end = format!("starting_after={}", newest_first[4]);
    assert_eq!(page(&end).await, (Vec::new(), false));
    let before = format!("limit=2&ending_before={}", newest_first[4]);
    assert_eq!(page(&before).await, (newest_first[2..4].to_vec(), true));
    assert_eq!(page("sort_order=asc&limit=2").await, (ids[..2].to_vec(), true));

    let ended = api.run_next(succeeded("1")).await.job.id.to_string();
    assert_eq!(page("status=succeeded").await.0, [ended]);
    assert_eq!(page("model=model_zoo/echo&status=queued").await.0.len(), 4);
    assert_eq!(page("model_vendor=openai").await.0.len(), 0);
    assert_eq!(page("model=other").await.0.len(), 0);
    let list = api.get("/v5/jobs?limit=3").await.json();
    assert_eq!((&list["object"], &list["limit"]), (&json!("list"), &json!(3)));
}

#[tokio::test]
async fn what_fastapi_says_of_bad_queries() {
    let api = TestApi::start().await;
    let query = "limit=0&starting_after=x&model_vendor=acme&sort_order=up&status=done&model=%00";
    insta::assert_json_snapshot!(api.get(&format!("/v5/jobs?{query}")).await.json());
    let problem = |query: &'static str| {
        let path = format!("/v5/jobs?{query}");
        let api = &api;
        async move { api.get(&path).await.problems()[0].clone() }
    };
    let limit = |kind: &str| (kind.to_owned(), json!(["query", "limit"]));
    assert_eq!(problem("limit=abc").await, limit("int_parsing"));
    assert_eq!(problem("limit=1001").await, limit("less_than_equal"));
}

#[tokio::test]
async fn a_queued_job_is_cancelled_once() {
    let api = TestApi::start().await;
    let id = api.accepted(ECHO).await;
    let path = format!("/v5/jobs/{id}/cancel");
    let reply = api.post(&path, &[], "").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["status"], "cancelled");
    assert_eq!(reply.json()["error"]["class"], "cancelled");
    let again = api.post(&path, &[], "").await;
    assert_eq!(again.status, 409);
    assert_eq!(again.header("x-should-retry"), "false");
    assert_eq!(again.json()["status"], "cancelled");
}

#[tokio::test]
async fn cancelling_a_running_job_reaches_its_worker_and_its_caller() {
    let api = TestApi::start().await;
    let mut inbox = api.broker.inbox(api.state.instance.id()).await.unwrap();
    let cancel = async {
        let claim = api.claim().await;
        let id = claim.job.id;
        let reply = api.post(&format!("/v5/jobs/{id}/cancel"), &[], "").await;
        assert_eq!(reply.status, 200);
        id
    };
    let (reply, id) = tokio::join!(api.post("/v5/inference", &[], ECHO), cancel);
    assert_eq!(reply.status, 409);
    assert_eq!(reply.json()["error"]["class"], "cancelled");
    assert_eq!(inbox.next().await.unwrap(), Event::Cancel { job_id: id, attempt: 1 });
}

#[tokio::test]
async fn only_an_ended_job_is_repeated() {
    let api = TestApi::start().await;
    let body = r#"{"model":"model_zoo/echo","args":{"a": 1.0},"metadata":{"b":2},
                   "inference_configuration":{"timeout_seconds":5}}"#;
    let id = api.accepted(body).await;
    let path = format!("/v5/jobs/{id}/retry");
    assert_eq!(api.post(&path, &[], "").await.status, 409);
    let first = api.run_next(failed(ErrorClass::Transient, "no luck")).await;
    let key = ("idempotency-key", "again");
    let reply = api.post(&path, &[key], "").await;
    assert_eq!(reply.status, 202);
    assert_ne!(reply.job_id(), id);
    assert_eq!(reply.header("location"), format!("/v5/jobs/{}", reply.job_id()));
    assert_eq!(reply.json()["retry_of"], json!(id));
    assert_eq!(api.post(&path, &[key], "").await.job_id(), reply.job_id());
    let second = api.run_next(succeeded("1")).await;
    assert_eq!(second.args.as_str(), r#"{"a": 1.0}"#);
    assert_eq!(second.job.limits, first.job.limits);
    assert_eq!(second.job.metadata, first.job.metadata);
    assert_eq!(api.n_jobs().await, 2);
}

#[tokio::test]
async fn a_callback_that_is_owed_is_seen_and_repeated() {
    let api = TestApi::start().await;
    let body = r#"{"model":"model_zoo/echo","callback_url":"https://example.com/hook"}"#;
    let id = api.accepted(body).await;
    assert_eq!(api.get(&format!("/v5/jobs/{id}/deliveries")).await.json()["items"], json!([]));
    api.run_next(succeeded("1")).await;
    let list = api.get(&format!("/v5/jobs/{id}/deliveries")).await.json();
    insta::assert_json_snapshot!(list, {
        ".items[].id" => "[id]", ".items[].job_id" => "[id]",
        ".items[].created_at" => "[at]", ".items[].next_attempt_at" => "[at]",
    });
    let delivery = list["items"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/v5/deliveries/{delivery}");
    assert_eq!(api.get(&path).await.json()["attempts"], json!([]));
    let reply = api.post(&format!("{path}/redeliver"), &[], "").await;
    assert_eq!((reply.status.as_u16(), &reply.json()["status"]), (202, &json!("pending")));

    let other = api.add_key("other", &[]).await;
    let key = [("x-api-key", other.expose_secret())];
    assert_eq!(api.send(api.request(Method::GET, &path, &key, "")).await.status, 404);
    assert_eq!(api.post(&format!("{path}/redeliver"), &key, "").await.status, 404);
}

#[tokio::test]
async fn an_expired_job_says_so() {
    let api = TestApi::start().await;
    let at = api.state.clock.now() + chrono::TimeDelta::milliseconds(300);
    let body = json!({ "model": "model_zoo/echo", "expires_at": at }).to_string();
    let expire = async {
        loop {
            let now = api.state.clock.now();
            if let Some(job) = api.store.expire(now, 10).await.unwrap().pop() {
                return job;
            }
            tokio::task::yield_now().await;
        }
    };
    let (reply, job) = tokio::join!(api.post("/v5/inference", &[], &body), expire);
    assert_eq!(job.status, JobStatus::Expired);
    assert_eq!(reply.status, 504);
    assert_eq!(reply.json()["error"]["class"], "expired");
}
