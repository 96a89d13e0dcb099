//! Registered models over HTTP.

use chrono::{DateTime, TimeDelta, Utc};
use http::Method;
use inferq_common::{
    id::ModelId,
    model::{IdentityType, Model, ModelStatus, ModelType},
    vendor::Vendor,
};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::testing::{Reply, TestApi};

pub(super) fn launch(name: &str) -> Value {
    json!({
        "name": name,
        "model_vendor": "launch",
        "vendor_configuration": {
            "model_image": {
                "registry": "registry.example", "repository": "acme/model", "tag": "1",
                "command": ["serve", "--port", "5005"],
            },
            "model_infra": {},
        },
    })
}

pub(super) fn hosted(name: &str) -> Value {
    json!({ "name": name, "model_vendor": "openai", "model_type": "chat_completion" })
}

#[tokio::test]
async fn a_launch_model_comes_back_with_its_defaults() {
    let api = TestApi::start().await;
    let model = create(&api, &launch("m")).await.ok();
    insta::assert_json_snapshot!(model, { ".id" => "[id]", ".created_at" => "[time]", ".created_by_user_id" => "[key]" });
    let id = model["id"].as_str().unwrap();
    assert_eq!(api.get(&format!("/v5/models/{id}")).await.ok(), model);
}

#[tokio::test]
async fn an_llm_engine_model_keeps_further_members_as_they_are_spelt() {
    let api = TestApi::start().await;
    let body = r#"{"name":"m","vendor_configuration":{"model":"llama",
        "seed":123456789012345678901234567890, "rope": {"factor": 2.50},
        "labels":{"team":"a"},"per_worker":"3","high_priority":"yes","gpus":2.0}}"#;
    let answer = api.post("/v5/models", &[], body).await;
    for part in [
        r#""seed":123456789012345678901234567890"#,
        r#""rope":{"factor": 2.50}"#,
        r#""per_worker":3,"#,
        r#""high_priority":true"#,
        r#""gpus":2,"#,
    ] {
        assert!(answer.text.contains(part), "{part} is not in {}", answer.text);
    }
    insta::assert_json_snapshot!(answer.ok(), {
        ".id" => "[id]", ".created_at" => "[time]", ".created_by_user_id" => "[key]",
        ".vendor_configuration.seed" => "[checked above]",
    });
}

#[tokio::test]
async fn a_hosted_model_is_ready_at_once() {
    let api = TestApi::start().await;
    let mut body = hosted("gpt-4o");
    body["model_metadata"] = json!({ "team": "a" });
    let model = create(&api, &body).await.ok();
    insta::assert_json_snapshot!(model, { ".id" => "[id]", ".created_at" => "[time]", ".created_by_user_id" => "[key]" });
    body["model_vendor"] = "cohere".into();
    assert_eq!(create(&api, &body).await.ok()["status"], "ready");
}

#[tokio::test]
async fn all_wrong_members_are_in_one_list_in_the_order_of_the_schema() {
    let api = TestApi::start().await;
    let body = json!({
        "name": "",
        "model_vendor": "launch",
        "model_type": "completion",
        "vendor_configuration": {
            "model_image": { "registry": 1, "tag": "", "command": ["a", 2], "readiness_delay": -1 },
            "model_infra": {
                "endpoint_type": "batch", "cpus": true, "gpus": 1.5, "gpu_type": "abacus",
                "min_workers": "many", "max_workers": 251, "per_worker": 0,
                "high_priority": "perhaps", "labels": { "a": 1 }, "public_inference": 2,
            },
        },
        "model_metadata": [],
        "on_conflict": "ignore",
    });
    insta::assert_json_snapshot!(create(&api, &body).await.places());
}

/// One change of a body that is right, and what it is refused for.
#[tokio::test]
async fn every_member_of_both_configurations_is_checked() {
    let api = TestApi::start().await;
    let text = ["registry", "repository", "tag", "predict_route", "healthcheck_route"];
    let mut cases: Vec<(&str, &str, Value, &str)> = Vec::new();
    for name in text.into_iter().chain(["streaming_predict_route"]) {
        cases.push(("model_image", name, json!(1), "string_type"));
    }
    for name in ["request_schema", "response_schema", "env_vars"] {
        cases.push(("model_image", name, json!("x"), "dict_type"));
    }
    for name in ["command", "streaming_command"] {
        cases.push(("model_image", name, json!("x"), "list_type"));
    }
    for name in ["predict_route", "streaming_predict_route", "healthcheck_route"] {
        cases.push(("model_image", name, json!("x"), "value_error"));
    }
    cases.push(("model_image", "readiness_delay", json!("soon"), "int_parsing"));
    for name in ["memory", "storage"] {
        cases.push(("model_infra", name, json!(8), "string_type"));
        cases.push(("model_infra", name, json!("8 gigs"), "value_error"));
    }
    for name in ["gpus", "min_workers", "max_workers", "per_worker"] {
        cases.push(("model_infra", name, json!(-1), "greater_than_equal"));
        cases.push(("model_infra", name, json!([]), "int_type"));
    }
    for name in ["high_priority", "public_inference"] {
        cases.push(("model_infra", name, json!({}), "bool_type"));
    }
    cases.push(("model_infra", "endpoint_type", json!(1), "literal_error"));
    cases.push(("model_infra", "gpu_type", json!("h100"), "literal_error"));
    cases.push(("model_infra", "cpus", json!("few"), "value_error"));
    cases.push(("model_infra", "cpus", json!(0), "value_error"));
    cases.push(("model_infra", "labels", json!(["a"]), "dict_type"));
    for (part, name, value, expected) in cases {
        let mut body = launch("m");
        body["vendor_configuration"][part][name] = value.clone();
        let problems = create(&api, &body).await.places();
        let expected = format!("{expected} at body.vendor_configuration.{part}.{name}");
        assert_eq!(problems, [expected], "{name}: {value}");
    }
    for (name, value, expected) in [
        ("model", json!(1), "string_type"),
        ("inference_framework_image_tag", json!(1), "string_type"),
        ("nodes_per_worker", json!(0), "greater_than_equal"),
        ("min_workers", json!(251), "less_than_equal"),
        ("max_workers", json!("x"), "int_parsing"),
        ("per_worker", json!(1.5), "int_from_float"),
        ("num_shards", json!(0), "greater_than_equal"),
        ("labels", json!("x"), "dict_type"),
        ("source", json!(1), "string_type"),
        ("inference_framework", json!(1), "string_type"),
        ("endpoint_type", json!(1), "string_type"),
        ("quantize", json!(1), "string_type"),
        ("checkpoint_path", json!(1), "string_type"),
        ("chat_template_override", json!(1), "string_type"),
        ("post_inference_hooks", json!("callback"), "list_type"),
        ("cpus", json!("3.5"), "int_parsing"),
        ("gpus", json!(-1), "greater_than_equal"),
        ("memory", json!("much"), "value_error"),
        ("gpu_type", json!(1), "string_type"),
        ("storage", json!("0Gi"), "value_error"),
        ("high_priority", json!("x"), "bool_parsing"),
        ("default_callback_url", json!(1), "string_type"),
        ("default_callback_url", json!("ftp://receiver.example/"), "value_error"),
        ("default_callback_url", json!("http://127.0.0.1/"), "value_error"),
        ("public_inference", json!("x"), "bool_parsing"),
    ] {
        let mut body = json!({ "name": "m", "model_vendor": "llmengine",
            "vendor_configuration": { "model": "llama" } });
        body["vendor_configuration"][name] = value.clone();
        let problems = create(&api, &body).await.places();
        let expected = format!("{expected} at body.vendor_configuration.{name}");
        assert_eq!(problems, [expected], "{name}: {value}");
    }
    assert_eq!(api.get("/v5/models").await.ok()["total"], 0, "nothing was stored");
}

#[tokio::test]
async fn members_that_must_agree_are_compared() {
    let api = TestApi::start().await;
    for (infra, expected) in [
        (json!({ "gpus": 1 }), "gpu_type"),
        (json!({ "gpu_type": "nvidia-tesla-t4" }), "gpus"),
        (json!({ "min_workers": 2 }), "max_workers"),
    ] {
        let mut body = launch("m");
        body["vendor_configuration"]["model_infra"] = infra;
        let problems = create(&api, &body).await.places();
        let place = format!("value_error at body.vendor_configuration.model_infra.{expected}");
        assert_eq!(problems, [place]);
    }
}

#[tokio::test]
async fn null_counts_as_not_given() {
    let api = TestApi::start().await;
    let mut body = launch("m");
    body["vendor_configuration"]["model_infra"] =
        json!({ "gpu_type": null, "labels": null, "high_priority": null, "min_workers": null });
    body["model_metadata"] = Value::Null;
    body["on_conflict"] = Value::Null;
    let model = create(&api, &body).await.ok();
    let infra = &model["vendor_configuration"]["model_infra"];
    assert_eq!(infra["high_priority"], false);
    assert_eq!(infra["min_workers"], 0);
    assert!(infra.get("gpu_type").is_none() && infra.get("labels").is_none());
    assert!(model.get("model_metadata").is_none());
}

#[tokio::test]
async fn bodies_that_are_none_are_told_as_fastapi_does() {
    let api = TestApi::start().await;
    for (body, expected) in [
        ("", "missing at body"),
        ("[]", "model_attributes_type at body"),
        (r#"{"name":"#, "json_invalid at body.8"),
    ] {
        let answer = api.post("/v5/models", &[], body).await;
        assert_eq!(answer.places(), [expected], "{body}");
    }
    let missing = create(&api, &json!({})).await.places();
    assert_eq!(
        missing,
        ["missing at body.name", "missing at body.model_vendor", "missing at body.model_type"]
    );
    let unknown = json!({ "name": "m", "model_vendor": "acme", "model_type": "generic" });
    let answer = create(&api, &unknown).await;
    assert_eq!(answer.places(), ["enum at body.model_vendor"]);
    assert!(answer.text.contains("'openai', 'cohere'"), "{}", answer.text);
    let mut extra = hosted("m");
    extra["vendor_configuration"] = json!({});
    let answer = create(&api, &extra).await;
    assert_eq!(answer.places(), ["extra_forbidden at body.vendor_configuration"]);
    let answer = create(&api, &hosted("a\u{0}b")).await;
    assert_eq!(answer.places(), ["value_error at body.name"]);
}

#[tokio::test]
async fn a_million_mistakes_make_a_short_answer() {
    let api = TestApi::start().await;
    let mut body = launch("m");
    let labels: serde_json::Map<String, Value> =
        (0..20_000).map(|n| (format!("l{n}"), json!(1))).collect();
    body["vendor_configuration"]["model_infra"]["labels"] = labels.into();
    assert_eq!(create(&api, &body).await.places().len(), 100);
}

#[tokio::test]
async fn deep_documents_are_kept_or_refused_but_never_fatal() {
    let api = TestApi::start().await;
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    for body in [
        format!(
            r#"{{"name":"a","model_vendor":"llmengine","vendor_configuration":{{"model":"m","x":{deep}}}}}"#
        ),
        format!(
            r#"{{"name":"b","model_vendor":"openai","model_type":"generic","model_metadata":{{"x":{deep}}}}}"#
        ),
    ] {
        let answer = api.post("/v5/models", &[], &body).await;
        assert!([200, 422].contains(&answer.status.as_u16()), "{answer:?}");
    }
}

#[tokio::test]
async fn a_taken_name_is_a_conflict_unless_an_update_was_asked_for() {
    let api = TestApi::start().await;
    let first = create(&api, &launch("m")).await.ok();
    let mut body = launch("m");
    body["vendor_configuration"]["model_infra"]["max_workers"] = 3.into();
    body["model_metadata"] = json!({ "v": 2 });
    let answer = create(&api, &body).await;
    assert_eq!(answer.status, 409);
    assert_eq!(answer.header("x-should-retry"), "false");
    assert!(answer.json()["detail"].as_str().unwrap().contains(first["id"].as_str().unwrap()));
    body["on_conflict"] = "update".into();
    let updated = create(&api, &body).await.ok();
    assert_eq!(updated["id"], first["id"]);
    assert_eq!(updated["created_at"], first["created_at"]);
    assert_eq!(updated["vendor_configuration"]["model_infra"]["max_workers"], 3);
    assert_eq!(updated["model_metadata"], json!({ "v": 2 }));
    // The same name of another vendor is another model.
    create(&api, &hosted("m")).await.ok();
    assert_eq!(api.get("/v5/models").await.ok()["total"], 2);
}

#[tokio::test]
async fn a_default_callback_address_is_checked_and_kept() {
    let api = TestApi::start().await;
    let mut body = hosted("m");
    for url in ["http://169.254.169.254/", "http://user:secret@receiver.example/", "receiver"] {
        body["model_metadata"] = json!({ "default_callback_url": url });
        let problems = create(&api, &body).await.places();
        assert_eq!(problems, ["value_error at body.model_metadata.default_callback_url"], "{url}");
    }
    let url = "https://receiver.example/hook";
    body["model_metadata"] = json!({ "default_callback_url": url });
    let model = create(&api, &body).await.ok();
    let id = model["id"].as_str().unwrap().parse().unwrap();
    let stored = api.store.find_model(id, &"acme".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(stored.default_callback_url.as_deref(), Some(url));
    // An update that names none takes it away.
    body["model_metadata"] = json!({});
    body["on_conflict"] = "update".into();
    create(&api, &body).await.ok();
    let stored = api.store.find_model(id, &"acme".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(stored.default_callback_url, None);
}

#[tokio::test]
async fn lists_page_in_both_directions() {
    let api = TestApi::start().await;
    let mut at = "2026-01-02T03:04:05Z".parse().unwrap();
    for name in ["a", "b", "c", "d", "e"] {
        add(&api, name, at, |_| {}).await;
        at += TimeDelta::seconds(1);
    }
    let page = async |query: &str| {
        let page = api.get(&format!("/v5/models?{query}")).await.ok();
        assert_eq!((&page["object"], &page["total"]), (&json!("list"), &json!(5)));
        let items = page["items"].as_array().unwrap().clone();
        let names: String = items.iter().map(|item| item["name"].as_str().unwrap()).collect();
        let id = |item: Option<&Value>| item.map(|item| item["id"].as_str().unwrap().to_owned());
        (names, page["has_more"].as_bool().unwrap(), id(items.first()), id(items.last()))
    };
    let (names, more, _, last) = page("limit=2").await;
    assert_eq!((names.as_str(), more), ("ed", true));
    let (names, more, _, last) = page(&format!("limit=2&starting_after={}", last.unwrap())).await;
    assert_eq!((names.as_str(), more), ("cb", true));
    let (names, more, first, last) =
        page(&format!("limit=2&starting_after={}", last.unwrap())).await;
    assert_eq!((names.as_str(), more), ("a", false));
    let (names, more, ..) = page(&format!("starting_after={}", last.unwrap())).await;
    assert_eq!((names.as_str(), more), ("", false), "an exhausted cursor stays so");
    let (names, more, first, _) = page(&format!("limit=2&ending_before={}", first.unwrap())).await;
    assert_eq!((names.as_str(), more), ("cb", true), "in the list's own order");
    let (names, more, ..) = page(&format!("limit=2&ending_before={}", first.unwrap())).await;
    assert_eq!((names.as_str(), more), ("ed", false));
    for (query, expected) in [
        ("sort_order=asc", "abcde"),
        ("sort_by=created_at", "edcba"),
        ("sort_by=created_at:asc", "abcde"),
        ("sort_by=created_at%3Aasc%2Cid%3Aasc", "abcde"),
        ("sort_by=created_at:asc&sort_order=desc", "edcba"),
    ] {
        assert_eq!(page(query).await.0, expected, "{query}");
    }
    assert_eq!(api.get("/v5/models").await.ok()["limit"], 100);
}

#[tokio::test]
async fn lists_are_filtered_by_name_and_vendor() {
    let api = TestApi::start().await;
    create(&api, &hosted("a")).await.ok();
    create(&api, &launch("a")).await.ok();
    create(&api, &launch("b")).await.ok();
    for (query, expected) in [
        ("name=a", 2),
        ("model_vendor=launch", 2),
        ("name=a&model_vendor=launch", 1),
        ("name=a&model_vendor=xai", 0),
    ] {
        let list = api.get(&format!("/v5/models?{query}")).await.ok();
        assert_eq!(list["total"], expected, "{query}");
        assert_eq!(list["items"].as_array().unwrap().len(), expected, "{query}");
        assert_eq!(list["has_more"], false);
    }
}

#[tokio::test]
async fn wrong_queries_are_named_together() {
    let api = TestApi::start().await;
    let query = "limit=0&model_vendor=acme&starting_after=x&sort_by=size&sort_order=up&name=%00";
    let mut problems = api.get(&format!("/v5/models?{query}")).await.places();
    problems.sort();
    assert_eq!(
        problems,
        [
            "enum at query.model_vendor",
            "enum at query.sort_order",
            "greater_than_equal at query.limit",
            "literal_error at query.sort_by",
            "uuid_parsing at query.starting_after",
            "value_error at query.name",
        ]
    );
    for (query, expected) in [
        ("limit=1001", "less_than_equal at query.limit"),
        ("limit=abc", "int_parsing at query.limit"),
        ("sort_by=created_at:up", "literal_error at query.sort_by"),
    ] {
        let problems = api.get(&format!("/v5/models?{query}")).await.places();
        assert_eq!(problems, [expected], "{query}");
    }
}

#[tokio::test]
async fn a_model_is_found_by_its_name_too_and_by_nothing_else() {
    let api = TestApi::start().await;
    let model = create(&api, &hosted("org/gpt")).await.ok();
    assert_eq!(api.get("/v5/models/openai%2Forg%2Fgpt").await.ok()["id"], model["id"]);
    for id in ["openai%2Fgpt-4o", "gpt", "0197d2f0-0000-7000-8000-000000000000", "%00"] {
        let answer = api.get(&format!("/v5/models/{id}")).await;
        assert_eq!(answer.status, 404, "{id}");
        assert_eq!(answer.json()["detail"], "the account has no model with this id");
    }
}

#[tokio::test]
async fn one_account_never_sees_anothers_models() {
    let api = TestApi::start().await;
    let model = create(&api, &hosted("m")).await.ok();
    let path = format!("/v5/models/{}", model["id"].as_str().unwrap());
    let other = api.add_key("other", &[]).await;
    let header = [("x-api-key", other.expose_secret())];
    let as_other = async |method, path: &str, body: &str| {
        api.send(api.request(method, path, &header, body)).await
    };
    assert_eq!(as_other(Method::GET, &path, "").await.status, 404);
    let list = as_other(Method::GET, "/v5/models", "").await.ok();
    assert_eq!((&list["total"], &list["items"]), (&json!(0), &json!([])));
    let theirs = as_other(Method::POST, "/v5/models", &hosted("m").to_string()).await.ok();
    assert_ne!(theirs["id"], model["id"], "the name is free in each account");
    let nobody = api.send(api.request(Method::GET, &path, &[("x-api-key", "iq_no")], "")).await;
    assert_eq!(nobody.status, 401);
}

pub(super) async fn create(api: &TestApi, body: &Value) -> Reply {
    api.post("/v5/models", &[], &body.to_string()).await
}

/// A model made at `at`, past the api.
pub(super) async fn add(
    api: &TestApi,
    name: &str,
    at: DateTime<Utc>,
    change: impl FnOnce(&mut Model),
) -> Model {
    let mut model = Model {
        id: ModelId::new(at),
        account: "acme".parse().unwrap(),
        name: name.to_owned(),
        vendor: Vendor::OpenAi,
        model_type: ModelType::Generic,
        vendor_configuration: None,
        metadata: None,
        status: ModelStatus::Ready,
        status_reason: None,
        default_callback_url: None,
        created_at: at,
        created_by_user_id: "someone".to_owned(),
        created_by_identity_type: IdentityType::User,
    };
    change(&mut model);
    api.store.add_model(&model, false).await.unwrap();
    model
}
