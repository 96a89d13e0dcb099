//! Switches, rollbacks and deletions of model servers over HTTP, and what their models say.

use http::Method;
use inferq_common::job::Priority;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::testing::{Reply, TestApi};

async fn send(api: &TestApi, method: Method, path: &str, body: &Value) -> Reply {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    api.send(api.request(method, path, &[], &body)).await
}

async fn serve(api: &TestApi, deployment: &str) -> String {
    let body = json!({ "model_deployment_id": deployment, "name": "n", "alias": "al" });
    let server = api.post("/v4/serving", &[], &body.to_string()).await.ok();
    format!("/v4/serving/{}", server["model_server_id"].as_str().unwrap())
}

async fn switch(api: &TestApi, server: &str, to: &str) -> Reply {
    let body = json!({ "new_model_deployment_id": to });
    send(api, Method::PUT, &format!("{server}/backend"), &body).await
}

/// The job that an execute by the alias makes.
async fn job(api: &TestApi, body: &str, headers: &[(&str, &str)]) -> Value {
    let mut all = vec![("prefer", "respond-async")];
    all.extend_from_slice(headers);
    let reply = api.post("/v4/serving/a/al/execute", &all, body).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    reply.json()
}

#[tokio::test]
async fn a_server_is_switched_and_rolled_back() {
    let api = TestApi::start().await;
    let server = serve(&api, "model_zoo/echo").await;
    let switched = switch(&api, &server, "openai/gpt").await.ok();
    insta::assert_json_snapshot!(switched, { ".model_server_id" => "[id]" });
    let chat = r#"{"messages":[{"role":"user","content":"hi"}]}"#;
    assert_eq!(job(&api, chat, &[]).await["model"], "openai/gpt");
    assert_eq!(
        api.get(&format!("{server}/deployment")).await.ok(),
        json!({ "model_deployment_id": "openai/gpt" })
    );
    // A repeat changes nothing, so that it is no step of a rollback.
    let repeated = switch(&api, &server, "openai/gpt").await.ok();
    assert_eq!(repeated["old_model_deployment_id"], "openai/gpt");
    let path = format!("{server}/rollback");
    let back = send(&api, Method::POST, &path, &Value::Null).await.ok();
    assert_eq!(
        back,
        json!({ "from_deployment": "openai/gpt", "rolled_back_to_deployment": "model_zoo/echo" })
    );
    assert_eq!(job(&api, chat, &[]).await["model"], "model_zoo/echo");
    let nothing = send(&api, Method::POST, &path, &Value::Null).await;
    assert_eq!((nothing.status.as_u16(), nothing.header("x-should-retry")), (409, "false"));
    let history = api.get(&format!("{server}/history")).await.ok();
    insta::assert_json_snapshot!(history, {
        ".items[].since" => "[time]", ".items[].by_user_id" => "[key]",
    });
}

#[tokio::test]
async fn what_is_wrong_with_a_switch_is_named() {
    let api = TestApi::start().await;
    let server = serve(&api, "model_zoo/echo").await;
    let path = format!("{server}/backend");
    for (body, expected) in [
        (json!({}), "missing at body.new_model_deployment_id"),
        (json!({ "new_model_deployment_id": null }), "string_type at body.new_model_deployment_id"),
        (
            json!({ "new_model_deployment_id": "" }),
            "string_too_short at body.new_model_deployment_id",
        ),
        (
            json!({ "new_model_deployment_id": "acme/x" }),
            "value_error at body.new_model_deployment_id",
        ),
        (
            json!({ "new_model_deployment_id": "0197d2f0-0000-7000-8000-000000000000" }),
            "value_error at body.new_model_deployment_id",
        ),
        (json!([]), "model_attributes_type at body"),
        (Value::Null, "missing at body"),
    ] {
        assert_eq!(send(&api, Method::PUT, &path, &body).await.places(), [expected], "{body}");
    }
    assert_eq!(
        api.get(&format!("{server}/history")).await.ok()["items"].as_array().unwrap().len(),
        1
    );
}

#[tokio::test]
async fn a_deleted_server_and_anothers_are_404() {
    let api = TestApi::start().await;
    let server = serve(&api, "model_zoo/echo").await;
    let other = api.add_key("other", &[]).await;
    let header = [("x-api-key", other.expose_secret())];
    let calls = [
        (Method::PUT, "/backend", r#"{"new_model_deployment_id":"openai/gpt"}"#),
        (Method::POST, "/rollback", ""),
        (Method::GET, "/history", ""),
        (Method::DELETE, "", ""),
    ];
    for (method, end, body) in &calls {
        let request = api.request(method.clone(), &format!("{server}{end}"), &header, body);
        assert_eq!(api.send(request).await.status, 404, "{method} {end}");
    }
    let deleted = send(&api, Method::DELETE, &server, &Value::Null).await.ok();
    assert_eq!(deleted["deleted"], true);
    for (method, end, body) in &calls {
        let request = api.request(method.clone(), &format!("{server}{end}"), &[], body);
        assert_eq!(api.send(request).await.status, 404, "{method} {end}");
    }
    assert_eq!(api.post("/v4/serving/a/al/execute", &[], "{}").await.status, 404);
    serve(&api, "model_zoo/echo").await;
}

/// A Launch model with this infrastructure and these members of its image; answers its id.
async fn launch(api: &TestApi, infra: Value, image: &Value, metadata: Value) -> Reply {
    let mut body = json!({
        "name": "m", "model_vendor": "launch", "on_conflict": "update", "model_metadata": metadata,
        "vendor_configuration": {
            "model_image": { "registry": "r", "repository": "p", "tag": "t", "command": [] },
            "model_infra": infra,
        },
    });
    for (name, value) in image.as_object().unwrap() {
        body["vendor_configuration"]["model_image"][name] = value.clone();
    }
    api.post("/v5/models", &[], &body.to_string()).await
}

#[tokio::test]
async fn a_model_says_what_its_requests_do_not() {
    let api = TestApi::start().await;
    let metadata = json!({ "timeout_seconds": "7", "num_retries": 0 });
    let model = launch(&api, json!({ "high_priority": true }), &json!({}), metadata).await.ok();
    serve(&api, model["id"].as_str().unwrap()).await;
    let made = job(&api, "{}", &[]).await;
    let limits = |job: &Value| (job["timeout_seconds"].clone(), job["num_retries"].clone());
    assert_eq!(made["priority"], Priority::High.as_str());
    assert_eq!(limits(&made), (json!(7), json!(0)), "{made}");
    let headers = [("x-priority", "low"), ("x-timeout-seconds", "9"), ("x-num-retries", "1")];
    let made = job(&api, "{}", &headers).await;
    assert_eq!(made["priority"], "low");
    assert_eq!(limits(&made), (json!(9), json!(1)));
    // By its name as well.
    let prefer = [("prefer", "respond-async")];
    let made = api.post("/v5/inference", &prefer, r#"{"model":"launch/m"}"#).await.json();
    assert_eq!((limits(&made).0, &made["priority"]), (json!(7), &json!("high")));
    let body = r#"{"model":"launch/m","priority":"normal",
        "inference_configuration":{"num_retries":2}}"#;
    let made = api.post("/v5/inference", &prefer, body).await.json();
    assert_eq!((limits(&made), &made["priority"]), ((json!(7), json!(2)), &json!("normal")));
}

#[tokio::test]
async fn arguments_must_fit_the_request_schema() {
    let api = TestApi::start().await;
    let schema = json!({
        "type": "object",
        "required": ["prompt"],
        "properties": { "prompt": { "type": "string" }, "n": { "items": { "maximum": 3 } } },
    });
    let image = json!({ "request_schema": schema });
    let model = launch(&api, json!({}), &image, json!({})).await.ok();
    serve(&api, model["id"].as_str().unwrap()).await;
    let reply = api.post("/v4/serving/a/al/execute", &[], r#"{"n":[1,9]}"#).await;
    let mut places = reply.places();
    places.sort();
    assert_eq!(places, ["missing at body.prompt", "value_error at body.n.1"]);
    let body = r#"{"model":"launch/m","args":{"prompt":1}}"#;
    let reply = api.post("/v5/inference", &[], body).await;
    assert_eq!(reply.places(), ["string_type at body.args.prompt"]);
    job(&api, r#"{"prompt":"x","n":[1]}"#, &[]).await;
    assert_eq!(api.n_jobs().await, 1);
    for (member, schema) in [
        ("request_schema", json!({ "type": "text" })),
        ("response_schema", json!({ "$ref": "https://schemas.example/a" })),
    ] {
        let reply = launch(&api, json!({}), &json!({ member: schema }), json!({})).await;
        let place = format!("value_error at body.vendor_configuration.model_image.{member}");
        assert_eq!(reply.places(), [place]);
    }
}

#[tokio::test]
async fn a_public_model_can_be_run_by_others_through_a_server_of_theirs() {
    let api = TestApi::start().await;
    let metadata = json!({ "default_callback_url": "https://owner.example/" });
    let open = |open: bool| json!({ "public_inference": open });
    let model = launch(&api, open(true), &json!({}), metadata.clone()).await.ok();
    let id = model["id"].as_str().unwrap();
    let other = api.add_key("other", &[]).await;
    let header = [("x-api-key", other.expose_secret()), ("prefer", "respond-async")];
    let body = json!({ "model_deployment_id": id, "name": "n", "alias": "theirs" }).to_string();
    api.post("/v4/serving", &header, &body).await.ok();
    let execute = "/v4/serving/a/theirs/execute";
    let reply = api.post(execute, &header, "{}").await;
    assert_eq!(reply.status, 202, "{reply:?}");
    assert_eq!(reply.json()["model_id"], id);
    assert!(!reply.text.contains("owner.example"), "the owner is not told of it: {reply:?}");
    assert!(reply.json()["callback_url"].is_null());
    // It is closed again.
    launch(&api, open(false), &json!({}), metadata).await.ok();
    assert_eq!(api.post(execute, &header, "{}").await.status, 404);
    let reply = api.post("/v4/serving", &header, &body).await;
    assert_eq!(reply.places(), ["value_error at body.model_deployment_id"]);
}

#[tokio::test]
async fn others_are_not_told_of_the_credential_of_a_public_model() {
    let api = TestApi::start().await;
    let credential = json!({ "vendor": "launch", "api_key": "launch-key-1" });
    send(&api, Method::PUT, "/v5/credentials/secretive", &credential).await;
    let (open, metadata) =
        (json!({ "public_inference": true }), json!({ "credential": "secretive" }));
    let model = launch(&api, open, &json!({}), metadata).await.ok();
    let other = api.add_key("other", &[]).await;
    let header = [("x-api-key", other.expose_secret()), ("prefer", "respond-async")];
    let body = json!({ "model_deployment_id": model["id"], "name": "n", "alias": "al" });
    api.post("/v4/serving", &header, &body.to_string()).await.ok();
    let execute = "/v4/serving/a/al/execute";
    let job = api.post(execute, &header, "{}").await.job_id();
    let cancel = format!("/v5/jobs/{job}/cancel");
    api.post(&cancel, &header, "").await.ok();
    send(&api, Method::DELETE, "/v5/credentials/secretive", &Value::Null).await.ok();
    let task = format!("/v1/async-tasks?model_endpoint_id={}", model["id"].as_str().unwrap());
    for path in [execute, &task, &format!("/v5/jobs/{job}/retry")] {
        let reply = api.post(path, &header, "{}").await;
        assert_eq!(reply.status, 409, "{path}: {reply:?}");
        assert!(reply.text.contains("its owner must mend it"), "{path}: {reply:?}");
        assert!(!reply.text.contains("secretive"), "{path}: {reply:?}");
    }
}
