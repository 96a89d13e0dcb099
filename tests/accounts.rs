//! One account never sees another's jobs, models or deliveries.

#![expect(clippy::unwrap_used, reason = "stories unwrap freely")]

mod harness;

use harness::{KEY, Mode, Platform, echo, receiver::Receiver};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

stories!(two_accounts_do_not_see_each_other, a_wrong_or_revoked_key_is_refused);

async fn two_accounts_do_not_see_each_other(mode: Mode) {
    let platform = Platform::start(mode).await;
    let receiver = Receiver::start().await;
    let other_key = platform.key_of("other");
    let as_other = |method, path: &str| platform.request(method, path).header("x-api-key", "");
    let other = |method: Method, path: &str| {
        let mut request = as_other(method, path).build().unwrap();
        request.headers_mut().insert("x-api-key", other_key.parse().unwrap());
        platform.http.execute(request)
    };
    let mut body = echo(&json!({"secret": 1}));
    body["callback_url"] = receiver.url("ok/1").into();
    let id = platform.submit(&body).await;
    platform.reaches(&id, "succeeded").await;
    let deliveries = platform.get(&format!("/v5/jobs/{id}/deliveries")).await;
    let delivery = deliveries["items"][0]["id"].as_str().unwrap();
    let server = json!({"name": "Echo", "alias": "mine", "model_deployment_id": "model_zoo/echo"});
    let made = platform.request(Method::POST, "/v4/serving").json(&server).send().await.unwrap();
    assert!(made.status().is_success());

    for (method, path) in [
        (Method::GET, format!("/v5/jobs/{id}")),
        (Method::GET, format!("/v5/jobs/{id}/attempts")),
        (Method::GET, format!("/v5/jobs/{id}/deliveries")),
        (Method::GET, format!("/v5/jobs/{id}/events")),
        (Method::POST, format!("/v5/jobs/{id}/cancel")),
        (Method::POST, format!("/v5/jobs/{id}/retry")),
        (Method::POST, format!("/v5/deliveries/{delivery}/redeliver")),
        (Method::GET, "/v4/serving/a/mine".to_owned()),
    ] {
        let status = other(method.clone(), &path).await.unwrap().status();
        assert_eq!(status, StatusCode::NOT_FOUND, "{method} {path}");
    }
    let page: Value = other(Method::GET, "/v5/jobs").await.unwrap().json().await.unwrap();
    assert_eq!(page["items"], json!([]));

    // Selecting an account the key may not use is refused too.
    let request =
        platform.request(Method::GET, "/v5/jobs").header("x-selected-account-id", "other");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    let request =
        platform.request(Method::GET, "/v5/jobs").header("x-selected-account-id", "default");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
}

async fn a_wrong_or_revoked_key_is_refused(mode: Mode) {
    let platform = Platform::start(mode).await;
    let key = platform.key_of("other");
    let get = async |key: Option<&str>| {
        let request = platform.http.get(format!("http://{}/v5/jobs", platform.address()));
        let request = match key {
            Some(key) => request.header("x-api-key", key),
            None => request,
        };
        request.send().await.unwrap().status()
    };
    assert_eq!(get(None).await, StatusCode::UNAUTHORIZED);
    assert_eq!(get(Some("wrong")).await, StatusCode::UNAUTHORIZED);
    assert_eq!(get(Some(&key)).await, StatusCode::OK);
    assert_eq!(get(Some(KEY)).await, StatusCode::OK);

    let data_dir = platform.folder.path().join("data").display().to_string();
    let embedded: &[&str] = &["--data-dir", &data_dir];
    let place = if mode == Mode::Embedded { embedded } else { &[] };
    let list = platform.run(&[&["key", "list", "--account", "other", "--json"], place].concat());
    let list: Value = serde_json::from_str(&list).unwrap();
    let id = list[0]["id"].as_str().unwrap();
    platform.run(&[&["key", "revoke", id], place].concat());
    harness::eventually("the key to be refused", async || {
        (get(Some(&key)).await == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
}
