use inferq_common::{error::ErrorClass, job::Route};
use serde_json::json;

use crate::testing::{TestApi, failed, succeeded};

const PATH: &str = "/v4/serving/a/greeter/execute";

async fn start() -> TestApi {
    let api = TestApi::start().await;
    api.add_server("greeter", "model_zoo/echo").await;
    api
}

#[tokio::test]
async fn the_body_belongs_to_the_model_and_the_answer_carries_its_status() {
    let api = start().await;
    let (reply, claim) = tokio::join!(
        api.post(PATH, &[], r#"{"stream":false,"input": 1.50}"#),
        api.run_next(succeeded(r#"{"x" : 1.0}"#)),
    );
    assert_eq!(claim.args.as_str(), r#"{"input":1.50}"#);
    assert_eq!(claim.job.alias.as_deref(), Some("greeter"));
    assert_eq!(reply.status, 200);
    let id = reply.job_id();
    assert_eq!(
        reply.text,
        format!(
            r#"{{"status":"SUCCESS","status_code":200,"error_message":null,"result":{{"x" : 1.0}},"job_id":"{id}"}}"#
        )
    );
}

#[tokio::test]
async fn a_failed_job_is_a_failure_inside_a_200() {
    let api = start().await;
    let run = api.run_next(failed(ErrorClass::RateLimited, "slow down"));
    let (reply, _) = tokio::join!(api.post(PATH, &[], "{}"), run);
    assert_eq!(reply.status, 200);
    let id = reply.job_id();
    assert_eq!(
        reply.json(),
        json!({
            "status": "FAILURE",
            "status_code": 429,
            "error_message": "slow down",
            "result": null,
            "error": { "class": "rate_limited", "message": "slow down" },
            "job_id": id,
        })
    );
}

#[tokio::test]
async fn headers_carry_what_the_body_cannot() {
    let api = start().await;
    let headers = [
        ("x-callback-url", "https://example.com/hook"),
        ("x-priority", "normal"),
        ("x-timeout-seconds", "7"),
        ("x-num-retries", "0"),
    ];
    let reply = api.post(PATH, &headers, "{}").await;
    assert_eq!(reply.status, 202, "a callback makes it asynchronous");
    let job = reply.json();
    assert_eq!(job["operation"], "execute");
    assert_eq!(job["timeout_seconds"], 7);
    assert_eq!(job["num_retries"], 0);
    assert_eq!(job["callback_url"], "https://example.com/hook");

    let headers = [
        ("x-callback-url", "http://10.0.0.1/"),
        ("x-priority", "urgent"),
        ("x-timeout-seconds", "0"),
        ("x-num-retries", "many"),
    ];
    let reply = api.post(PATH, &headers, r#"{"stream":"maybe"}"#).await;
    let problem = |kind: &str, source: &str, name: &str| (kind.to_owned(), json!([source, name]));
    assert_eq!(
        reply.problems(),
        [
            problem("value_error", "header", "x-callback-url"),
            problem("enum", "header", "x-priority"),
            problem("greater_than_equal", "header", "x-timeout-seconds"),
            problem("int_parsing", "header", "x-num-retries"),
            problem("bool_parsing", "body", "stream"),
        ]
    );
}

#[tokio::test]
async fn an_alias_is_known_in_its_own_account_only() {
    let api = start().await;
    let reply = api.post("/v4/serving/a/nobody/execute", &[], "{}").await;
    assert_eq!(reply.status, 404);
    assert_eq!(reply.json(), json!({ "detail": "no model server has this alias" }));
    let other = api.add_key("other", &[]).await;
    let key = ("x-api-key", secrecy::ExposeSecret::expose_secret(&other));
    assert_eq!(api.post(PATH, &[key], "{}").await.status, 404);
    assert_eq!(api.post("/v4/serving/a/%00/execute", &[], "{}").await.status, 404);
}

#[tokio::test]
async fn an_alias_is_decoded_as_one_segment() {
    let api = start().await;
    api.add_server("a/b c", "model_zoo/echo").await;
    let headers = [("prefer", "respond-async")];
    let reply = api.post("/v4/serving/a/a%2Fb%20c/execute", &headers, "{}").await;
    assert_eq!(reply.json()["alias"], "a/b c");
}

#[tokio::test]
async fn a_server_whose_model_is_gone_or_cannot_take_the_body_says_so() {
    let api = start().await;
    api.add_server_of_gone_model("gone").await;
    assert_eq!(api.post("/v4/serving/a/gone/execute", &[], "{}").await.status, 404);
    api.add_server("cohere", "cohere/command").await;
    let reply = api.post("/v4/serving/a/cohere/execute", &[], "{}").await;
    assert_eq!(reply.problems(), [("value_error".to_owned(), json!(["body"]))]);
}

#[tokio::test]
async fn the_body_must_be_an_object() {
    let api = start().await;
    let reply = api.post(PATH, &[], "[]").await;
    assert_eq!(reply.problems(), [("model_attributes_type".to_owned(), json!(["body"]))]);
    let reply = api.post(PATH, &[], "").await;
    assert_eq!(reply.problems(), [("missing".to_owned(), json!(["body"]))]);
}

#[tokio::test]
async fn a_launch_model_of_type_async_is_given_tasks() {
    let api = start().await;
    let route_of = async |id| {
        let found = api.store.find_job(id, &"acme".parse().unwrap()).await;
        found.unwrap().unwrap().0.route
    };
    for (endpoint_type, route) in [("async", Some(Route::AsyncTask)), ("sync", None)] {
        let body = json!({
            "name": endpoint_type, "model_vendor": "launch",
            "vendor_configuration": {
                "model_image": {
                    "registry": "registry.example", "repository": "acme/model", "tag": "1",
                    "command": ["serve"],
                },
                "model_infra": { "endpoint_type": endpoint_type },
            },
        });
        let made = api.post("/v5/models", &[], &body.to_string()).await;
        assert_eq!(made.status, 200, "{made:?}");
        let model = format!("launch/{endpoint_type}");
        api.add_server(endpoint_type, &model).await;
        let path = format!("/v4/serving/a/{endpoint_type}/execute");
        let accepted = api.post(&path, &[("prefer", "respond-async")], "{}").await;
        assert_eq!(route_of(accepted.job_id()).await, route);
        let body = json!({ "model": model, "args": {} }).to_string();
        let accepted = api.post("/v5/inference", &[("prefer", "respond-async")], &body).await;
        assert_eq!(route_of(accepted.job_id()).await, route);
    }
}

#[tokio::test]
async fn null_stands_for_a_stream_that_was_not_asked_for() {
    let api = start().await;
    let reply = api.post(PATH, &[("prefer", "respond-async")], r#"{"stream":null,"a":null}"#).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    let claim = api.claim().await;
    assert_eq!((claim.job.stream, claim.args.as_str()), (false, r#"{"a":null}"#));
}
