//! Credentials over HTTP.

use http::Method;
use inferq_common::credential::MasterKeys;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use crate::testing::{Reply, TestApi};

const SECRET: &str = "sk-0123456789-secret-wxyz";

async fn put(api: &TestApi, name: &str, body: &Value) -> Reply {
    let path = format!("/v5/credentials/{name}");
    api.send(api.request(Method::PUT, &path, &[], &body.to_string())).await
}

async fn delete(api: &TestApi, name: &str) -> Reply {
    // As the clients do: with a content type and no body.
    api.send(api.request(Method::DELETE, &format!("/v5/credentials/{name}"), &[], "")).await
}

fn openai() -> Value {
    json!({ "vendor": "openai", "default": true, "api_key": SECRET, "project": "proj_1" })
}

#[tokio::test]
async fn a_credential_is_made_replaced_shown_and_deleted_and_never_read_back() {
    let api = TestApi::start().await;
    let made = put(&api, "main", &openai()).await;
    assert_eq!(made.status, 201, "{made:?}");
    insta::assert_json_snapshot!(made.json(), {
        ".id" => "[id]", ".created_at" => "[time]", ".updated_at" => "[time]",
    });
    assert_eq!(api.get("/v5/credentials/main").await.ok(), made.json());
    let replaced = put(&api, "main", &json!({ "vendor": "openai", "api_keys": ["a", "b"] })).await;
    let document = replaced.ok();
    assert_eq!((&document["id"], &document["version"]), (&made.json()["id"], &json!(2)));
    assert_eq!(document["default"], true, "a new secret leaves that as it was");
    assert_eq!(document["members"], json!([{ "name": "api_keys", "count": 2 }]));
    let list = api.get("/v5/credentials").await;
    let expected =
        json!({ "object": "list", "items": [document], "limit": 100, "has_more": false });
    assert_eq!(list.ok(), expected);
    let deleted = delete(&api, "main").await.ok();
    let id = &made.json()["id"];
    let expected = json!({ "id": id, "object": "credential", "name": "main", "deleted": true });
    assert_eq!(deleted, expected);
    assert_eq!(delete(&api, "main").await.status, 404);
    assert_eq!(api.get("/v5/credentials/main").await.status, 404);
    assert_eq!(api.get("/v5/credentials/NO%20NAME").await.status, 404);
    for reply in [made, replaced, list] {
        assert!(!reply.text.contains("0123456789"), "{reply:?}");
    }
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once_and_repeats_nothing() {
    let api = TestApi::start().await;
    let body = json!({
        "vendor": "azure", "default": SECRET, "api_keys": [SECRET, 5], "tenant_id": "a b",
        "base_url": format!("https://evil.example/?{SECRET}"), "api_kye": SECRET,
    });
    let reply = put(&api, "Main", &body).await;
    insta::assert_json_snapshot!(reply.json());
    let mut told = vec![reply];
    told.push(put(&api, "main", &json!({ "api_key": SECRET })).await);
    told.push(put(&api, "main", &json!({ "vendor": SECRET, "api_key": SECRET })).await);
    told.push(put(&api, "main", &json!([SECRET])).await);
    told.push(put(&api, "main", &json!(SECRET)).await);
    let places: Vec<String> = told[1..].iter().flat_map(Reply::places).collect();
    assert_eq!(
        places,
        [
            "missing at body.vendor",
            "enum at body.vendor",
            "model_attributes_type at body",
            "model_attributes_type at body"
        ]
    );
    let broken = format!(r#"{{"vendor":"openai","api_key":"{SECRET}"#);
    let path = "/v5/credentials/main";
    told.push(api.send(api.request(Method::PUT, path, &[], &broken)).await);
    let mut text = api.request(Method::PUT, path, &[], &broken);
    text.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    told.push(api.send(text).await);
    told.push(api.send(api.request(Method::PUT, path, &[], "")).await);
    for reply in told {
        assert_eq!(reply.status, 422, "{reply:?}");
        assert!(!reply.text.contains("0123456789"), "{reply:?}");
        assert!(!reply.text.contains("\"input\""), "{reply:?}");
    }
    assert_eq!(api.get("/v5/credentials").await.ok()["items"], json!([]));
}

#[tokio::test]
async fn huge_bodies_and_lists_of_mistakes_are_bounded() {
    let api = TestApi::start().await;
    let body = json!({ "vendor": "openai", "api_key": "k".repeat(128 * 1024) });
    assert_eq!(put(&api, "main", &body).await.status, 413);
    let mut body = openai();
    for n in 0..5000 {
        body[format!("m{n}")] = json!(1);
    }
    assert_eq!(put(&api, "main", &body).await.places().len(), 100);
}

#[tokio::test]
async fn a_credential_keeps_its_vendor() {
    let api = TestApi::start().await;
    put(&api, "main", &openai()).await;
    let other = json!({ "vendor": "cohere", "api_key": SECRET });
    let refused = put(&api, "main", &other).await;
    assert_eq!((refused.status.as_u16(), refused.header("x-should-retry")), (409, "false"));
    assert!(refused.text.contains("credential 'main' is for openai"), "{refused:?}");
    delete(&api, "main").await;
    assert_eq!(put(&api, "main", &other).await.status, 201);
}

#[tokio::test]
async fn the_list_is_filtered_and_paged() {
    let api = TestApi::start().await;
    for (name, vendor) in [("a", "openai"), ("b", "cohere"), ("c", "openai")] {
        put(&api, name, &json!({ "vendor": vendor, "api_key": "k" })).await;
    }
    let names = async |query: &str| {
        let list = api.get(&format!("/v5/credentials?{query}")).await.ok();
        let items = list["items"].as_array().unwrap().clone();
        let names: Vec<&str> = items.iter().map(|item| item["name"].as_str().unwrap()).collect();
        (
            names.join(" "),
            items.last().unwrap()["id"].as_str().unwrap().to_owned(),
            list["has_more"] == true,
        )
    };
    assert_eq!(names("vendor=openai").await.0, "c a");
    let (first, last, more) = names("limit=2&sort_order=asc").await;
    assert_eq!((first.as_str(), more), ("a b", true));
    assert_eq!(names(&format!("sort_order=asc&starting_after={last}")).await.0, "c");
    let wrong = api.get("/v5/credentials?vendor=acme&limit=0").await;
    assert_eq!(wrong.places(), ["enum at query.vendor", "greater_than_equal at query.limit"]);
}

#[tokio::test]
async fn two_accounts_do_not_see_each_others_credentials() {
    let api = TestApi::start().await;
    put(&api, "main", &openai()).await;
    let key = api.add_key("other", &[]).await;
    let as_other = async |method: Method, path: &str, body: &str| {
        let headers = [("x-api-key", key.expose_secret())];
        api.send(api.request(method, path, &headers, body)).await
    };
    let path = "/v5/credentials/main";
    assert_eq!(as_other(Method::GET, path, "").await.status, 404);
    assert_eq!(as_other(Method::DELETE, path, "").await.status, 404);
    assert_eq!(as_other(Method::GET, "/v5/credentials", "").await.ok()["items"], json!([]));
    let theirs = r#"{"vendor":"xai","api_key":"k"}"#;
    assert_eq!(as_other(Method::PUT, path, theirs).await.status, 201);
    assert_eq!(api.get(path).await.ok()["vendor"], "openai");
}

#[tokio::test]
async fn without_a_master_key_nothing_is_stored_and_all_else_works() {
    let api = TestApi::with_keys(MasterKeys::default(), |_| {}).await;
    let refused = put(&api, "main", &openai()).await;
    assert_eq!((refused.status.as_u16(), refused.header("x-should-retry")), (503, "false"));
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.starts_with("this server has no master key; set INFERQ__SECRETS__MASTER_KEY"));
    assert_eq!(api.get("/v5/credentials").await.ok()["items"], json!([]));
    assert_eq!(delete(&api, "main").await.status, 404);
    api.accepted(r#"{"model":"model_zoo/echo"}"#).await;
}

#[tokio::test]
async fn a_credential_that_another_key_sealed_is_shown_with_its_problem() {
    let api = TestApi::start().await;
    let now = api.state.clock.now();
    let key = inferq_common::credential::MasterKey::parse(&SecretString::from("0f".repeat(32)));
    let foreign = MasterKeys::new(Some(key.unwrap()), Vec::new());
    let raw: Box<serde_json::value::RawValue> = serde_json::from_str("\"k\"").unwrap();
    let vendor = inferq_common::vendor::Vendor::OpenAi;
    let secret = inferq_common::credential::CredentialSecret::read(vendor, [("api_key", &*raw)]);
    let (account, name) = ("acme".parse().unwrap(), "main".parse().unwrap());
    let owner = (&account, &name, vendor);
    let secret = foreign.seal(&secret.unwrap(), owner, &mut rand::rng()).unwrap();
    let new = inferq_common::store::NewCredential {
        id: inferq_common::id::CredentialId::new(now),
        account,
        name,
        vendor,
        secret,
        default: None,
        now,
    };
    api.store.put_credential(&new).await.unwrap();
    let list = api.get("/v5/credentials").await.ok();
    let shown = &list["items"][0];
    assert!(shown.get("members").is_none(), "{shown}");
    let problem = shown["problem"].as_str().unwrap();
    assert!(problem.starts_with("it is sealed with master key "), "{problem}");
    // Put again it is sealed with the key at hand.
    assert!(put(&api, "main", &openai()).await.ok().get("problem").is_none());
}

fn model(credential: &Value) -> Value {
    json!({
        "name": "echo", "model_vendor": "model_zoo", "model_type": "generic",
        "model_metadata": { "credential": credential }, "on_conflict": "update",
    })
}

#[tokio::test]
async fn a_model_names_a_credential_that_is_there() {
    let api = TestApi::start().await;
    put(&api, "main", &openai()).await;
    let refused = async |credential: Value, words: &str| {
        let reply = api.post("/v5/models", &[], &model(&credential).to_string()).await;
        assert_eq!(reply.places().len(), 1, "{reply:?}");
        assert!(reply.places()[0].ends_with(" at body.model_metadata.credential"), "{reply:?}");
        assert!(reply.text.contains(words), "{reply:?}");
    };
    refused(json!("zoo"), "the account has no credential 'zoo'").await;
    refused(json!("main"), "credential 'main' is for openai, not for model_zoo").await;
    refused(json!("A B"), "a credential's name has 1 to 63 characters").await;
    refused(json!(5), "valid string").await;
    put(&api, "zoo", &json!({ "vendor": "model_zoo", "api_key": "k" })).await;
    for credential in [json!("zoo"), Value::Null] {
        api.post("/v5/models", &[], &model(&credential).to_string()).await.ok();
    }
}

#[tokio::test]
async fn a_job_carries_the_credential_that_its_model_names() {
    let api = TestApi::start().await;
    put(&api, "zoo", &json!({ "vendor": "model_zoo", "api_key": "k" })).await;
    api.post("/v5/models", &[], &model(&json!("zoo")).to_string()).await.ok();
    api.add_server("greeter", "model_zoo/echo").await;
    let zoo = Some("zoo".parse().unwrap());
    let id = api.accepted(r#"{"model":"model_zoo/echo"}"#).await;
    let claim = api.claim().await;
    assert_eq!((claim.job.id, &claim.job.credential), (id, &zoo));
    api.finish(claim, crate::testing::succeeded("1")).await;
    let execute = "/v4/serving/a/greeter/execute";
    let respond_async = [("prefer", "respond-async")];
    assert_eq!(api.post(execute, &respond_async, "{}").await.status, 202);
    assert_eq!(api.claim().await.job.credential, zoo);
    let retry = format!("/v5/jobs/{id}/retry");
    assert_eq!(api.post(&retry, &[], "").await.status, 202);
    assert_eq!(api.claim().await.job.credential, zoo);

    delete(&api, "zoo").await;
    let refused = api.post("/v5/inference", &respond_async, r#"{"model":"model_zoo/echo"}"#).await;
    assert_eq!(refused.places(), ["value_error at body.model"]);
    let words = "the model's model_metadata.credential: the account has no credential 'zoo'";
    assert!(refused.text.contains(words), "{refused:?}");
    let refused = api.post(execute, &respond_async, "{}").await;
    assert_eq!(refused.places(), ["value_error at path.alias"]);
    let refused = api.post(&retry, &[], "").await;
    assert_eq!(refused.status, 422);
    assert!(refused.text.contains("the account has no credential 'zoo'"), "{refused:?}");
    // A model without one needs none.
    api.post("/v5/models", &[], &model(&Value::Null).to_string()).await.ok();
    api.accepted(r#"{"model":"model_zoo/echo"}"#).await;
    assert_eq!(api.claim().await.job.credential, None);
}
