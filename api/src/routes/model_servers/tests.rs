//! Model servers over HTTP.

use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::testing::{Reply, TestApi, succeeded};

async fn create(api: &TestApi, body: &Value) -> Reply {
    api.post("/v4/serving", &[], &body.to_string()).await
}

fn echo(alias: &str) -> Value {
    json!({ "model_deployment_id": "model_zoo/echo", "name": "Echo", "alias": alias })
}

async fn hosted(api: &TestApi) -> String {
    let body = json!({ "name": "gpt", "model_vendor": "openai", "model_type": "generic" });
    let model = api.post("/v5/models", &[], &body.to_string()).await.ok();
    model["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_model_server_is_found_by_its_id_its_alias_and_in_the_list() {
    let api = TestApi::start().await;
    let model_id = hosted(&api).await;
    let body = json!({ "model_deployment_id": model_id, "name": "n", "alias": "al-1.x_Y" });
    let server = create(&api, &body).await.ok();
    insta::assert_json_snapshot!(server, {
        ".model_server_id" => "[id]", ".model_deployment_id" => "[model id]",
    });
    assert_eq!(server["model_deployment_id"], model_id);
    let id = server["model_server_id"].as_str().unwrap();
    assert_eq!(api.get(&format!("/v4/serving/{id}")).await.ok(), server);
    assert_eq!(api.get("/v4/serving/a/al-1.x_Y").await.ok(), server);
    let deployment = api.get(&format!("/v4/serving/{id}/deployment")).await.ok();
    assert_eq!(deployment, json!({ "model_deployment_id": model_id }));
    let plain = json!({ "model_deployment_id": "model_zoo/echo", "name": "no alias" });
    let plain = create(&api, &plain).await.ok();
    assert!(plain.get("alias").is_none());
    let list = api.get("/v4/serving").await.ok();
    assert_eq!(list, json!({ "object": "list", "items": [server, plain] }));
}

#[tokio::test]
async fn an_alias_names_one_model_server_of_an_account() {
    let api = TestApi::start().await;
    create(&api, &echo("al")).await.ok();
    let clash = create(&api, &echo("al")).await;
    assert_eq!(clash.status, 409);
    assert_eq!(clash.header("x-should-retry"), "false");
    let other = api.add_key("other", &[]).await;
    let header = [("x-api-key", other.expose_secret())];
    let body = echo("al").to_string();
    assert_eq!(api.post("/v4/serving", &header, &body).await.ok()["account_id"], "other");
}

#[tokio::test]
async fn what_is_wrong_with_a_model_server_is_named() {
    let api = TestApi::start().await;
    assert_eq!(
        create(&api, &json!({ "alias": 1 })).await.places(),
        [
            "missing at body.model_deployment_id",
            "missing at body.name",
            "string_type at body.alias"
        ]
    );
    for alias in ["a b", "a/b", "ä", "a\u{0}"] {
        let places = create(&api, &echo(alias)).await.places();
        assert_eq!(places, ["string_pattern_mismatch at body.alias"], "{alias}");
    }
    assert_eq!(create(&api, &echo("")).await.places(), ["string_too_short at body.alias"]);
    let long = "a".repeat(129);
    assert_eq!(create(&api, &echo(&long)).await.places(), ["string_too_long at body.alias"]);
    for deployment in ["gpt", "acme/x", "openai/", "0197d2f0-0000-7000-8000-000000000000"] {
        let body = json!({ "model_deployment_id": deployment, "name": "n" });
        let places = create(&api, &body).await.places();
        assert_eq!(places, ["value_error at body.model_deployment_id"], "{deployment}");
    }
    let body = json!({ "model_deployment_id": "acme/x", "name": "a\u{7}", "alias": "a b" });
    assert_eq!(create(&api, &body).await.places().len(), 3, "all in one list");
    assert_eq!(api.get("/v4/serving").await.ok()["items"], json!([]), "nothing was stored");
}

#[tokio::test]
async fn one_account_never_sees_anothers_model_servers() {
    let api = TestApi::start().await;
    let model_id = hosted(&api).await;
    let server = create(&api, &echo("al")).await.ok();
    let id = server["model_server_id"].as_str().unwrap();
    let other = api.add_key("other", &[]).await;
    let header = [("x-api-key", other.expose_secret())];
    for path in ["/v4/serving/a/al", &format!("/v4/serving/{id}")] {
        let reply = api.send(api.request(Method::GET, path, &header, "")).await;
        assert_eq!(reply.status, 404, "{path}");
    }
    let reply = api.post(&format!("/v4/serving/{id}/execute"), &header, "{}").await;
    assert_eq!(reply.status, 404);
    let body = json!({ "model_deployment_id": model_id, "name": "n" }).to_string();
    let reply = api.post("/v4/serving", &header, &body).await;
    assert_eq!(reply.places(), ["value_error at body.model_deployment_id"]);
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_is_not_offered_405() {
    let api = TestApi::start().await;
    for path in
        ["/v4/serving/x", "/v4/serving/a/x", "/v4/serving/a/%00", "/v4/serving/x/deployment"]
    {
        assert_eq!(api.get(path).await.status, 404, "{path}");
    }
    assert_eq!(api.post("/v4/serving/x/execute", &[], "{}").await.status, 404);
    let id = create(&api, &echo("al")).await.ok()["model_server_id"].clone();
    let path = format!("/v4/serving/{}", id.as_str().unwrap());
    let reply = api.send(api.request(Method::PATCH, &path, &[], "")).await;
    assert_eq!(
        (reply.status.as_u16(), reply.json()["detail"].clone()),
        (405, json!("Method Not Allowed"))
    );
    assert_eq!(api.post(&format!("{path}/other"), &[], "").await.status, 404);
}

#[tokio::test]
async fn a_model_server_executes_by_its_id_and_by_its_alias_at_once() {
    let api = TestApi::start().await;
    // Looked for before it is there: the miss must not be remembered.
    assert_eq!(api.post("/v4/serving/a/al/execute", &[], "{}").await.status, 404);
    let server = create(&api, &echo("al")).await.ok();
    let id = server["model_server_id"].as_str().unwrap();
    for path in [format!("/v4/serving/{id}/execute"), "/v4/serving/a/al/execute".to_owned()] {
        let (reply, claim) = tokio::join!(
            api.post(&path, &[], r#"{"input":1.50}"#),
            api.run_next(succeeded(r#"{"input":1.50}"#)),
        );
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.text.contains(r#""result":{"input":1.50}"#), "{reply:?}");
        assert_eq!(claim.job.alias.as_deref(), Some("al"));
    }
}
