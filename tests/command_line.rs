//! The command line says in one line what is wrong, ends with the code its help names, and leaves
//! nothing half done.

#![expect(clippy::unwrap_used, reason = "stories unwrap freely")]

mod harness;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::{Output, Stdio},
};

use harness::{Mode, Platform, chat, echo, eventually, process, receiver::Receiver};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// What a command said and how it ended.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    /// Standard error without the log of the start.
    err: Vec<String>,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let err = String::from_utf8(output.stderr).unwrap();
        let err = err.lines().filter(|line| !line.contains(" INFO ")).map(str::to_owned).collect();
        let out = String::from_utf8(output.stdout).unwrap();
        Self { code: output.status.code().expect("it ended by itself"), out, err }
    }
}

impl Ended {
    /// Fails unless it ended with this code and one line that has all these words.
    #[track_caller]
    fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.err.len(), 1, "{self:?}");
        assert!(self.err[0].starts_with("inferq: "), "{self:?}");
        for word in words {
            assert!(self.err[0].contains(word), "no '{word}' in {self:?}");
        }
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs the binary in a folder.
#[track_caller]
fn run(folder: &Path, settings: &[(&str, &str)], args: &[&str]) -> Ended {
    let settings: BTreeMap<String, String> =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    process::command(&settings).current_dir(folder).args(args).output().unwrap().into()
}

fn is_empty(folder: &TempDir) -> bool {
    fs::read_dir(folder.path()).unwrap().next().is_none()
}

#[test]
fn a_wrong_setting_is_named_and_nothing_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let at = |settings: &[(&str, &str)], args: &[&str]| run(folder.path(), settings, args);
    for command in ["dev", "api", "worker", "migrate"] {
        let ended = at(&[("INFERQ__API__LISTN", "127.0.0.1:0")], &[command]);
        ended.refused(64, &["api.listn", "no such setting", "INFERQ__API__LISTN"]);
        let ended = at(&[("INFERQ__WORKER__CONCURRENCY", "many")], &[command]);
        ended.refused(64, &["worker.concurrency", "whole number", "INFERQ__WORKER__CONCURRENCY"]);
        let ended = at(&[("INFERQ__DATABASE__MAX_GROUP", "0")], &[command]);
        ended.refused(64, &["database.max_group", "1 to 1000"]);
        at(&[], &["--config", "none.toml", command]).refused(64, &["none.toml"]);
        let ended = at(&[("INFERQ_WORKER_CONCURRENCY", "4")], &[command]);
        ended.refused(64, &["INFERQ_WORKER_CONCURRENCY", "INFERQ__WORKER__CONCURRENCY"]);
    }
    assert!(is_empty(&folder), "a command that was refused left something behind");

    let file = tempfile::tempdir().unwrap();
    let path = file.path().join("inferq.toml");
    for (text, words) in [
        ("[worker]\nconcurency = 4\n", ["worker.concurency", "no such setting"]),
        ("[worker]\nconcurrency = \"x\"\n", ["worker.concurrency", "whole number"]),
        ("[worker\n", ["TOML", "line 1"]),
    ] {
        fs::write(&path, text).unwrap();
        let ended = at(&[], &["dev", "--config", path.to_str().unwrap()]);
        ended.refused(64, &[words.as_slice(), &["inferq.toml"]].concat());
    }
    assert!(is_empty(&folder), "a command that was refused left something behind");
}

#[test]
fn a_process_that_shares_needs_servers_and_says_which_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = ("INFERQ__DATABASE__URL", "postgres://me:s3cret-word@127.0.0.1:1/jobs");
    let rabbitmq = ("INFERQ__BROKER__URL", "amqp://me:s3cret-word@127.0.0.1:1");
    for role in ["api", "worker"] {
        let both = ["INFERQ__DATABASE__URL", "INFERQ__BROKER__URL", "inferq dev"];
        run(folder.path(), &[], &[role]).refused(64, &both);
        run(folder.path(), &[postgres], &[role]).refused(64, &["set INFERQ__BROKER__URL"]);
        run(folder.path(), &[rabbitmq], &[role]).refused(64, &["set INFERQ__DATABASE__URL"]);
    }
    let none = ["worker", "--concurrency", "0"];
    run(folder.path(), &[postgres, rabbitmq], &none)
        .refused(64, &["worker.concurrency", "1 to 10000"]);
    let listen = ["api", "--listen", "127.0.0.1:0"];
    for args in [&listen[..], &["worker"], &["migrate"], &["key", "list"]] {
        let ended = run(folder.path(), &[postgres, rabbitmq], args);
        ended.refused(69, &["127.0.0.1:1/jobs", "refused"]);
        assert!(!format!("{ended:?}").contains("s3cret-word"), "{ended:?}");
    }
    assert!(is_empty(&folder));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let words = [address.as_str(), "listens there already", "--listen"];
    run(folder.path(), &[], &["dev", "--listen", &address]).refused(71, &words);
    assert!(!folder.path().join(".inferq/api-key").exists());
    assert!(!folder.path().join(".inferq/inferq.db").exists());
    let servers = [
        ("INFERQ__DATABASE__URL", "postgres://127.0.0.1:1/jobs"),
        ("INFERQ__BROKER__URL", "amqp://127.0.0.1:1"),
    ];
    for role in ["api", "worker"] {
        run(folder.path(), &servers, &[role, "--listen", &address]).refused(71, &words);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dev_prints_is_all_that_a_first_request_needs() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = tokio::process::Command::from(process::command(&BTreeMap::new()))
        .current_dir(folder.path())
        .args(["dev", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(dev.stdout.take().unwrap()).lines();
    // Up to the end of the request's body.
    let mut printed = String::new();
    while !printed.ends_with("}'\n") {
        let line = lines.next_line().await.unwrap();
        printed.push_str(&line.expect("it prints a request before it ends"));
        printed.push('\n');
    }
    let between = |start: &str, end: &str| {
        let (_, rest) = printed.split_once(start).unwrap_or_else(|| panic!("{start}: {printed}"));
        rest.split_once(end).unwrap().0.to_owned()
    };
    assert!(printed.contains("Callbacks may reach this machine (loopback)"), "{printed}");
    let url = between("curl -s ", " ");
    assert!(url.starts_with(&between("inferq is ready at ", "\n")), "{printed}");
    let key = between("-H 'x-api-key: ", "'");
    assert_eq!(key, between("API key:     ", "\n"));
    let body = between("-d '", "'");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().build().unwrap();
    let request = http.post(url).header("x-api-key", key);
    let answer = request.header("content-type", "application/json").body(body).send().await;
    let answer: Value = answer.unwrap().json().await.unwrap();
    assert_eq!(answer["response"], json!({"hello": "world"}));
    dev.kill().await.unwrap();
}

#[test]
fn a_data_folder_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    for place in ["file", "file/below"] {
        let ended = run(folder.path(), &[], &["dev", "--data-dir", place]);
        ended.refused(71, &[place, "--data-dir"]);
    }
    // A folder where a file should be.
    for name in ["lock", "inferq.db", "api-key"] {
        let place = format!("with-{name}");
        fs::create_dir_all(folder.path().join(&place).join(name)).unwrap();
        let listen = ["--listen", "127.0.0.1:0", "--data-dir", &place];
        let ended = run(folder.path(), &[], &[&["dev"], &listen[..]].concat());
        ended.refused(71, &[&place, name]);
    }
    // Files that hold something else.
    for (name, code, text) in
        [("inferq.db", 71, "a text that is no database\n"), ("api-key", 64, "\n")]
    {
        let place = format!("foreign-{name}");
        fs::create_dir_all(folder.path().join(&place)).unwrap();
        let path = folder.path().join(&place).join(name);
        fs::write(&path, text).unwrap();
        let listen = ["--listen", "127.0.0.1:0", "--data-dir", &place];
        let ended = run(folder.path(), &[], &[&["dev"], &listen[..]].concat());
        ended.refused(code, &[&format!("{place}/{name}")]);
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "it was overwritten");
    }
    let ended = run(folder.path(), &[], &["key", "list", "--data-dir", "nowhere"]);
    ended.refused(66, &["nowhere", "inferq dev"]);
    assert!(!folder.path().join("nowhere").exists(), "looking made a folder");
}

/// One running `inferq dev` with the command line pointed at it.
struct Dev {
    platform: Platform,
    url: String,
}

impl Dev {
    async fn start() -> Self {
        let platform = Platform::start(Mode::Embedded).await;
        let url = format!("http://{}", platform.address());
        Self { platform, url }
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Ended {
        let server = [("INFERQ_URL", self.url.as_str()), ("INFERQ_API_KEY", harness::KEY)];
        run(self.platform.folder.path(), &server, args)
    }

    /// A job's id, as the command line shows it.
    #[track_caller]
    fn submit(&self, args: &[&str]) -> String {
        let ended = self.run(&[&["job", "submit", "--json"], args].concat());
        assert_eq!(ended.code, 0, "{ended:?}");
        ended.json()["id"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_submitted_and_followed() {
    let dev = Dev::start().await;
    let args = r#"{"z":1.50,"n":123456789012345678901234567890,"e":1e999,"a":"é"}"#;
    let submit = ["job", "submit", "model_zoo/echo", "--args", args, "--wait"];
    let ended = dev.run(&submit);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.out.contains(args), "the result was spelt anew: {ended:?}");
    let ended = dev.run(&[&submit[..], &["--json"]].concat());
    assert!(ended.out.contains(args), "the result was spelt anew: {ended:?}");

    let id = dev.submit(&["model_zoo/echo", "--args", r#"{"delay_ms":600000}"#]);
    assert_eq!(dev.run(&["job", "get", &id, "--json"]).json()["id"], id);
    let ended = dev.run(&["job", "cancel", &id]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.out.contains("cancelled"), "{ended:?}");
    dev.run(&["job", "cancel", &id]).refused(65, &["cancelled"]);
    let ended = dev.run(&["job", "watch", &id]);
    assert_eq!((ended.code, ended.err.len()), (1, 0), "{ended:?}");

    let fails = chat("fails", &json!({"fail_times": 9, "status": 400}))["args"].to_string();
    let ended = dev.run(&["job", "submit", "openai/gpt-test", "--args", &fails, "--wait"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.out.contains("invalid_request: "), "{ended:?}");

    let page = dev.run(&["job", "list", "--json", "--limit", "2"]).json();
    assert_eq!((page["items"].as_array().unwrap().len(), &page["has_more"]), (2, &json!(true)));
    let cancelled = dev.run(&["job", "list", "--status", "cancelled"]);
    assert!(cancelled.out.contains(&id), "{cancelled:?}");
    let none = dev.run(&["job", "list", "--status", "expired"]);
    assert_eq!(none.out, "no jobs\n");
    assert_eq!(dev.run(&["model", "list", "--json"]).json()["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_is_refused_in_a_line() {
    let dev = Dev::start().await;
    let nobody = "01890000-0000-7000-8000-000000000000";
    let submit = |args: &[&str]| dev.run(&[&["job", "submit"], args].concat());
    submit(&["model_zoo/echo", "--args", "{"]).refused(65, &["--args is not JSON"]);
    submit(&["model_zoo/echo", "--args", "[]"]).refused(65, &["body.args"]);
    submit(&["acme/x"]).refused(65, &["body.model", "acme"]);
    submit(&["anthropic/x"]).refused(65, &["messages"]);
    submit(&["model_zoo/echo", "--priority", "urgent"]).refused(65, &["body.priority"]);
    submit(&["model_zoo/echo", "--args-file", "none"]).refused(71, &["none"]);
    let wrong = ["model_zoo/echo", "--api-key", "iq_wrong"];
    submit(&wrong).refused(77, &["API key is unknown or revoked"]);
    submit(&["model_zoo/echo", "--account", "theirs"]).refused(77, &["account"]);
    submit(&["model_zoo/echo", "--url", "http://127.0.0.1:1"])
        .refused(69, &["no inferq server at http://127.0.0.1:1", "inferq dev"]);
    for id in [nobody, "nonsense", "a/b?c", ".."] {
        for command in ["get", "cancel", "watch"] {
            dev.run(&["job", command, id]).refused(66, &["ot"]);
        }
    }
    dev.run(&["model", "get", "openai/nobody"]).refused(66, &["model"]);
    let ended = dev.run(&["job", "list", "--url", "127.0.0.1:8080"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.err[0].contains("http://127.0.0.1:8080"), "{ended:?}");
    assert_eq!(dev.platform.get("/v5/jobs").await["items"], json!([]), "a refused job was stored");

    // Without a key, and a second `dev` on the same folder.
    let url = [("INFERQ_URL", dev.url.as_str())];
    let elsewhere = tempfile::tempdir().unwrap();
    run(elsewhere.path(), &url, &["job", "list"]).refused(77, &["INFERQ_API_KEY", "api-key"]);
    let folder = dev.platform.folder.path();
    assert_eq!(run(folder, &url, &["job", "list", "--data-dir", "data"]).code, 0);
    let second = run(folder, &[], &["dev", "--listen", "127.0.0.1:0", "--data-dir", "data"]);
    second.refused(69, &["another `inferq dev` uses data", "--data-dir"]);
    assert_eq!(dev.run(&["job", "list"]).code, 0, "the first one suffered");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_secrets_are_managed_beside_a_running_server() {
    let dev = Dev::start().await;
    let receiver = Receiver::start().await;
    let key = |args: &[&str]| dev.run(&[&["key", "--data-dir", "data", "--json"], args].concat());
    let made = key(&["create", "--account", "acme", "--name", "ci"]).json();
    let with_key =
        |secret: &Value| dev.run(&["job", "list", "--api-key", secret.as_str().unwrap()]).code;
    assert_eq!(with_key(&made["key"]), 0);
    let listed = key(&["list", "--account", "acme"]);
    assert_eq!(listed.json()[0]["name"], "ci");
    assert!(!listed.out.contains(made["key"].as_str().unwrap()), "a key is shown only once");
    assert_eq!(key(&["revoke", made["id"].as_str().unwrap()]).json()["revoked"], true);
    eventually("the key to be refused", async || (with_key(&made["key"]) == 77).then_some(()))
        .await;
    let nobody = "01890000-0000-7000-8000-000000000000";
    key(&["revoke", nobody]).refused(66, &[nobody]);
    key(&["webhook-secret", "show", "--account", "ghost"]).refused(66, &["ghost"]);
    key(&["webhook-secret", "rotate", "--account", "ghost"]).refused(66, &["ghost"]);

    let old = key(&["webhook-secret", "show"]).json()[0]["secret"].clone();
    let new = key(&["webhook-secret", "rotate"]).json()["secret"].clone();
    assert_ne!(old, new);
    let mut body = echo(&json!({}));
    body["callback_url"] = receiver.url("ok/rotated").into();
    dev.platform.submit(&body).await;
    let post = eventually("the callback", async || receiver.posts("ok/rotated").pop()).await;
    let signatures = post.headers["webhook-signature"].to_str().unwrap();
    assert_eq!(signatures.split(' ').count(), 2, "{signatures}");
    for secret in [old, new] {
        let webhook = Webhook::new(secret.as_str().unwrap()).unwrap();
        webhook.verify(&post.body, &post.headers).unwrap();
    }
}

#[cfg(feature = "servers")]
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_missing_are_named() {
    use inferq_common::testing::{postgres, rabbitmq};
    let folder = tempfile::tempdir().unwrap();
    let (database, broker) = (postgres::fresh_database().await, rabbitmq::virtual_host().await);
    let servers =
        [("INFERQ__DATABASE__URL", database.as_str()), ("INFERQ__BROKER__URL", broker.as_str())];
    for args in [&["api", "--listen", "127.0.0.1:0"][..], &["worker"], &["key", "create"]] {
        run(folder.path(), &servers, args).refused(69, &["run `inferq migrate`"]);
    }
    let (_, at) = database.split_once('@').unwrap_or(("", &database));
    let migrated = run(folder.path(), &servers, &["migrate"]);
    assert_eq!(migrated.code, 0, "{migrated:?}");
    assert!(migrated.out.contains(&format!("store at {at}")), "{migrated:?}");
    assert_eq!(run(folder.path(), &servers, &["key", "create"]).code, 0);

    let elsewhere = format!("{database}-missing");
    let ended = run(folder.path(), &[("INFERQ__DATABASE__URL", &elsewhere)], &["migrate"]);
    ended.refused(69, &["-missing\" does not exist; correct INFERQ__DATABASE__URL"]);
}

#[test]
fn a_migration_says_what_was_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder.path(), &[], &["migrate"]);
    assert_eq!(ended.out, "the sqlite store at .inferq/inferq.db is up to date\n", "{ended:?}");
}

#[test]
fn a_vendor_s_key_is_checked_without_a_platform() {
    let folder = TempDir::new().unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let answers = std::thread::spawn(move || {
        for (status, body) in [
            ("404 Not Found", r#"{"error":{"message":"no such model","code":"model_not_found"}}"#),
            ("401 Unauthorized", r#"{"error":{"message":"wrong key: key-number-2"}}"#),
        ] {
            let (mut socket, _) = server.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                let mut part = [0; 4096];
                let n = socket.read(&mut part).unwrap();
                assert!(n > 0, "the request is cut");
                request.extend_from_slice(&part[..n]);
            }
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close");
            write!(socket, "{head}\r\n\r\n{body}").unwrap();
        }
    });
    let base_url = format!("http://{address}/v1");
    let settings = [
        ("INFERQ__VENDORS__OPENAI__BASE_URL", base_url.as_str()),
        ("INFERQ__VENDORS__OPENAI__API_KEYS", "key-number-1,key-number-2"),
    ];
    let listed = run(folder.path(), &settings, &["vendor", "list"]);
    assert!(listed.out.contains("2 keys") && listed.out.contains(&base_url), "{listed:?}");
    let checked = run(folder.path(), &settings, &["vendor", "check", "openai"]);
    answers.join().unwrap();
    assert_eq!(checked.code, 77, "{checked:?}");
    let lines: Vec<&str> = checked.out.lines().collect();
    assert!(lines[0].starts_with("openai key-1: ok: the credential is accepted"), "{checked:?}");
    assert!(lines[1].starts_with("openai key-2: failed: "), "{checked:?}");
    assert!(!checked.out.contains("key-number"), "{checked:?}");
    assert!(is_empty(&folder));
}
