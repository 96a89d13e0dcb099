use inferq_common::id::JobId;
use serde_json::json;

use crate::testing::{Reply, TestApi, succeeded};

const PATH: &str = "/v5/inference";
const ECHO: &str = r#"{"model":"model_zoo/echo","args":{"a":1}}"#;
const AGAIN: (&str, &str) = ("x-stainless-retry-count", "1");
const ASYNC: (&str, &str) = ("prefer", "respond-async");

async fn accepted(api: &TestApi, headers: &[(&str, &str)], body: &str) -> JobId {
    let reply = api.post(PATH, headers, body).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    reply.job_id()
}

async fn copy(api: &TestApi, body: &str) -> Reply {
    api.post(PATH, &[AGAIN], body).await
}

#[tokio::test]
async fn a_copy_waits_for_the_job_of_the_first_request() {
    let api = TestApi::start().await;
    let first = api.post(PATH, &[], ECHO);
    let second = async {
        let claim = api.claim().await;
        // The first caller is there still; libraries give up before they come again.
        let answer = copy(&api, ECHO);
        let finish = async {
            while api.state.waiters.len() < 2 {
                tokio::task::yield_now().await;
            }
            api.finish(claim, succeeded("[7]")).await;
        };
        tokio::join!(answer, finish).0
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first.job_id(), second.job_id());
    assert_eq!(first.text, second.text);
    assert_eq!(api.n_jobs().await, 1);
}

#[tokio::test]
async fn a_copy_of_a_submit_is_accepted_with_the_same_job() {
    let api = TestApi::start().await;
    let first = accepted(&api, &[ASYNC], ECHO).await;
    let again = api.post(PATH, &[ASYNC, AGAIN], ECHO).await;
    assert_eq!((again.status.as_u16(), again.job_id()), (202, first));
    assert_eq!(again.header("location"), format!("/v5/jobs/{first}"));
    assert_eq!(again.json()["id"], json!(first));
}

#[tokio::test]
async fn only_a_counted_copy_of_an_unfinished_request_joins() {
    let api = TestApi::start().await;
    let first = accepted(&api, &[ASYNC], ECHO).await;
    assert_ne!(accepted(&api, &[ASYNC], ECHO).await, first, "a request of its own");
    let nought = ("x-stainless-retry-count", "0");
    assert_ne!(accepted(&api, &[ASYNC, nought], ECHO).await, first);
    let key = ("idempotency-key", "one");
    assert_ne!(accepted(&api, &[ASYNC, AGAIN, key], ECHO).await, first, "its key is another one");

    let api = TestApi::start().await;
    let first = accepted(&api, &[ASYNC], ECHO).await;
    api.run_next(succeeded("1")).await;
    assert_ne!(accepted(&api, &[ASYNC, AGAIN], ECHO).await, first, "it has ended");
}

#[tokio::test]
async fn a_job_that_ends_with_its_reader_is_joined_by_nobody() {
    let body = r#"{"model":"model_zoo/echo","cancel_on_disconnect":true}"#;
    let api = TestApi::start().await;
    let first = accepted(&api, &[ASYNC], body).await;
    assert_ne!(accepted(&api, &[ASYNC, AGAIN], body).await, first);
}

#[tokio::test]
async fn a_request_that_differs_in_any_member_is_no_copy() {
    let api = TestApi::start().await;
    let with = |more: &str| format!(r#"{{"model":"model_zoo/echo","args":{{"a":1}}{more}}}"#);
    let first = accepted(&api, &[ASYNC], ECHO).await;
    assert_eq!(accepted(&api, &[ASYNC, AGAIN], &with(r#","priority":"normal""#)).await, first);
    let others = [
        r#","metadata":{"a":1}"#,
        r#","priority":"low""#,
        r#","callback_url":"https://example.com/""#,
        r#","inference_configuration":{"timeout_seconds":61}"#,
        r#","inference_configuration":{"num_retries":0}"#,
        r#","run_at":"SOON""#,
        r#","expires_at":"SOON""#,
        r#","stream":true"#,
    ];
    let soon = api.state.clock.now() + chrono::TimeDelta::hours(1);
    let mut ids = vec![first];
    for more in others {
        let body = with(&more.replace("SOON", &soon.to_rfc3339()));
        let made = accepted(&api, &[ASYNC, AGAIN], &body).await;
        assert!(!ids.contains(&made), "{more}");
        ids.push(made);
        assert_eq!(accepted(&api, &[ASYNC, AGAIN], &body).await, made, "{more}");
    }
    for body in [r#"{"model":"model_zoo/echo","args":{"a":2}}"#, r#"{"model":"model_zoo/echo"}"#] {
        assert!(!ids.contains(&accepted(&api, &[ASYNC, AGAIN], body).await), "{body}");
    }
}

#[tokio::test]
async fn a_copy_with_its_first_ones_key_waits_instead_of_a_conflict() {
    let api = TestApi::start().await;
    let key = ("idempotency-key", "one");
    let first = accepted(&api, &[ASYNC, key], ECHO).await;
    assert_eq!(api.post(PATH, &[key], ECHO).await.status, 409);
    let headers = [key, AGAIN];
    let (reply, _) = tokio::join!(api.post(PATH, &headers, ECHO), api.run_next(succeeded("[1]")));
    assert_eq!((reply.status.as_u16(), reply.job_id()), (200, first));
}
