//! Changes and deletions of registered models over HTTP.

use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::tests::{add, create, hosted, launch};
use crate::testing::{Reply, TestApi};

async fn patch(api: &TestApi, model: &Value, body: &Value) -> Reply {
    let path = format!("/v5/models/{}", model["id"].as_str().unwrap());
    api.send(api.request(Method::PATCH, &path, &[], &body.to_string())).await
}

async fn delete(api: &TestApi, id: &str) -> Reply {
    api.send(api.request(Method::DELETE, &format!("/v5/models/{id}"), &[], "")).await
}

fn llm_engine() -> Value {
    json!({ "name": "llm", "model_vendor": "llmengine",
        "vendor_configuration": { "model": "llama", "seed": 1, "labels": { "team": "a" } } })
}

#[tokio::test]
async fn metadata_are_replaced_and_the_rest_stays() {
    let api = TestApi::start().await;
    let model = create(&api, &launch("m")).await.ok();
    let metadata = json!({ "team": "b", "default_callback_url": "https://receiver.example/" });
    let changed = patch(&api, &model, &json!({ "model_metadata": metadata })).await.ok();
    let mut expected = model.clone();
    expected["model_metadata"] = metadata;
    assert_eq!(changed, expected);
    assert_eq!(
        api.get(&format!("/v5/models/{}", model["id"].as_str().unwrap())).await.ok(),
        changed
    );
    let id = model["id"].as_str().unwrap().parse().unwrap();
    let stored = api.store.find_any_model(id).await.unwrap().unwrap();
    assert_eq!(stored.default_callback_url.as_deref(), Some("https://receiver.example/"));
    for nothing in [json!({}), json!({ "model_metadata": null, "vendor_configuration": null })] {
        assert_eq!(patch(&api, &model, &nothing).await.ok(), changed, "{nothing}");
    }
    let cleared = patch(&api, &model, &json!({ "model_metadata": {} })).await.ok();
    assert_eq!(cleared["model_metadata"], json!({}));
}

#[tokio::test]
async fn a_part_of_a_launch_configuration_takes_its_place() {
    let api = TestApi::start().await;
    let mut body = launch("m");
    body["vendor_configuration"]["model_infra"] =
        json!({ "gpus": 1, "gpu_type": "nvidia-tesla-t4", "labels": { "a": "1" } });
    let model = create(&api, &body).await.ok();
    let part = json!({ "vendor_configuration": { "model_infra":
        { "max_workers": 3, "labels": { "b": "2" }, "gpu_type": null, "gpus": 0 } },
        "model_metadata": { "v": 2 } });
    let changed = patch(&api, &model, &part).await.ok();
    assert_eq!(changed["status"], "ready", "nothing is deployed that could become ready later");
    let infra = &changed["vendor_configuration"]["model_infra"];
    assert_eq!(infra["max_workers"], 3);
    assert_eq!(infra["labels"], json!({ "b": "2" }), "replaced as a whole");
    assert_eq!((infra.get("gpu_type"), &infra["gpus"]), (None, &json!(0)));
    assert_eq!(infra["memory"], "8Gi");
    let image = &changed["vendor_configuration"]["model_image"];
    assert_eq!(image, &model["vendor_configuration"]["model_image"]);
    assert_eq!(changed["model_metadata"], json!({ "v": 2 }));
    let command = json!({ "vendor_configuration": { "model_image": { "command": ["x"] } } });
    let changed = patch(&api, &model, &command).await.ok();
    assert_eq!(changed["vendor_configuration"]["model_image"]["command"], json!(["x"]));
    assert_eq!(changed["vendor_configuration"]["model_infra"]["max_workers"], 3);
}

#[tokio::test]
async fn unknown_members_of_an_llm_engine_configuration_are_kept() {
    let api = TestApi::start().await;
    let model = create(&api, &llm_engine()).await.ok();
    let part = json!({ "vendor_configuration": { "per_worker": 5, "rope": 1.5 } });
    let configuration = &patch(&api, &model, &part).await.ok()["vendor_configuration"];
    assert_eq!(configuration["per_worker"], 5);
    assert_eq!((&configuration["seed"], &configuration["rope"]), (&json!(1), &json!(1.5)));
    let part = json!({ "vendor_configuration": { "seed": null } });
    let configuration = &patch(&api, &model, &part).await.ok()["vendor_configuration"];
    assert!(configuration.get("seed").is_none());
}

#[tokio::test]
async fn what_is_wrong_with_a_change_is_named_and_nothing_is_changed() {
    let api = TestApi::start().await;
    let launched = create(&api, &launch("m")).await.ok();
    let engine = create(&api, &llm_engine()).await.ok();
    let plain = create(&api, &hosted("gpt")).await.ok();
    let at = "body.vendor_configuration";
    let infra = |value: Value| json!({ "vendor_configuration": { "model_infra": value } });
    for (model, body, expected) in [
        (
            &launched,
            infra(json!({ "min_workers": 2 })),
            vec![format!("value_error at {at}.model_infra.max_workers")],
        ),
        (
            &launched,
            infra(json!({ "per_worker": "x", "cpus": 0 })),
            vec![format!("int_parsing at {at}.model_infra.per_worker")],
        ),
        (&launched, infra(json!(7)), vec![format!("model_attributes_type at {at}.model_infra")]),
        (
            &launched,
            json!({ "vendor_configuration": { "model_image": { "tag": null } } }),
            vec![format!("missing at {at}.model_image.tag")],
        ),
        (
            &launched,
            json!({ "vendor_configuration": { "per_worker": 3 } }),
            vec![format!("value_error at {at}")],
        ),
        (
            &launched,
            json!({ "vendor_configuration": 1 }),
            vec![format!("model_attributes_type at {at}")],
        ),
        (&engine, infra(json!({})), vec![format!("value_error at {at}")]),
        (
            &engine,
            json!({ "vendor_configuration": { "model": null }, "model_metadata": [] }),
            vec![format!("missing at {at}.model"), "dict_type at body.model_metadata".into()],
        ),
        (&plain, json!({ "vendor_configuration": {} }), vec![format!("extra_forbidden at {at}")]),
        (&plain, json!({ "model_metadata": 1 }), vec!["dict_type at body.model_metadata".into()]),
        (
            &plain,
            json!({ "model_metadata": { "timeout_seconds": 0, "num_retries": 11 } }),
            vec![
                "greater_than_equal at body.model_metadata.timeout_seconds".into(),
                "less_than_equal at body.model_metadata.num_retries".into(),
            ],
        ),
        (
            &plain,
            json!({ "model_metadata": { "post_inference_hooks": ["callback", "mail", 1] } }),
            vec![
                "literal_error at body.model_metadata.post_inference_hooks.1".into(),
                "literal_error at body.model_metadata.post_inference_hooks.2".into(),
            ],
        ),
        (
            &plain,
            json!({ "name": "", "on_conflict": "update" }),
            vec![
                "string_too_short at body.name".into(),
                "literal_error at body.on_conflict".into(),
            ],
        ),
        (
            &plain,
            json!({ "name": "x", "model_metadata": {} }),
            vec!["extra_forbidden at body.model_metadata".into()],
        ),
        (&plain, json!({ "name": "a\u{0}" }), vec!["value_error at body.name".into()]),
    ] {
        assert_eq!(patch(&api, model, &body).await.places(), expected, "{body}");
    }
    for model in [&launched, &engine, &plain] {
        let path = format!("/v5/models/{}", model["id"].as_str().unwrap());
        assert_eq!(&api.get(&path).await.ok(), model);
        let reply = api.send(api.request(Method::PATCH, &path, &[], "[]")).await;
        assert_eq!(reply.places(), ["model_attributes_type at body"]);
        let reply = api.send(api.request(Method::PATCH, &path, &[], "")).await;
        assert_eq!(reply.places(), ["missing at body"]);
    }
}

#[tokio::test]
async fn a_name_is_changed_or_swapped() {
    let api = TestApi::start().await;
    let a = create(&api, &hosted("a")).await.ok();
    let b = create(&api, &hosted("b")).await.ok();
    let taken = patch(&api, &a, &json!({ "name": "b" })).await;
    assert_eq!(taken.status, 409);
    assert_eq!(taken.header("x-should-retry"), "false");
    assert!(taken.text.contains(b["id"].as_str().unwrap()), "{taken:?}");
    let swapped = patch(&api, &a, &json!({ "name": "b", "on_conflict": "swap" })).await.ok();
    assert_eq!(swapped["name"], "b");
    assert_eq!(api.get("/v5/models/openai%2Fb").await.ok()["id"], a["id"]);
    assert_eq!(api.get("/v5/models/openai%2Fa").await.ok()["id"], b["id"]);
    assert_eq!(patch(&api, &a, &json!({ "name": "c" })).await.ok()["name"], "c");
    assert_eq!(api.get("/v5/models/openai%2Fb").await.status, 404);
}

#[tokio::test]
async fn a_deleted_model_is_gone() {
    let api = TestApi::start().await;
    let model = create(&api, &hosted("m")).await.ok();
    let id = model["id"].as_str().unwrap();
    let deleted = delete(&api, id).await.ok();
    assert_eq!(deleted, json!({ "id": id, "deleted": true, "object": "model" }));
    assert_eq!(delete(&api, id).await.status, 404);
    assert_eq!(api.get(&format!("/v5/models/{id}")).await.status, 404);
    assert_eq!(patch(&api, &model, &json!({})).await.status, 404);
    create(&api, &hosted("m")).await.ok();
    assert_eq!(delete(&api, "openai%2Fm").await.status, 200, "by its name, too");
}

#[tokio::test]
async fn a_model_that_a_server_runs_is_kept() {
    let api = TestApi::start().await;
    let model = create(&api, &hosted("m")).await.ok();
    let id = model["id"].as_str().unwrap();
    // A server keeps the id in its normal form, so that it is known to run the model.
    let shouted = id.to_uppercase();
    let body = json!({ "model_deployment_id": shouted, "name": "n", "alias": "al" });
    let server = api.post("/v4/serving", &[], &body.to_string()).await.ok();
    assert_eq!(server["model_deployment_id"], id);
    let kept = delete(&api, id).await;
    assert_eq!((kept.status.as_u16(), kept.header("x-should-retry")), (409, "false"));
    assert!(kept.text.contains(server["model_server_id"].as_str().unwrap()), "{kept:?}");
    assert!(kept.text.contains("'al'"), "{kept:?}");
}

#[tokio::test]
async fn a_deploying_model_is_neither_changed_nor_deleted() {
    let api = TestApi::start().await;
    let at = "2026-01-02T03:04:05Z".parse().unwrap();
    let model = add(&api, "m", at, |model| {
        model.status = inferq_common::model::ModelStatus::Deploying;
    })
    .await;
    let id = model.id.to_string();
    let shown = json!({ "id": id });
    let mut again = hosted("m");
    again["on_conflict"] = "update".into();
    for reply in [
        patch(&api, &shown, &json!({ "model_metadata": {} })).await,
        patch(&api, &shown, &json!({ "name": "x" })).await,
        delete(&api, &id).await,
        create(&api, &again).await,
    ] {
        assert_eq!((reply.status.as_u16(), reply.header("x-should-retry")), (409, "false"));
        assert!(reply.text.contains("is being deployed"), "{reply:?}");
    }
}

#[tokio::test]
async fn another_account_changes_nothing() {
    let api = TestApi::start().await;
    let mut body = launch("m");
    body["vendor_configuration"]["model_infra"] = json!({ "public_inference": true });
    let model = create(&api, &body).await.ok();
    let path = format!("/v5/models/{}", model["id"].as_str().unwrap());
    let other = api.add_key("other", &[]).await;
    let header = [("x-api-key", other.expose_secret())];
    for (method, body) in
        [(Method::PATCH, r#"{"name":"x"}"#), (Method::DELETE, ""), (Method::GET, "")]
    {
        let reply = api.send(api.request(method.clone(), &path, &header, body)).await;
        assert_eq!(reply.status, 404, "{method}");
    }
}

/// The address that callbacks go to where the request names none.
async fn default_callback(api: &TestApi, body: &Value) -> Option<String> {
    let mut body = body.clone();
    body["on_conflict"] = "update".into();
    let model = create(api, &body).await.ok();
    let id = model["id"].as_str().unwrap().parse().unwrap();
    api.store.find_any_model(id).await.unwrap().unwrap().default_callback_url
}

#[tokio::test]
async fn hooks_decide_whether_the_default_callback_is_used() {
    let api = TestApi::start().await;
    let url = "https://receiver.example/hook";
    for (hooks, used) in [
        (None, true),
        (Some(json!(null)), true),
        (Some(json!(["callback"])), true),
        (Some(json!(["logging", "callback", "billing"])), true),
        (Some(json!(["logging"])), false),
        (Some(json!([])), false),
    ] {
        let expected = used.then(|| url.to_owned());
        let mut body = hosted("m");
        body["model_metadata"] = json!({ "default_callback_url": url });
        let mut engine = llm_engine();
        engine["vendor_configuration"]["default_callback_url"] = url.into();
        if let Some(hooks) = &hooks {
            body["model_metadata"]["post_inference_hooks"] = hooks.clone();
            engine["vendor_configuration"]["post_inference_hooks"] = hooks.clone();
        }
        assert_eq!(default_callback(&api, &body).await, expected, "{hooks:?}");
        assert_eq!(default_callback(&api, &engine).await, expected, "{hooks:?}");
    }
    let mut body = llm_engine();
    body["vendor_configuration"]["post_inference_hooks"] = json!(["mail"]);
    let reply = create(&api, &body).await;
    let place = "literal_error at body.vendor_configuration.post_inference_hooks.0";
    assert_eq!(reply.places(), [place]);
    assert!(reply.text.contains("'billing', 'callback' or 'logging'"), "{reply:?}");
}

#[tokio::test]
async fn metadata_and_configurations_too_large_or_too_deep_are_refused() {
    let api = TestApi::start().await;
    let large = |n_bytes: usize| Value::from("x".repeat(n_bytes));
    let deep = (0..130).fold(json!(1), |inner, _| json!([inner]));
    let metadata = "value_error at body.model_metadata";
    let configuration = "value_error at body.vendor_configuration";
    for (value, reason) in
        [(large(16 * 1024), "model_metadata has more than 16384 bytes"), (deep.clone(), "128 deep")]
    {
        let mut body = hosted("gpt");
        body["model_metadata"] = json!({ "a": value });
        let answer = create(&api, &body).await;
        assert_eq!(answer.places(), [metadata]);
        assert!(answer.text.contains(reason), "{}", answer.text);
    }
    for (value, reason) in [
        (large(256 * 1024), "vendor_configuration has more than 262144 bytes"),
        (deep.clone(), "128 deep"),
    ] {
        let mut body = llm_engine();
        body["vendor_configuration"]["more"] = value;
        let answer = create(&api, &body).await;
        assert_eq!(answer.places(), [configuration]);
        assert!(answer.text.contains(reason), "{}", answer.text);
    }
    let mut body = llm_engine();
    body["vendor_configuration"]["more"] = large(200 * 1024);
    body["model_metadata"] = json!({ "a": large(16 * 1000) });
    let model = create(&api, &body).await.ok();
    for (body, expected) in [
        (json!({ "vendor_configuration": { "rest": large(60 * 1024) } }), configuration),
        (json!({ "vendor_configuration": { "more": deep } }), configuration),
        (json!({ "model_metadata": { "a": large(16 * 1024) } }), metadata),
        (json!({ "model_metadata": { "a": deep } }), metadata),
    ] {
        assert_eq!(patch(&api, &model, &body).await.places(), [expected]);
    }
    let kept = api.get(&format!("/v5/models/{}", model["id"].as_str().unwrap())).await.ok();
    assert_eq!(kept, model);
}

/// Schemas that take a thread of their own to compile are checked like any.
#[tokio::test]
async fn schemas_of_large_definitions_are_checked_on_creation_and_change() {
    let api = TestApi::start().await;
    let at = "value_error at body.vendor_configuration.model_image.request_schema";
    let mut definitions = serde_json::Map::new();
    for level in 0..1500 {
        let next = json!({ "$ref": format!("#/$defs/{}", level + 1) });
        definitions.insert(level.to_string(), next);
    }
    definitions.insert("1500".to_owned(), json!({}));
    let chain = json!({ "$defs": definitions, "$ref": "#/$defs/0" });
    let mut body = launch("m");
    body["vendor_configuration"]["model_image"]["request_schema"] = chain.clone();
    assert_eq!(create(&api, &body).await.places(), [at]);
    let model = create(&api, &launch("m")).await.ok();
    let part = json!({ "vendor_configuration": { "model_image": { "request_schema": chain } } });
    let answer = patch(&api, &model, &part).await;
    assert_eq!(answer.places(), [at]);
    assert!(answer.text.contains("nested more than 128 deep"), "{}", answer.text);
}
