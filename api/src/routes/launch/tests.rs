use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{Method, Request};
use inferq_common::error::ErrorClass;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::testing::{Reply, TestApi, failed, succeeded};

const ECHO: &str = "model_zoo/echo";
const ASYNC: &str = "/v1/async-tasks?model_endpoint_id=model_zoo%2Fecho";
const SYNC: &str = "/v1/sync-tasks?model_endpoint_id=model_zoo%2Fecho";

async fn with_auth(api: &TestApi, scheme: &str, credentials: &str) -> Reply {
    let request = Request::builder()
        .method(Method::GET)
        .uri("/v1/model-endpoints")
        .header("authorization", format!("{scheme} {credentials}"));
    api.send(request.body(axum::body::Body::empty()).unwrap()).await
}

async fn task(api: &TestApi, id: &str) -> Value {
    api.get(&format!("/v1/async-tasks/{id}")).await.ok()
}

fn launch_model(name: &str, endpoint_type: &str) -> String {
    json!({
        "name": name, "model_vendor": "launch",
        "vendor_configuration": {
            "model_image": {
                "registry": "registry.example", "repository": "acme/model", "tag": "1",
                "command": ["serve"],
            },
            "model_infra": { "endpoint_type": endpoint_type },
        },
    })
    .to_string()
}

#[tokio::test]
async fn the_key_is_the_user_name_of_basic_authentication() {
    let api = TestApi::start().await;
    let key = api.key.expose_secret();
    for (credentials, status) in [
        (BASE64.encode(format!("{key}:")), 200),
        (BASE64.encode(format!("{key}:a password")), 200),
        (BASE64.encode(":"), 401),
        (BASE64.encode(format!(":{key}")), 401),
        (BASE64.encode(key), 401),
        (BASE64.encode([0xff, b':']), 401),
        ("no base64".to_owned(), 401),
        ("A".repeat(4096), 401),
    ] {
        for scheme in ["Basic", "basic"] {
            assert_eq!(with_auth(&api, scheme, &credentials).await.status, status, "{credentials}");
        }
    }
    assert_eq!(with_auth(&api, "Bearer", key).await.status, 200);
    assert_eq!(with_auth(&api, "Digest", key).await.status, 401);
}

#[tokio::test]
async fn a_task_is_a_job_and_is_told_in_the_words_of_launch() {
    let api = TestApi::start().await;
    let body = r#"{"args":{"x": 2.50},"return_pickled":false}"#;
    let made = api.post(ASYNC, &[], body).await;
    let id = made.job_id().to_string();
    assert_eq!(made.ok(), json!({ "task_id": id }));
    let nothing = |status: &str| {
        json!({
            "task_id": id, "status": status, "result": null, "traceback": null, "status_code": null,
        })
    };
    assert_eq!(task(&api, &id).await, nothing("PENDING"));
    let claim = api.claim().await;
    assert_eq!(claim.args.as_str(), r#"{"x": 2.50}"#);
    assert_eq!(task(&api, &id).await, nothing("STARTED"));
    api.finish(claim, succeeded(r#"{"y" : 12345678901234567890}"#)).await;
    let expected = json!({
        "task_id": id, "status": "SUCCESS", "status_code": 200, "traceback": null,
        "result": { "result": r#"{"y" : 12345678901234567890}"# },
    });
    assert_eq!(task(&api, &id).await, expected);
    let job = api.get(&format!("/v5/jobs/{id}")).await.ok();
    assert_eq!((&job["model"], &job["status"]), (&json!(ECHO), &json!("succeeded")));
}

#[tokio::test]
async fn what_did_not_succeed_is_a_failure_with_its_reason() {
    let api = TestApi::start().await;
    let id = api.post(ASYNC, &[], r#"{"args":{}}"#).await.job_id().to_string();
    api.run_next(failed(ErrorClass::RateLimited, "slow down")).await;
    let expected = json!({
        "task_id": id, "status": "FAILURE", "status_code": 429, "traceback": "slow down",
        "result": null, "error": { "class": "rate_limited", "message": "slow down" },
    });
    assert_eq!(task(&api, &id).await, expected);

    let id = api.post(ASYNC, &[], r#"{"args":{}}"#).await.job_id().to_string();
    assert_eq!(api.post(&format!("/v5/jobs/{id}/cancel"), &[], "").await.status, 200);
    let task = task(&api, &id).await;
    assert_eq!((&task["status"], &task["status_code"]), (&json!("FAILURE"), &json!(409)));
    assert_eq!(task["error"]["class"], "cancelled");
}

#[tokio::test]
async fn a_task_that_is_unknown_malformed_or_anothers_is_not_found() {
    let api = TestApi::start().await;
    let id = api.post(ASYNC, &[], "{}").await.job_id().to_string();
    let other = api.add_key("other", &[]).await;
    let key = ("x-api-key", other.expose_secret());
    let path = format!("/v1/async-tasks/{id}");
    let anothers = api.send(api.request(Method::GET, &path, &[key], "")).await;
    let unknown = api.get("/v1/async-tasks/0199a000-0000-7000-8000-000000000000").await;
    let malformed = api.get("/v1/async-tasks/t1").await;
    for reply in [anothers, unknown, malformed] {
        assert_eq!(reply.status, 404, "{reply:?}");
        assert_eq!(reply.json(), json!({ "detail": "the account has no task with this id" }));
    }
}

#[tokio::test]
async fn a_synchronous_task_is_answered_with_its_end() {
    let api = TestApi::start().await;
    let body = r#"{"args":{},"timeout_seconds":1.5,"num_retries":0}"#;
    let (reply, claim) = tokio::join!(api.post(SYNC, &[], body), api.run_next(succeeded("7")));
    let expected = json!({
        "status": "SUCCESS", "result": { "result": "7" }, "traceback": null, "status_code": 200,
    });
    assert_eq!(reply.ok(), expected);
    assert_eq!(reply.job_id(), claim.job.id);
    assert_eq!(claim.job.limits.timeout.as_secs(), 2, "part of a second counts as a whole one");
    assert_eq!(claim.job.limits.num_retries, 0);

    let run = api.run_next(failed(ErrorClass::InvalidRequest, "no such thing"));
    let (reply, _) = tokio::join!(api.post(SYNC, &[], body), run);
    let task = reply.ok();
    assert_eq!((&task["status"], &task["status_code"]), (&json!("FAILURE"), &json!(400)));
    assert_eq!(task["traceback"], "no such thing");
}

#[tokio::test]
async fn what_is_not_supported_is_refused_and_not_passed_over() {
    let api = TestApi::start().await;
    let body = json!({
        "url": "https://example.com/input", "cloudpickle": "gASVAA==", "args": [],
        "callback_url": "http://10.0.0.1/", "callback_auth": { "kind": "basic" },
        "return_pickled": true, "destination_path": "/other", "timeout_seconds": 0,
        "num_retries": 11,
    });
    let reply = api.post(ASYNC, &[], &body.to_string()).await;
    assert_eq!(
        reply.places(),
        [
            "value_error at body.url",
            "dict_type at body.args",
            "value_error at body.cloudpickle",
            "value_error at body.callback_url",
            "value_error at body.callback_auth",
            "value_error at body.return_pickled",
            "value_error at body.destination_path",
            "greater_than at body.timeout_seconds",
            "less_than_equal at body.num_retries",
        ]
    );
    let body = r#"{"timeout_seconds":86401,"return_pickled":null,"url":null,"callback_auth":null}"#;
    let reply = api.post("/v1/async-tasks", &[], body).await;
    let expected =
        ["missing at query.model_endpoint_id", "less_than_equal at body.timeout_seconds"];
    assert_eq!(reply.places(), expected);
    assert_eq!(api.n_jobs().await, 0);
}

#[tokio::test]
async fn an_endpoint_is_a_model_a_model_server_or_a_hosted_model() {
    let api = TestApi::start().await;
    let model = api.post("/v5/models", &[], &launch_model("m", "sync")).await.ok();
    let server = api.add_server("front", model["id"].as_str().unwrap()).await;
    let server = server.id.to_string();
    for (id, model, alias) in [
        (model["id"].as_str().unwrap(), "launch/m", Value::Null),
        (&server, "launch/m", json!("front")),
        (ECHO, ECHO, Value::Null),
    ] {
        let made = api.post(&format!("/v1/async-tasks?model_endpoint_id={id}"), &[], "{}").await;
        assert_eq!(made.status, 200, "{made:?}");
        let job = api.get(&format!("/v5/jobs/{}", made.job_id())).await.ok();
        assert_eq!((&job["model"], &job["alias"]), (&json!(model), &alias));
    }
    let other = api.add_key("other", &[]).await;
    let key = ("x-api-key", other.expose_secret());
    for (id, headers) in [
        ("unknown", &[][..]),
        ("0199a000-0000-7000-8000-000000000000", &[]),
        ("acme/x", &[]),
        (&server, &[key]),
    ] {
        let path = format!("/v1/async-tasks?model_endpoint_id={id}");
        let reply = api.post(&path, headers, "{}").await;
        assert_eq!(reply.status, 404, "{id}: {reply:?}");
    }
}

#[tokio::test]
async fn endpoints_are_listed_by_name_and_all_together() {
    let api = TestApi::start().await;
    let hosted = r#"{"name":"m","model_vendor":"openai","model_type":"chat_completion"}"#;
    let hosted = api.post("/v5/models", &[], hosted).await.ok();
    let model = api.post("/v5/models", &[], &launch_model("m", "streaming")).await.ok();
    api.add_server("front", ECHO).await;
    api.add_server("m", model["id"].as_str().unwrap()).await;
    let list = async |query: &str| {
        let list = api.get(&format!("/v1/model-endpoints{query}")).await.ok();
        let endpoints = list["model_endpoints"].as_array().unwrap().clone();
        let short = |one: &Value| {
            let words = ["name", "endpoint_type", "destination", "bundle_name", "status"];
            words.map(|word| one[word].as_str().unwrap().to_owned()).join(" ")
        };
        // Models of one millisecond have no order.
        let mut shorts: Vec<_> = endpoints.iter().map(short).collect();
        shorts.sort();
        shorts
    };
    let front = "front async model_zoo.normal model_zoo/echo READY";
    let launch = "m streaming launch.normal launch/m READY";
    let openai = "m async openai.normal openai/m READY";
    assert_eq!(list("?name=m").await, [openai, launch, launch]);
    assert_eq!(list("?name=front").await, [front]);
    assert_eq!(list("?name=nobody").await, [""; 0]);
    assert_eq!(list("?name=%00").await, [""; 0]);
    assert_eq!(list("").await, [front, openai, launch, launch]);
    assert_eq!(
        list("?name=model_zoo/echo").await,
        ["model_zoo/echo async model_zoo.normal model_zoo/echo READY"]
    );
    let one = api.get("/v1/model-endpoints?name=openai/m").await.ok();
    assert_eq!(one["model_endpoints"][0]["id"], hosted["id"]);
}

#[tokio::test]
async fn a_model_server_without_an_alias_is_found_by_the_name_it_is_listed_under() {
    let api = TestApi::start().await;
    let body = json!({ "model_deployment_id": ECHO, "name": "display" });
    let server = api.post("/v4/serving", &[], &body.to_string()).await.ok();
    let list = async |query: &str| {
        let list = api.get(&format!("/v1/model-endpoints{query}")).await.ok();
        list["model_endpoints"].as_array().unwrap().clone()
    };
    let all = list("").await;
    assert_eq!((all.len(), &all[0]["id"]), (1, &server["model_server_id"]));
    let named = list(&format!("?name={}", all[0]["name"].as_str().unwrap())).await;
    assert_eq!(named, all);
}

#[tokio::test]
async fn a_model_server_whose_model_is_gone_is_listed_as_failed() {
    let api = TestApi::start().await;
    let server = api.add_server_of_gone_model("gone").await;
    let list = api.get("/v1/model-endpoints?name=gone").await.ok();
    assert_eq!(list["model_endpoints"][0]["status"], "UPDATE_FAILED");
    let path = format!("/v1/async-tasks?model_endpoint_id={}", server.id);
    assert_eq!(api.post(&path, &[], "{}").await.status, 404);
}

#[tokio::test]
async fn a_repeat_with_the_same_key_is_the_same_task() {
    let api = TestApi::start().await;
    let headers = [("idempotency-key", "once")];
    let first = api.post(ASYNC, &headers, "{}").await;
    let second = api.post(ASYNC, &headers, "{}").await;
    assert_eq!(first.ok(), second.ok());
    let other = "/v1/async-tasks?model_endpoint_id=model_zoo%2Fother";
    assert_eq!(api.post(other, &headers, "{}").await.status, 422, "another endpoint");
}

#[tokio::test]
async fn older_clients_name_endpoints_and_wait_while_a_task_is_pending() {
    let api = TestApi::start().await;
    api.add_server("front", ECHO).await;
    let base = "/v1/hosted_inference";
    let endpoint = api.get(&format!("{base}/endpoints/front")).await.ok();
    assert_eq!((&endpoint["name"], &endpoint["endpoint_type"]), (&json!("front"), &json!("async")));
    assert_eq!(api.get(&format!("{base}/endpoints/nobody")).await.status, 404);
    let all = api.get(&format!("{base}/endpoints")).await.ok();
    assert_eq!(all["endpoints"][0]["name"], "front");

    let made = api.post(&format!("{base}/task_async/front"), &[], r#"{"args":{"x":1}}"#).await;
    let id = made.ok()["task_id"].as_str().unwrap().to_owned();
    let paths =
        [format!("{base}/endpoints/front/task_async/{id}"), format!("{base}/task/result/{id}")];
    let waiting =
        json!({ "state": "PENDING", "result": null, "traceback": null, "status_code": null });
    assert_eq!(api.get(&paths[0]).await.ok(), waiting);
    let claim = api.claim().await;
    assert_eq!(api.get(&paths[0]).await.ok(), waiting, "they know no word for a running task");
    api.finish(claim, succeeded(r#"{"x":1}"#)).await;
    for path in &paths {
        let ended = api.get(path).await.ok();
        assert_eq!((&ended["state"], &ended["result"]), (&json!("SUCCESS"), &json!(r#"{"x":1}"#)));
    }
    let missing = api.post(&format!("{base}/task_async/nobody"), &[], "{}").await;
    assert_eq!(missing.status, 404);

    let sync = format!("{base}/task_sync/front");
    let run = api.run_next(failed(ErrorClass::Overloaded, "no room"));
    let (reply, _) = tokio::join!(api.post(&sync, &[], "{}"), run);
    let expected = json!({
        "state": "FAILURE", "result": null, "traceback": "no room", "status_code": 503,
    });
    assert_eq!(reply.ok(), expected);
}

#[tokio::test]
async fn each_chunk_of_a_stream_is_a_task_and_nothing_marks_the_end() {
    let api = TestApi::start().await;
    let path = "/v1/streaming-tasks?model_endpoint_id=model_zoo%2Fecho";
    let work = async {
        let claim = api.claim().await;
        assert!(claim.job.stream);
        api.tell(&claim, 0, &[r#""a\nb""#, r#"{"n" : 1.50}"#]);
        claim
    };
    let open = async || api.open(api.request(Method::POST, path, &[], r#"{"args":{}}"#)).await;
    let (mut stream, claim) = tokio::join!(open(), work);
    assert_eq!(stream.status, 200);
    assert_eq!(stream.header("content-type"), "text/event-stream; charset=utf-8");
    assert_eq!(
        stream.next().await.unwrap(),
        concat!(
            r#"data: {"status":"SUCCESS","result":{"result":"a\nb"},"traceback":null,"status_code":200}"#,
            "\n\n",
            r#"data: {"status":"SUCCESS","result":{"result":"{\"n\" : 1.50}"},"traceback":null,"status_code":200}"#,
            "\n\n",
        )
    );
    let id = claim.job.id.to_string();
    api.finish_stream(claim, 2, succeeded("[]")).await;
    assert_eq!(stream.rest().await, "");
    assert_eq!(task(&api, &id).await["status"], "SUCCESS");

    let work = async {
        let claim = api.claim().await;
        api.tell(&claim, 0, &["1"]);
        claim
    };
    let (mut stream, claim) = tokio::join!(open(), work);
    stream.next().await.unwrap();
    let id = claim.job.id;
    api.finish_stream(claim, 1, failed(ErrorClass::Transient, "cut")).await;
    let rest = stream.rest().await;
    let last: Value = serde_json::from_str(rest.strip_prefix("data: ").unwrap()).unwrap();
    let expected = json!({
        "task_id": id, "status": "FAILURE", "status_code": 502, "result": null,
        "traceback": "cut", "error": { "class": "transient", "message": "cut" },
    });
    assert_eq!(last, expected);

    let run = api.run_next(failed(ErrorClass::RateLimited, "slow down"));
    let (reply, _) = tokio::join!(api.post(path, &[], "{}"), run);
    assert_eq!((reply.status.as_u16(), reply.header("x-should-retry")), (429, "false"));
}

#[tokio::test]
async fn an_endpoint_that_answers_in_one_piece_is_not_streamed() {
    let api = TestApi::start().await;
    let model = api.post("/v5/models", &[], &launch_model("m", "async")).await.ok();
    let id = model["id"].as_str().unwrap();
    let reply = api.post(&format!("/v1/streaming-tasks?model_endpoint_id={id}"), &[], "{}").await;
    assert_eq!(reply.places(), ["value_error at query.model_endpoint_id"]);
}
