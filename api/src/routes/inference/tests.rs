use std::sync::Arc;

use inferq_common::{
    error::ErrorClass,
    id::ModelId,
    model::{IdentityType, Model, ModelStatus, ModelType},
    vendor::Vendor,
};
use serde_json::{Value, json};

use crate::testing::{Reply, TestApi, failed, succeeded};

const PATH: &str = "/v5/inference";
const ECHO: &str = r#"{"model":"model_zoo/echo","args":{"a":1}}"#;

async fn infer(api: &TestApi, body: &str) -> Reply {
    api.post(PATH, &[], body).await
}

#[tokio::test]
async fn a_synchronous_call_is_answered_with_the_untouched_response() {
    let api = TestApi::start().await;
    let response = r#"{ "b" : 1.50, "a":123456789012345678901234567890 }"#;
    let (reply, claim) = tokio::join!(
        infer(&api, r#"{"args": { "x" : 1e2 }, "model":"model_zoo/echo", "extra":1}"#),
        api.run_next(succeeded(response)),
    );
    assert_eq!(reply.status, 200);
    assert_eq!(reply.text, format!(r#"{{"object":"generic_inference","response":{response}}}"#));
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.job_id(), claim.job.id);
    assert!(!reply.headers.contains_key("preference-applied"));
    assert_eq!(claim.args.as_str(), r#"{ "x" : 1e2 }"#);
    assert!(claim.job.reply_to.is_some());
    assert!(api.state.waiters.is_empty());
}

#[tokio::test]
async fn every_class_of_failure_has_its_status_and_is_not_to_be_retried() {
    let api = TestApi::start().await;
    for (class, status) in [
        (ErrorClass::InvalidRequest, 400),
        (ErrorClass::ContextLength, 400),
        (ErrorClass::Blocked, 400),
        (ErrorClass::NotFound, 404),
        (ErrorClass::RateLimited, 429),
        (ErrorClass::Internal, 500),
        (ErrorClass::Auth, 502),
        (ErrorClass::QuotaExhausted, 502),
        (ErrorClass::Transient, 502),
        (ErrorClass::Lost, 502),
        (ErrorClass::Protocol, 502),
        (ErrorClass::ResponseTooLarge, 502),
        (ErrorClass::Overloaded, 503),
        (ErrorClass::Timeout, 504),
        (ErrorClass::Expired, 504),
    ] {
        let (reply, _) = tokio::join!(infer(&api, ECHO), api.run_next(failed(class, "no luck")));
        assert_eq!(reply.status, status, "{class}");
        assert_eq!(reply.header("x-should-retry"), "false");
        let id = reply.job_id();
        assert_eq!(
            reply.json(),
            json!({
                "detail": "no luck",
                "error": { "class": class, "message": "no luck" },
                "job_id": id,
            })
        );
    }
}

#[tokio::test]
async fn args_that_fit_no_endpoint_or_two_are_refused_before_there_is_a_job() {
    let api = TestApi::start().await;
    let block = r#"[{"role":"user","content":[{"text":"a"}]}]"#;
    let converse_and_responses = format!(r#"{{"messages":{block},"input":"a"}}"#);
    for (model, args) in [
        ("openai/gpt-5", r#"{"messages":[],"prompt":"a"}"#),
        ("openai/gpt-5", r#"{"messages":[],"input":"a"}"#),
        ("azure/mine", r#"{"prompt":"a","input":"a"}"#),
        ("xai/grok-4", r#"{"messages":[],"input":"a"}"#),
        ("fireworks_ai/m", r#"{"messages":[],"query":"a","documents":["b"]}"#),
        ("model_zoo/llama", r#"{"messages":[],"prompt":"a"}"#),
        ("llmengine/m", r#"{"prompt":"a","max_new_tokens":1,"max_tokens":1}"#),
        ("llmengine/m", r#"{"prompt":"a","messages":[]}"#),
        ("cohere/command-a", r#"{"messages":[],"texts":["a"]}"#),
        ("gemini/gemini-2.5-flash", r#"{"contents":[],"messages":[]}"#),
        ("vertex_ai/gemini-2.5-flash", r#"{"contents":[],"instances":[]}"#),
        ("bedrock/amazon.nova-lite-v1:0", r#"{"messages":[{"content":"a"}]}"#),
        ("bedrock/amazon.nova-lite-v1:0", &converse_and_responses),
        ("openai/gpt-5", r#"{"text":"a"}"#),
        ("anthropic/claude-sonnet-4-5", r#"{"prompt":"a"}"#),
        ("bedrock/amazon.nova-lite-v1:0", "{}"),
    ] {
        let reply = infer(&api, &format!(r#"{{"model":"{model}","args":{args}}}"#)).await;
        assert_eq!(reply.status, 422, "{model} {args}");
        let detail = &reply.json()["detail"][0];
        assert_eq!(detail["loc"], json!(["body", "args"]), "{model} {args}");
        let said = detail["msg"].as_str().unwrap();
        assert!(said.contains("inference_configuration.route"), "{said}");
    }
    assert_eq!(api.n_jobs().await, 0);
}

#[tokio::test]
async fn an_asynchronous_call_is_answered_with_the_job() {
    let api = TestApi::start().await;
    let body = r#"{
        "model": "model_zoo/echo", "args": {"a": 1}, "metadata": {"b": 1.0}, "priority": "normal",
        "inference_configuration": {"timeout_seconds": "30", "num_retries": 0.0,
                                    "total_timeout_seconds": 120},
        "callback_url": "https://example.com/a b"
    }"#;
    let reply = infer(&api, body).await;
    assert_eq!(reply.status, 202);
    let id = reply.job_id();
    assert_eq!(reply.header("location"), format!("/v5/jobs/{id}"));
    assert_eq!(reply.header("retry-after"), "1");
    insta::assert_json_snapshot!(reply.json(), { ".id" => "[id]", ".created_at" => "[at]" });
    // The broker of these tests is in the process, so that the event costs nothing.
    assert!(api.claim().await.job.reply_to.is_some());
}

#[tokio::test]
async fn prefer_decides_who_waits() {
    let api = TestApi::start().await;
    let reply = api.post(PATH, &[("prefer", "respond-async")], ECHO).await;
    assert_eq!(reply.status, 202);
    assert_eq!(reply.header("preference-applied"), "respond-async");
    api.run_next(succeeded("1")).await;

    let reply = api.post(PATH, &[("prefer", "wait=1"), ("prefer", "handling=strict")], ECHO).await;
    assert_eq!(reply.status, 202, "nobody ran it within a second");
    assert_eq!(reply.header("preference-applied"), "wait=1");
    api.run_next(succeeded("1")).await;

    let (reply, _) = tokio::join!(
        api.post(PATH, &[("prefer", "respond-async, wait=30")], ECHO),
        api.run_next(succeeded("[2]")),
    );
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("preference-applied"), "respond-async, wait=30");
    assert_eq!(reply.json()["response"], json!([2]));
}

#[tokio::test]
async fn a_caller_is_not_held_for_ever() {
    let api = TestApi::with(|config| config.max_wait_secs = 1).await;
    let reply = infer(&api, ECHO).await;
    assert_eq!(reply.status, 504);
    assert_eq!(reply.header("x-should-retry"), "false");
    let id = reply.job_id();
    assert_eq!(reply.header("location"), format!("/v5/jobs/{id}"));
    assert_eq!(reply.json()["job_id"], json!(id));
    assert_eq!(api.get(&format!("/v5/jobs/{id}")).await.json()["status"], "queued");
}

#[tokio::test]
async fn a_lost_event_is_made_up_for_by_the_store() {
    let api = TestApi::start().await;
    let run = async {
        let claim = api.claim().await;
        let now = api.state.clock.now();
        api.store.finish(&[(claim, succeeded("7"))], now).await.unwrap();
    };
    let (reply, ()) = tokio::join!(infer(&api, ECHO), run);
    assert_eq!(reply.json()["response"], 7);
}

#[tokio::test]
async fn what_fastapi_says_of_bad_bodies() {
    let api = TestApi::start().await;
    let mut replies = Vec::new();
    for body in [
        r#"{"args":{}}"#,
        r#"{"model":1}"#,
        r#"{"model":null}"#,
        r#"{"model":"model_zoo/echo","args":[]}"#,
        r#"{"model":"model_zoo/echo","inference_configuration":{"timeout_seconds":"soon"}}"#,
        r#"{"model":"model_zoo/echo","inference_configuration":{"timeout_seconds":1.5}}"#,
        r#"{"model":"model_zoo/echo","inference_configuration":{"timeout_seconds":0}}"#,
        r#"{"model":"model_zoo/echo","inference_configuration":{"timeout_seconds":-1}}"#,
        r#"{"model":"model_zoo/echo","inference_configuration":{"timeout_seconds":86401}}"#,
        r#"{"model":"model_zoo/echo","inference_configuration":{"num_retries":11}}"#,
        r#"{"model":"model_zoo/echo","inference_configuration":{"route":"converse"}}"#,
        r#"{"model":"model_zoo/echo","inference_configuration":7}"#,
        r#"{"model":"model_zoo/echo","stream":"maybe"}"#,
        r#"{"model":"openai/gpt-5","args":{"input":1,"dimensions":8},"stream":true}"#,
        r#"{"model":"model_zoo/echo","cancel_on_disconnect":"perhaps"}"#,
        r#"{"model":"model_zoo/echo","args":{}"#,
        "[]",
        "",
        r#"{"model":"echo"}"#,
        r#"{"model":"acme/echo"}"#,
        r#"{"model":"cohere/command"}"#,
        r#"{"model":"openai/gpt-5","args":{"x":1}}"#,
        r#"{"model":"model_zoo/echo","callback_url":"nowhere"}"#,
        r#"{"model":"model_zoo/echo","callback_url":"ftp://example.com/"}"#,
        r#"{"model":"model_zoo/echo","callback_url":"http://127.0.0.1/"}"#,
        r#"{"model":"model_zoo/echo","metadata":"x"}"#,
        r#"{"model":"model_zoo/echo","priority":"urgent"}"#,
        r#"{"model":"model_zoo/echo","run_at":"2999-01-01T00:00:00Z"}"#,
        r#"{"model":"model_zoo/echo","expires_at":"2020-01-01T00:00:00Z"}"#,
    ] {
        let reply = infer(&api, body).await;
        assert_eq!(reply.status, 422, "{body}");
        replies.push(json!({ "body": body, "answer": reply.json() }));
    }
    insta::assert_json_snapshot!(replies);
    assert_eq!(api.n_jobs().await, 0, "nothing was stored");
}

#[tokio::test]
async fn all_that_is_wrong_with_a_request_comes_in_one_list_in_the_order_of_its_fields() {
    let api = TestApi::start().await;
    let body = r#"{
        "expires_at": "x", "priority": 1, "stream": [], "args": 1,
        "inference_configuration": {"num_retries": true, "route": "x", "timeout_seconds": []},
        "callback_url": 1
    }"#;
    let reply = api.post(PATH, &[("idempotency-key", "a b")], body).await;
    let problem = |kind: &str, loc: Value| (kind.to_owned(), loc);
    assert_eq!(
        reply.problems(),
        [
            problem("value_error", json!(["header", "idempotency-key"])),
            problem("missing", json!(["body", "model"])),
            problem("dict_type", json!(["body", "args"])),
            problem("int_type", json!(["body", "inference_configuration", "timeout_seconds"])),
            problem("enum", json!(["body", "inference_configuration", "route"])),
            problem("bool_type", json!(["body", "stream"])),
            problem("string_type", json!(["body", "callback_url"])),
            problem("enum", json!(["body", "priority"])),
            problem("datetime_parsing", json!(["body", "expires_at"])),
        ]
    );
}

#[tokio::test]
async fn what_was_given_is_shown_as_it_was_spelt() {
    let api = TestApi::start().await;
    let body = r#"{"model":"model_zoo/echo","inference_configuration":{"num_retries":1e400}}"#;
    let reply = infer(&api, body).await;
    assert_eq!(
        reply.text,
        concat!(
            r#"{"detail":[{"type":"finite_number","#,
            r#""loc":["body","inference_configuration","num_retries"],"#,
            r#""msg":"Input should be a finite number","input":1e400}]}"#
        )
    );
}

#[tokio::test]
async fn null_stands_for_a_member_that_is_left_out() {
    let api = TestApi::start().await;
    let body = r#"{
        "model": "model_zoo/echo", "args": null, "stream": null, "callback_url": null,
        "metadata": null, "priority": null, "run_at": null, "expires_at": null,
        "inference_configuration": {"timeout_seconds": null, "num_retries": null, "route": null}
    }"#;
    api.accepted(body).await;
    let claim = api.claim().await;
    assert_eq!(claim.args.as_str(), "{}");
    assert_eq!(claim.job.limits, inferq_common::job::Limits::default());
    api.accepted(r#"{"model":"model_zoo/echo","inference_configuration":null,"stream":"off"}"#)
        .await;
}

#[tokio::test]
async fn only_json_is_taken_for_json() {
    let api = TestApi::start().await;
    let with = async |content_type: &str| {
        let mut request = api.request(http::Method::POST, PATH, &[], r#"{"model":"nope"}"#);
        request.headers_mut().insert("content-type", content_type.parse().unwrap());
        api.send(request).await.problems()[0].0.clone()
    };
    assert_eq!(with("text/plain").await, "model_attributes_type");
    assert_eq!(with("application/vnd.acme+json; charset=utf-8").await, "value_error");
    let mut request = api.request(http::Method::POST, PATH, &[], r#"{"model":"nope"}"#);
    request.headers_mut().remove("content-type");
    assert_eq!(api.send(request).await.problems()[0].0, "value_error");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_one_near_it_is_taken() {
    let api = TestApi::with(|config| config.max_body_bytes = 600_000).await;
    let body =
        |n: usize| format!(r#"{{"model":"model_zoo/echo","args":{{"x":"{}"}}}}"#, "x".repeat(n));
    api.accepted(&body(500_000)).await;
    assert_eq!(api.claim().await.args.as_str().len(), 500_008);
    let reply = infer(&api, &body(700_000)).await;
    assert_eq!(reply.status, 413);
    assert_eq!(reply.json(), json!({ "detail": "the request body is larger than 600000 bytes" }));
}

#[tokio::test]
async fn a_document_nested_too_deep_is_refused() {
    let api = TestApi::start().await;
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let body = format!(r#"{{"model":"model_zoo/echo","args":{{"x":{deep}}}}}"#);
    assert_eq!(
        infer(&api, &body).await.problems(),
        [("value_error".to_owned(), json!(["body", "args"]))]
    );
}

#[tokio::test]
async fn a_job_for_later_is_not_published() {
    let api = TestApi::start().await;
    let at = api.state.clock.now() + chrono::TimeDelta::hours(1);
    let body = json!({ "model": "model_zoo/echo", "run_at": at }).to_string();
    let later = api.accepted(&body).await;
    let past = json!({ "model": "model_zoo/echo", "run_at": "2020-01-01T00:00:00Z" }).to_string();
    let now = api.accepted(&past).await;
    assert_eq!(api.claim().await.job.id, now);
    let job = api.get(&format!("/v5/jobs/{later}")).await.json();
    assert_eq!(job["run_at"], inferq_common::view::rfc3339(at));
}

#[tokio::test]
async fn a_repeated_submit_makes_one_job() {
    let api = TestApi::start().await;
    let key = ("idempotency-key", "order-1");
    let prefer = ("prefer", "respond-async");
    let first = api.post(PATH, &[key, prefer], ECHO).await;
    let again = api.post(PATH, &[key, prefer], ECHO).await;
    assert_eq!((again.status.as_u16(), again.job_id()), (202, first.job_id()));

    let waiting = api.post(PATH, &[key], ECHO).await;
    assert_eq!(waiting.status, 409, "the first is in flight");
    assert_eq!(waiting.header("x-should-retry"), "false");
    assert_eq!(waiting.job_id(), first.job_id());
    assert_eq!(waiting.header("location"), format!("/v5/jobs/{}", first.job_id()));

    let other = api.post(PATH, &[key, prefer], r#"{"model":"model_zoo/echo"}"#).await;
    assert_eq!(
        other.problems(),
        [("value_error".to_owned(), json!(["header", "idempotency-key"]))]
    );

    api.run_next(succeeded("[1]")).await;
    let done = api.post(PATH, &[key], ECHO).await;
    assert_eq!((done.status.as_u16(), done.job_id()), (200, first.job_id()));
    assert_eq!(done.text, r#"{"object":"generic_inference","response":[1]}"#);
    let done = api.post(PATH, &[key, prefer], ECHO).await;
    assert_eq!(done.json()["response"], json!([1]));
    assert_eq!(api.n_jobs().await, 1);
}

#[tokio::test]
async fn a_caller_who_goes_away_leaves_a_job_that_goes_on() {
    let api = TestApi::start().await;
    let call = infer(&api, ECHO);
    let claim = tokio::select! {
        _ = call => panic!("nobody has answered"),
        claim = api.claim() => claim,
    };
    assert!(api.state.waiters.is_empty(), "the caller is forgotten at once");
    let id = claim.job.id;
    api.finish(claim, succeeded("1")).await;
    assert_eq!(api.get(&format!("/v5/jobs/{id}")).await.json()["status"], "succeeded");
}

#[tokio::test]
async fn a_registered_models_callback_does_not_make_a_call_asynchronous() {
    let api = TestApi::start().await;
    let now = api.state.clock.now();
    let model = Model {
        id: ModelId::new(now),
        account: "acme".parse().unwrap(),
        name: "echo".to_owned(),
        vendor: Vendor::ModelZoo,
        model_type: ModelType::Generic,
        vendor_configuration: None,
        metadata: None,
        status: ModelStatus::Ready,
        status_reason: None,
        default_callback_url: Some("https://example.com/default".to_owned()),
        created_at: now,
        created_by_user_id: "test".to_owned(),
        created_by_identity_type: IdentityType::ServiceAccount,
    };
    api.store.add_model(&model, false).await.unwrap();
    let (reply, claim) = tokio::join!(infer(&api, ECHO), api.run_next(succeeded("1")));
    assert_eq!(reply.status, 200);
    assert_eq!(claim.job.model_id, Some(model.id));
    let deliveries = api.store.list_deliveries(claim.job.id).await.unwrap();
    assert_eq!(deliveries[0].url, "https://example.com/default");
}

#[tokio::test]
async fn bodies_share_a_bounded_amount_of_memory() {
    let api = TestApi::start().await;
    let all = u32::try_from(api.state.bodies.available_permits()).unwrap();
    let taken = Arc::clone(&api.state.bodies).try_acquire_many_owned(all).unwrap();
    let reply = infer(&api, ECHO).await;
    assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (503, "1"));
    drop(taken);
    api.accepted(ECHO).await;
    assert_eq!(api.state.bodies.available_permits(), all as usize, "given back once stored");
}
