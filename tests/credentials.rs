//! Credentials of accounts: stored by one process, seen by all, readable by none.

#![expect(clippy::unwrap_used, reason = "stories unwrap freely")]

mod harness;

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Output, Stdio},
};

use harness::{KEY, Mode, Platform, process};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

stories!(
    a_credential_is_seen_by_every_process_and_belongs_to_its_account,
    calls_are_made_with_the_account_s_key_and_a_refused_one_gives_way_to_the_next,
    the_operator_s_keys_take_turns_too,
);

const SECRET: &str = "sk-0123456789-the-secret-wxyz";
const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

async fn a_credential_is_seen_by_every_process_and_belongs_to_its_account(mode: Mode) {
    let settings = [("INFERQ__SECRETS__MASTER_KEY", MASTER_KEY)];
    let platform = Platform::start_with(mode, &settings).await;
    let body = json!({"vendor": "model_zoo", "api_key": SECRET, "default": true});
    let put = platform.request(Method::PUT, "/v5/credentials/main").json(&body);
    assert_eq!(put.send().await.unwrap().status(), StatusCode::CREATED);
    // Of two apis the other one.
    let shown = platform.get("/v5/credentials/main").await;
    assert_eq!(shown["members"], json!([{"name": "api_key", "count": 1, "hints": ["…wxyz"]}]));

    let model = json!({
        "name": "echo", "model_vendor": "model_zoo", "model_type": "generic",
        "model_metadata": {"credential": "main"},
    });
    let made = platform.request(Method::POST, "/v5/models").json(&model).send().await.unwrap();
    assert_eq!(made.status(), StatusCode::OK);
    let id = platform.submit(&harness::echo(&json!({"hello": "world"}))).await;
    platform.reaches(&id, "succeeded").await;

    let other_key = platform.key_of("other");
    for method in [Method::GET, Method::DELETE] {
        let mut request = platform.request(method.clone(), "/v5/credentials/main").build().unwrap();
        request.headers_mut().insert("x-api-key", other_key.parse().unwrap());
        let status = platform.http.execute(request).await.unwrap().status();
        assert_eq!(status, StatusCode::NOT_FOUND, "{method}");
    }
    let deleted = platform.request(Method::DELETE, "/v5/credentials/main").send().await.unwrap();
    assert_eq!(deleted.json::<Value>().await.unwrap()["deleted"], true);
    let gone = platform.request(Method::GET, "/v5/credentials/main").send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
}

async fn calls_are_made_with_the_account_s_key_and_a_refused_one_gives_way_to_the_next(mode: Mode) {
    // The operator's key is one the vendor does not know.
    let settings = [
        ("INFERQ__SECRETS__MASTER_KEY", MASTER_KEY),
        ("INFERQ__VENDORS__OPENAI__API_KEY", "nobody-knows-this-key"),
    ];
    let platform = Platform::start_with(mode, &settings).await;
    let refused = platform.submit(&harness::chat("before", &json!({}))).await;
    let error = platform.reaches(&refused, "failed").await["error"].clone();
    assert_eq!(error["class"], "auth", "{error}");

    let keys = json!(["an-old-key-of-mine", "vendor-key"]);
    let body = json!({"vendor": "openai", "api_keys": keys, "default": true});
    let put = platform.request(Method::PUT, "/v5/credentials/mine").json(&body);
    assert_eq!(put.send().await.unwrap().status(), StatusCode::CREATED);
    let job = harness::eventually("the credential to be used", async || {
        let id = platform.submit(&harness::chat("after", &json!({}))).await;
        let job = platform.ends(&id).await;
        (job["status"] == "succeeded").then_some(job)
    })
    .await;
    assert_eq!(job["attempt"], 1, "changing the key is no attempt: {job}");
    assert_eq!(platform.vendor.calls("after").len(), 1);

    // Who has no credential calls with the operator's key still.
    let body = harness::chat("other", &json!({}));
    let mut request = platform.request(Method::POST, "/v5/inference").json(&body).build().unwrap();
    request.headers_mut().insert("x-api-key", platform.key_of("other").parse().unwrap());
    let answer = platform.http.execute(request).await.unwrap();
    assert!(!answer.status().is_success(), "{answer:?}");
    assert!(platform.vendor.calls("other").is_empty());
}

async fn the_operator_s_keys_take_turns_too(mode: Mode) {
    let settings = [
        ("INFERQ__VENDORS__OPENAI__API_KEY", "nobody-knows-this-key"),
        ("INFERQ__VENDORS__OPENAI__API_KEYS", "nor-that-one-as-well,vendor-key"),
    ];
    let platform = Platform::start_with(mode, &settings).await;
    for name in ["one", "two", "three"] {
        let id = platform.submit(&harness::chat(name, &json!({}))).await;
        let job = platform.reaches(&id, "succeeded").await;
        assert_eq!((&job["attempt"], platform.vendor.calls(name).len()), (&json!(1), 1));
    }
}

/// The command line, with a text on its standard input.
fn run(folder: &Path, settings: &[(&str, &str)], args: &[&str], input: &str) -> Output {
    let settings: BTreeMap<String, String> =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut child = process::command(&settings)
        .current_dir(folder)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[track_caller]
fn said(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_stores_what_no_file_shows() {
    let platform = Platform::start(Mode::Embedded).await;
    let folder = platform.folder.path();
    let master_key = folder.join("data/master-key");
    let mode = fs::metadata(&master_key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let url = format!("http://{}", platform.address());
    let server = [("INFERQ_URL", url.as_str()), ("INFERQ_API_KEY", KEY)];
    let credential =
        |args: &[&str], input: &str| run(folder, &server, &[&["credential"], args].concat(), input);
    let put = credential(&["put", "main", "--vendor", "openai", "--default"], SECRET);
    assert!(said(&put).contains("api_key (…wxyz)"), "{put:?}");
    let file = folder.join("members.json");
    let members = json!({"access_key_id": "AKIA1", "secret_access_key": SECRET, "region": "eu-1"});
    fs::write(&file, members.to_string()).unwrap();
    let aws = ["put", "aws", "--vendor", "bedrock", "--members-file", "members.json", "--json"];
    let aws: Value = serde_json::from_str(&said(&credential(&aws, ""))).unwrap();
    assert_eq!(aws["version"], 1);
    let listed = said(&credential(&["list"], ""));
    assert!(listed.contains("region=eu-1") && listed.contains("main"), "{listed}");
    let wrong = credential(&["put", "main", "--vendor", "openai"], "two words");
    assert_eq!(wrong.status.code(), Some(65), "{wrong:?}");
    let err = String::from_utf8_lossy(&wrong.stderr);
    assert!(err.contains("body.api_key") && !err.contains("two words"), "{err}");
    assert!(said(&credential(&["delete", "aws"], "")).contains("deleted aws"));
    assert_eq!(credential(&["get", "aws"], "").status.code(), Some(66));

    platform.fronts[0].stop().await;
    fs::remove_file(&file).unwrap();
    for entry in fs::read_dir(folder.join("data")).unwrap().chain(fs::read_dir(folder).unwrap()) {
        let path = entry.unwrap().path();
        let Ok(bytes) = fs::read(&path) else { continue };
        let found = bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
        assert!(!found, "{} holds the secret", path.display());
    }
    rotate_the_master_key(&platform, &master_key);
    platform.fronts[0].start_again();
    platform.fronts[0].is_ready().await;
    let shown = platform.get("/v5/credentials/main").await;
    assert_eq!(shown["problem"], Value::Null, "{shown}");
    assert_eq!((&shown["version"], &shown["default"]), (&json!(1), &json!(true)));
}

fn rotate_the_master_key(platform: &Platform, file: &Path) {
    let old = fs::read_to_string(file).unwrap();
    fs::write(file, MASTER_KEY).unwrap();
    let reseal = |settings: &[(&str, &str)]| {
        run(platform.folder.path(), settings, &["key", "reseal", "--data-dir", "data"], "")
    };
    let lost = reseal(&[]);
    assert_eq!(lost.status.code(), Some(65), "{lost:?}");
    let err = String::from_utf8_lossy(&lost.stderr);
    for words in ["credential 'main' of account default", "previous_master_keys"] {
        assert!(err.contains(words), "no '{words}' in {err}");
    }
    let done = reseal(&[("INFERQ__SECRETS__PREVIOUS_MASTER_KEYS", old.trim())]);
    assert!(said(&done).starts_with("1 sealed anew"), "{done:?}");
    // The old key is needed no more.
    assert!(said(&reseal(&[])).starts_with("0 sealed anew"), "{done:?}");
}

#[test]
fn a_master_key_that_is_none_is_named_and_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value, key) in [
        ("INFERQ__SECRETS__MASTER_KEY", "hunter2", "secrets.master_key"),
        ("INFERQ__SECRETS__PREVIOUS_MASTER_KEYS", "hunter2", "secrets.previous_master_keys[0]"),
        ("INFERQ__SECRETS__KEY_FILE", "nowhere/key", "secrets.key_file"),
    ] {
        let listen = ["dev", "--listen", "127.0.0.1:0"];
        let ended = run(folder.path(), &[(name, value)], &listen, "");
        assert_eq!(ended.status.code(), Some(64), "{ended:?}");
        let err = String::from_utf8_lossy(&ended.stderr);
        assert!(err.contains(key) && !err.contains("hunter2"), "{err}");
    }
}
