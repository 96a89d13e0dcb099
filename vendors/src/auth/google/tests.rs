use std::{collections::HashMap, fs};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use futures::future::join_all;
use http::{HeaderMap, Method};
use ring::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{header, method, path},
};

use super::*;

/// Made for these tests; opens nothing.
const KEY: &str = include_str!("test_key.pem");

fn noon() -> DateTime<Utc> {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

fn key_file(server: &MockServer) -> Value {
    json!({
        "type": "service_account",
        "client_email": "robot@my-project.iam.gserviceaccount.com",
        "private_key": KEY,
        "private_key_id": "key-1",
        "project_id": "my-project",
        "token_uri": format!("{}/token", server.uri()),
    })
}

fn with_account(account: &Value) -> VendorConfig {
    VendorConfig { service_account: Some(account.to_string().into()), ..VendorConfig::default() }
}

/// Reads its credentials from a file that goes away with the folder.
fn of_file(credentials: &Value) -> (tempfile::TempDir, Google) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials.json");
    fs::write(&file, credentials.to_string()).unwrap();
    // No proxy leads to what speaks plain HTTP.
    let proxy = Some("http://127.0.0.1:1".parse().unwrap());
    let config = VendorConfig { credentials_file: Some(file), proxy, ..VendorConfig::default() };
    let google = Google::new(&config, &Clients::default(), None).unwrap();
    (folder, google)
}

fn token(number: u32) -> ResponseTemplate {
    let token = json!({"access_token": format!("token-number-{number}"), "expires_in": 3600});
    ResponseTemplate::new(200).set_body_json(token)
}

/// A server that answers every POST to `/token` with this.
async fn endpoint(answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).and(path("/token")).respond_with(answer).mount(&server).await;
    server
}

async fn headers(google: &Google, now: DateTime<Utc>) -> Result<HeaderMap, VendorError> {
    let mut request = Request {
        method: Method::POST,
        url: "http://vendor.example/".parse().unwrap(),
        headers: HeaderMap::new(),
        body: bytes::Bytes::new(),
    };
    google.authorize(&mut request, now).await?;
    Ok(request.headers)
}

async fn authorization(google: &Google, now: DateTime<Utc>) -> Result<String, VendorError> {
    let headers = headers(google, now).await?;
    Ok(headers[AUTHORIZATION].to_str().unwrap().to_owned())
}

async fn forms(server: &MockServer) -> Vec<HashMap<String, String>> {
    let requests = server.received_requests().await.unwrap();
    requests
        .iter()
        .map(|request| url::form_urlencoded::parse(&request.body).into_owned().collect())
        .collect()
}

#[tokio::test]
async fn a_service_account_signs_who_it_is() {
    let server = endpoint(token(1)).await;
    let config = with_account(&key_file(&server));
    assert_eq!(project_of(&config).unwrap().as_deref(), Some("my-project"));
    let google = Google::new(&config, &Clients::default(), None).unwrap();
    assert_eq!(authorization(&google, noon()).await.unwrap(), "Bearer token-number-1");

    let form = &forms(&server).await[0];
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let parts: Vec<&str> = form["assertion"].split('.').collect();
    let json = |part: &str| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    assert_eq!(json(parts[0]), json!({"alg": "RS256", "typ": "JWT", "kid": "key-1"}));
    let issued_at = noon().timestamp() - 10;
    assert_eq!(
        json(parts[1]),
        json!({
            "iss": "robot@my-project.iam.gserviceaccount.com",
            "scope": "https://www.googleapis.com/auth/cloud-platform",
            "aud": format!("{}/token", server.uri()),
            "iat": issued_at,
            "exp": issued_at + 3600,
        })
    );
    let der = PrivatePkcs8KeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let key = ring::signature::RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref());
    let signed = format!("{}.{}", parts[0], parts[1]);
    let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    public.verify(signed.as_bytes(), &signature).unwrap();
}

#[tokio::test]
async fn one_refresh_serves_a_hundred_and_lasts_until_minutes_before_the_end() {
    let server = endpoint(token(1)).await;
    let config = with_account(&key_file(&server));
    let google = Google::new(&config, &Clients::default(), None).unwrap();
    for (minutes, n_fetches) in [(0, 1), (54, 1), (56, 2)] {
        let now = noon() + TimeDelta::minutes(minutes);
        let all = join_all((0..100).map(|_| authorization(&google, now))).await;
        assert!(all.iter().all(|one| one.as_deref() == Ok("Bearer token-number-1")));
        assert_eq!(forms(&server).await.len(), n_fetches, "after {minutes} minutes");
    }
}

#[tokio::test]
async fn a_refused_token_is_fetched_anew_once() {
    let server = endpoint(token(1)).await;
    let config = with_account(&key_file(&server));
    let google = Google::new(&config, &Clients::default(), None).unwrap();
    assert!(google.is_refreshable());
    authorization(&google, noon()).await.unwrap();
    for _ in 0..100 {
        google.refused().await;
        authorization(&google, noon()).await.unwrap();
    }
    assert_eq!(forms(&server).await.len(), 2);
}

#[tokio::test]
async fn a_refused_key_says_what_may_be_wrong() {
    let answer = json!({"error": "invalid_grant", "error_description": "Invalid JWT Signature."});
    let server = endpoint(ResponseTemplate::new(400).set_body_json(answer)).await;
    let config = with_account(&key_file(&server));
    let google = Google::new(&config, &Clients::default(), None).unwrap();
    let error = authorization(&google, noon()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Auth);
    assert_eq!(error.error.vendor_status, Some(400));
    assert_eq!(error.error.vendor_code.as_deref(), Some("invalid_grant"));
    let words = error.to_string();
    for part in ["invalid_grant: Invalid JWT Signature.", "revoked", "clock"] {
        assert!(words.contains(part), "{words}");
    }
}

#[tokio::test]
async fn an_endpoint_in_trouble_passes() {
    for status in [408, 429, 500, 503] {
        let server = endpoint(ResponseTemplate::new(status).set_body_string("later")).await;
        let config = with_account(&key_file(&server));
        let google = Google::new(&config, &Clients::default(), None).unwrap();
        let error = authorization(&google, noon()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Transient, "{status}");
    }
    let mut gone = key_file(&MockServer::start().await);
    gone["token_uri"] = "http://127.0.0.1:1/token".into();
    let google = Google::new(&with_account(&gone), &Clients::default(), None).unwrap();
    let error = authorization(&google, noon()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
    assert!(error.to_string().starts_with("fetching a Google access token: "), "{error}");

    let server = endpoint(ResponseTemplate::new(200).set_body_json(json!({"id_token": "x"}))).await;
    let config = with_account(&key_file(&server));
    let google = Google::new(&config, &Clients::default(), None).unwrap();
    let error = authorization(&google, noon()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Protocol);
}

#[tokio::test]
async fn a_login_refreshes_its_token_and_names_the_project_that_pays() {
    let server = endpoint(token(7)).await;
    let (_folder, google) = of_file(&json!({
        "type": "authorized_user",
        "client_id": "client",
        "client_secret": "client-secret",
        "refresh_token": "refresh-token",
        "token_uri": format!("{}/token", server.uri()),
        "quota_project_id": "payer",
    }));
    let headers = headers(&google, noon()).await.unwrap();
    assert_eq!(headers[AUTHORIZATION], "Bearer token-number-7");
    assert_eq!(headers["x-goog-user-project"], "payer");
    let form = &forms(&server).await[0];
    let expected = [
        ("grant_type", "refresh_token"),
        ("client_id", "client"),
        ("client_secret", "client-secret"),
        ("refresh_token", "refresh-token"),
    ];
    assert_eq!(*form, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
}

#[tokio::test]
async fn what_an_endpoint_repeats_of_a_secret_is_not_shown() {
    let words = json!({"error": "invalid_grant", "error_description": "bad refresh-token"});
    let server = endpoint(ResponseTemplate::new(400).set_body_json(words)).await;
    let (_folder, google) = of_file(&json!({
        "type": "authorized_user",
        "client_id": "client",
        "client_secret": "client-secret",
        "refresh_token": "refresh-token",
        "token_uri": format!("{}/token", server.uri()),
    }));
    let error = authorization(&google, noon()).await.unwrap_err();
    assert!(error.to_string().contains("bad ***"), "{error}");
    let debug = format!("{google:?}");
    assert!(!debug.contains("client-secret"), "{debug}");
}

/// Answers as STS and as the endpoint of impersonation do.
async fn federation() -> MockServer {
    let server = endpoint(token(1)).await;
    let answer = json!({"accessToken": "token-of-robot", "expireTime": "2026-11-20T13:00:00Z"});
    Mock::given(method("POST"))
        .and(path("/robot:generateAccessToken"))
        .and(header("authorization", "Bearer token-number-1"))
        .respond_with(ResponseTemplate::new(200).set_body_json(answer))
        .mount(&server)
        .await;
    Mock::given(method("GET"))
        .and(path("/subject"))
        .and(header("metadata", "True"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"id": "subject-token"})))
        .mount(&server)
        .await;
    server
}

#[tokio::test]
async fn a_token_of_another_provider_is_exchanged() {
    let server = federation().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("subject");
    fs::write(&file, "subject-token\n").unwrap();
    let of_url = json!({
        "url": format!("{}/subject", server.uri()),
        "headers": {"Metadata": "True"},
        "format": {"type": "json", "subject_token_field_name": "id"},
    });
    for source in [json!({ "file": file }), of_url] {
        let (_folder, google) = of_file(&json!({
            "type": "external_account",
            "audience": "//iam.googleapis.com/pool",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{}/token", server.uri()),
            "credential_source": source,
        }));
        assert_eq!(authorization(&google, noon()).await.unwrap(), "Bearer token-number-1");
        let form = forms(&server).await.pop().unwrap();
        for (key, value) in [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("audience", "//iam.googleapis.com/pool"),
            ("subject_token", "subject-token"),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
            ("scope", "https://www.googleapis.com/auth/cloud-platform"),
        ] {
            assert_eq!(form[key], value);
        }
    }
}

#[tokio::test]
async fn a_service_account_can_be_acted_as() {
    let server = federation().await;
    let url = format!("{}/robot:generateAccessToken", server.uri());
    let source = json!({ "url": format!("{}/subject", server.uri()), "headers": {"Metadata": "True"},
        "format": {"subject_token_field_name": "id"} });
    let external = json!({
        "type": "external_account",
        "audience": "a",
        "subject_token_type": "t",
        "token_url": format!("{}/token", server.uri()),
        "credential_source": source,
        "service_account_impersonation_url": url,
    });
    let impersonated = json!({
        "type": "impersonated_service_account",
        "service_account_impersonation_url": url,
        "source_credentials": key_file(&server),
    });
    for credentials in [external, impersonated] {
        let (_folder, google) = of_file(&credentials);
        assert_eq!(authorization(&google, noon()).await.unwrap(), "Bearer token-of-robot");
    }
}

#[tokio::test]
async fn sources_that_are_not_read_say_so() {
    let (_folder, google) = of_file(&json!({
        "type": "external_account",
        "audience": "a",
        "subject_token_type": "t",
        "token_url": "http://127.0.0.1:1/token",
        "credential_source": {"environment_id": "aws1", "region_url": "http://127.0.0.1:1"},
    }));
    let error = authorization(&google, noon()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Auth);
    assert!(error.to_string().contains("'file' or 'url'"), "{error}");
}

#[tokio::test]
async fn a_machine_of_google_cloud_hands_out_tokens() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .and(path("/metadata"))
        .and(header("metadata-flavor", "Google"))
        .respond_with(token(3))
        .mount(&server)
        .await;
    let metadata: Url = format!("{}/metadata", server.uri()).parse().unwrap();
    let ambient = Ambient { home: None, metadata: metadata.clone() };
    let google = Google::new(&VendorConfig::default(), &Clients::default(), Some(ambient)).unwrap();
    assert_eq!(authorization(&google, noon()).await.unwrap(), "Bearer token-number-3");

    // What gcloud left behind comes first.
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(WELL_KNOWN);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let login = endpoint(token(4)).await;
    fs::write(&file, key_file(&login).to_string()).unwrap();
    let ambient = Ambient { home: Some(home.path().to_owned()), metadata };
    let google = Google::new(&VendorConfig::default(), &Clients::default(), Some(ambient)).unwrap();
    assert_eq!(authorization(&google, noon()).await.unwrap(), "Bearer token-number-4");
}

#[tokio::test]
async fn without_any_credentials_it_says_what_to_set() {
    let metadata: Url = "http://127.0.0.1:1/metadata".parse().unwrap();
    let ambient = Ambient { home: Some("/no/such/home".into()), metadata };
    let google = Google::new(&VendorConfig::default(), &Clients::default(), Some(ambient)).unwrap();
    let error = authorization(&google, noon()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Auth);
    for part in ["vendors.vertex_ai.service_account", "GOOGLE_APPLICATION_CREDENTIALS"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let none = Google::new(&VendorConfig::default(), &Clients::default(), None).unwrap();
    assert!(!none.has_sources());
}

#[tokio::test]
async fn a_file_of_no_use_is_named_and_never_quoted() {
    let missing = VendorConfig {
        credentials_file: Some("/no/such/file.json".into()),
        ..VendorConfig::default()
    };
    let google = Google::new(&missing, &Clients::default(), None).unwrap();
    let error = authorization(&google, noon()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Auth);
    assert!(error.to_string().contains("/no/such/file.json"), "{error}");
    for (credentials, expected) in [
        (json!(["secret"]), "it is not a JSON object"),
        (json!({"secret": 1}), "it has no member 'type'"),
        (json!({"type": "gdch_service_account"}), "its type is none of"),
        (
            json!({"type": "authorized_user", "client_id": "secret"}),
            "missing field `client_secret`",
        ),
        (json!({"type": "service_account", "client_email": ["secret"]}), "a value of no use"),
    ] {
        let (_folder, google) = of_file(&credentials);
        let error = authorization(&google, noon()).await.unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("secret\""), "{error}");
    }
}

#[test]
fn a_setting_of_no_use_is_refused_at_the_start() {
    let refused = |account: &Value| {
        Google::new(&with_account(account), &Clients::default(), None).unwrap_err()
    };
    let login = json!({"type": "authorized_user", "client_id": "c", "client_secret": "s",
        "refresh_token": "r"});
    let bad_key =
        json!({"type": "service_account", "client_email": "e", "private_key": "not a key"});
    for (account, expected) in
        [(json!("x"), "not a JSON object"), (login, "not service_account"), (bad_key, "in PEM")]
    {
        let words = refused(&account);
        assert!(words.starts_with("service_account: ") && words.contains(expected), "{words}");
    }
    let empty = VendorConfig { service_account: Some(" ".into()), ..VendorConfig::default() };
    assert_eq!(project_of(&empty), Ok(None));
}
