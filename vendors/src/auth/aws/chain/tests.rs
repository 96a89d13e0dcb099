//! The chain reads the environment of its process; each test asks in a process of its own.

use std::{env, fs, path::Path, process::Stdio};

use chrono::SecondsFormat;
use inferq_common::clock::{Clock as _, SystemClock};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{body_string_contains, header, header_exists, method, path},
};

use super::*;

/// Tells the other process that it is the one that asks.
const ASKS: &str = "INFERQ_TEST_ASKS_AWS_CHAIN";
const PROFILE: &str = "INFERQ_TEST_AWS_PROFILE";

/// Not a test of itself: what the other process runs.
#[tokio::test]
#[expect(clippy::print_stdout, reason = "the answer to the process that asked")]
async fn asks_in_a_process_of_its_own() {
    if env::var_os(ASKS).is_none() {
        return;
    }
    let profile = env::var_os(PROFILE).map(|name| name.into_string().unwrap());
    let chain = Chain::new(&VendorConfig { profile, ..VendorConfig::default() });
    let region = chain.region().await;
    println!("\nREGION {region:?}");
    match chain.keys(None, SystemClock.now()).await {
        Ok((joined, ends)) => {
            let life = (ends - SystemClock.now()).num_minutes();
            println!("FOUND {:?} {life}", joined.expose_secret());
        }
        Err(error) => println!("ERROR {} {error}", error.class()),
    }
}

/// What the chain says where the environment is `variables` and nothing else.
async fn asked(home: &Path, variables: &[(&str, &str)]) -> String {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "auth::aws::chain::tests::asks_in_a_process_of_its_own", "--nocapture"])
        .env_clear()
        .env("HOME", home)
        .env(ASKS, "1")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let lines = said
        .lines()
        .filter(|line| ["REGION ", "FOUND ", "ERROR "].iter().any(|word| line.starts_with(word)));
    lines.collect::<Vec<_>>().join("; ")
}

fn home() -> TempDir {
    TempDir::new().unwrap()
}

fn in_half_an_hour() -> String {
    let ends = SystemClock.now() + TimeDelta::minutes(30);
    ends.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The instance has no metadata.
const NO_INSTANCE: (&str, &str) = ("AWS_EC2_METADATA_DISABLED", "true");

#[tokio::test]
async fn the_environment_is_first() {
    let said = asked(
        home().path(),
        &[
            ("AWS_ACCESS_KEY_ID", "AKID"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_SESSION_TOKEN", "token"),
        ],
    )
    .await;
    assert_eq!(said, r#"REGION None; FOUND "AKID\nsecret\ntoken" 59"#);
}

#[tokio::test]
async fn a_profile_has_keys_and_a_region() {
    let home = home();
    fs::create_dir(home.path().join(".aws")).unwrap();
    let config = "[profile work]\nregion = eu-west-3\n[profile told]\n\
        credential_process = echo '{\"Version\":1,\"AccessKeyId\":\"AKID3\",\"SecretAccessKey\":\"s3\"}'\n";
    fs::write(home.path().join(".aws/config"), config).unwrap();
    let keys = "[default]\naws_access_key_id = AKID1\naws_secret_access_key = s1\n\
        [work]\naws_access_key_id = AKID2\naws_secret_access_key = s2\n";
    fs::write(home.path().join(".aws/credentials"), keys).unwrap();
    let said = asked(home.path(), &[NO_INSTANCE]).await;
    assert_eq!(said, r#"REGION None; FOUND "AKID1\ns1\n" 59"#);
    let said = asked(home.path(), &[("AWS_PROFILE", "work"), NO_INSTANCE]).await;
    assert_eq!(said, r#"REGION Some("eu-west-3"); FOUND "AKID2\ns2\n" 59"#);
    // A profile that is set goes before the environment.
    let said = asked(
        home.path(),
        &[(PROFILE, "work"), ("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "s")],
    )
    .await;
    assert_eq!(said, r#"REGION Some("eu-west-3"); FOUND "AKID2\ns2\n" 59"#);
    let shell = [(PROFILE, "told"), ("PATH", "/usr/bin:/bin")];
    let said = asked(home.path(), &shell).await;
    assert_eq!(said, r#"REGION None; FOUND "AKID3\ns3\n" 59"#);
    let said = asked(home.path(), &[(PROFILE, "missing")]).await;
    assert!(said.contains("ERROR auth AWS keys could not be had: "), "{said}");
}

#[tokio::test]
async fn a_web_identity_is_exchanged_for_keys() {
    let sts = MockServer::start().await;
    let ends = in_half_an_hour();
    let answer = format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIA1</AccessKeyId>\
         <SecretAccessKey>s1</SecretAccessKey><SessionToken>t1</SessionToken>\
         <Expiration>{ends}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
         </AssumeRoleWithWebIdentityResponse>"
    );
    Mock::given(method("POST"))
        .and(body_string_contains("Action=AssumeRoleWithWebIdentity"))
        .and(body_string_contains("WebIdentityToken=the-token"))
        .respond_with(ResponseTemplate::new(200).set_body_raw(answer, "text/xml"))
        .mount(&sts)
        .await;
    let home = home();
    let token = home.path().join("token");
    fs::write(&token, "the-token").unwrap();
    let variables = |endpoint| {
        [
            ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
            ("AWS_ROLE_ARN", "arn:aws:iam::000000000000:role/r"),
            ("AWS_ENDPOINT_URL_STS", endpoint),
        ]
    };
    let endpoint = sts.uri();
    let said = asked(home.path(), &variables(&endpoint)).await;
    assert!(said.ends_with(r#"FOUND "ASIA1\ns1\nt1" 29"#), "{said}");
    let said = asked(home.path(), &variables("http://127.0.0.1:1")).await;
    assert!(said.contains("ERROR transient AWS keys could not be fetched: "), "{said}");
}

#[tokio::test]
async fn a_role_that_cannot_be_taken_on_is_told() {
    let sts = MockServer::start().await;
    let answer = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>\
        <Message>Not authorized to perform sts:AssumeRoleWithWebIdentity</Message></Error>\
        </ErrorResponse>";
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(403).set_body_raw(answer, "text/xml"))
        .mount(&sts)
        .await;
    let home = home();
    let token = home.path().join("token");
    fs::write(&token, "the-token").unwrap();
    let said = asked(
        home.path(),
        &[
            ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
            ("AWS_ROLE_ARN", "arn:aws:iam::000000000000:role/r"),
            ("AWS_ENDPOINT_URL_STS", &sts.uri()),
        ],
    )
    .await;
    assert!(said.contains("ERROR auth AWS keys could not be had: "), "{said}");
    assert!(!said.contains("the-token"), "{said}");
}

fn keys_of_a_place() -> ResponseTemplate {
    let ends = in_half_an_hour();
    ResponseTemplate::new(200).set_body_json(json!({
        "Code": "Success", "AccessKeyId": "ASIA2", "SecretAccessKey": "s2", "Token": "t2",
        "Expiration": ends,
    }))
}

#[tokio::test]
async fn a_container_is_asked() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .and(path("/keys"))
        .and(header("authorization", "the-token"))
        .respond_with(keys_of_a_place())
        .mount(&server)
        .await;
    let said = asked(
        home().path(),
        &[
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{}/keys", server.uri())),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "the-token"),
            NO_INSTANCE,
        ],
    )
    .await;
    assert!(said.ends_with(r#"FOUND "ASIA2\ns2\nt2" 29"#), "{said}");
}

#[tokio::test]
async fn an_instance_is_asked_with_a_session_of_its_own() {
    let server = MockServer::start().await;
    Mock::given(method("PUT"))
        .and(path("/latest/api/token"))
        .respond_with(
            ResponseTemplate::new(200)
                .set_body_string("session")
                .insert_header("x-aws-ec2-metadata-token-ttl-seconds", "21600"),
        )
        .mount(&server)
        .await;
    let root = "/latest/meta-data/iam/security-credentials/";
    for (at, answer) in [
        (root.to_owned(), ResponseTemplate::new(200).set_body_string("role")),
        (format!("{root}role"), keys_of_a_place()),
    ] {
        Mock::given(method("GET"))
            .and(path(at))
            .and(header_exists("x-aws-ec2-metadata-token"))
            .respond_with(answer)
            .mount(&server)
            .await;
    }
    let said = asked(home().path(), &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &server.uri())]).await;
    assert!(said.ends_with(r#"FOUND "ASIA2\ns2\nt2" 29"#), "{said}");
}

#[tokio::test]
async fn nothing_anywhere_says_what_to_set() {
    let said = asked(home().path(), &[NO_INSTANCE]).await;
    assert_eq!(said, format!("REGION None; ERROR auth {NONE}"));
    for name in ["AWS_BEARER_TOKEN_BEDROCK", "vendors.bedrock.api_key", "AWS_ACCESS_KEY_ID"] {
        assert!(NONE.contains(name));
    }
}
