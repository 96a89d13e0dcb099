use std::io::Write as _;

use futures::future::join_all;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{body_string_contains, header, method, path, query_param},
};

use super::*;

const RESOURCE: &str = "https://cognitiveservices.azure.com";

fn noon() -> DateTime<Utc> {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

fn config(change: impl FnOnce(&mut VendorConfig)) -> VendorConfig {
    let mut config = VendorConfig {
        tenant_id: Some("tenant-1".to_owned()),
        client_id: Some("client-1".to_owned()),
        ..VendorConfig::default()
    };
    change(&mut config);
    config
}

fn entra(config: &VendorConfig) -> Entra {
    Entra::of(config, RESOURCE, &Clients::default()).unwrap().unwrap()
}

fn granted(token: &str) -> ResponseTemplate {
    let body = serde_json::json!({"access_token": token, "expires_in": 3599});
    ResponseTemplate::new(200).set_body_json(body)
}

fn request() -> Request {
    let url = "https://resource.openai.azure.com/".parse().unwrap();
    Request { method: Method::POST, url, headers: HeaderMap::new(), body: Bytes::new() }
}

/// What a request is authorized with.
async fn authorization(entra: &Entra) -> Result<String, VendorError> {
    let mut request = request();
    entra.authorize(&mut request, noon()).await?;
    assert!(request.headers[AUTHORIZATION].is_sensitive());
    Ok(request.headers[AUTHORIZATION].to_str().unwrap().to_owned())
}

fn with_secret(server: &MockServer) -> Entra {
    entra(&config(|config| {
        config.authority_url = Some(server.uri().parse().unwrap());
        config.client_secret = Some("s3cr&t value".into());
    }))
}

#[tokio::test]
async fn a_client_secret_is_exchanged_once_for_a_hundred_calls() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/tenant-1/oauth2/v2.0/token"))
        .and(header("content-type", "application/x-www-form-urlencoded"))
        .and(body_string_contains("grant_type=client_credentials"))
        .and(body_string_contains("client_id=client-1"))
        .and(body_string_contains("client_secret=s3cr%26t+value"))
        .and(body_string_contains("scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default"))
        .respond_with(granted("entra-token-1"))
        .expect(1)
        .mount(&server)
        .await;
    let entra = with_secret(&server);
    let all = join_all((0..100).map(|_| authorization(&entra))).await;
    assert!(all.iter().all(|value| value.as_deref() == Ok("Bearer entra-token-1")));
}

#[tokio::test]
async fn a_refused_token_is_fetched_once_more() {
    let server = MockServer::start().await;
    for token in ["entra-token-1", "entra-token-2"] {
        Mock::given(method("POST"))
            .respond_with(granted(token))
            .up_to_n_times(1)
            .mount(&server)
            .await;
    }
    let entra = with_secret(&server);
    assert!(entra.is_refreshable());
    assert_eq!(authorization(&entra).await.unwrap(), "Bearer entra-token-1");
    entra.refused().await;
    assert_eq!(authorization(&entra).await.unwrap(), "Bearer entra-token-2");
}

#[tokio::test]
async fn a_workload_sends_the_token_of_its_cluster_as_it_is_by_then() {
    let server = MockServer::start().await;
    for (assertion, token) in [("cluster-1", "entra-token-1"), ("cluster-2", "entra-token-2")] {
        Mock::given(method("POST"))
            .and(body_string_contains(format!("client_assertion={assertion}&")))
            .and(body_string_contains("client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3A"))
            .respond_with(granted(token))
            .mount(&server)
            .await;
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "cluster-1").unwrap();
    let entra = entra(&config(|config| {
        config.authority_url = Some(server.uri().parse().unwrap());
        config.federated_token_file = Some(file.path().to_str().unwrap().to_owned());
    }));
    assert_eq!(authorization(&entra).await.unwrap(), "Bearer entra-token-1");
    std::fs::write(file.path(), "cluster-2\n").unwrap();
    entra.refused().await;
    assert_eq!(authorization(&entra).await.unwrap(), "Bearer entra-token-2");
}

#[tokio::test]
async fn a_federated_token_that_cannot_be_read_is_named() {
    let entra = entra(&config(|config| {
        config.federated_token_file = Some("/nowhere/token".to_owned());
    }));
    let error = authorization(&entra).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Auth);
    let message = error.to_string();
    assert!(message.starts_with("federated_token_file: cannot read /nowhere/token"), "{message}");
}

/// The identity of a machine whose metadata service is this server.
fn managed(uri: &str, client_id: Option<&str>) -> Entra {
    let endpoint: Url = format!("{uri}/metadata/identity/oauth2/token").parse().unwrap();
    let http = Clients::default().http(&endpoint, &VendorConfig::default()).unwrap();
    let client_id = client_id.map(str::to_owned);
    Entra::new(Identity::Managed { endpoint, client_id }, RESOURCE, http)
}

#[tokio::test]
async fn a_managed_identity_is_asked_of_the_machine() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .and(path("/metadata/identity/oauth2/token"))
        .and(header("metadata", "true"))
        .and(query_param("api-version", "2018-02-01"))
        .and(query_param("resource", RESOURCE))
        .and(query_param("client_id", "client-1"))
        .respond_with(granted("entra-token-1"))
        .mount(&server)
        .await;
    let entra = managed(&server.uri(), Some("client-1"));
    assert_eq!(authorization(&entra).await.unwrap(), "Bearer entra-token-1");
}

#[tokio::test]
async fn a_machine_without_a_metadata_service_is_told_from_a_refusal() {
    let error = authorization(&managed("http://127.0.0.1:1", None)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
    assert!(error.to_string().starts_with("no managed identity answers"), "{error}");
}

#[tokio::test]
async fn the_secret_and_the_token_are_never_shown() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .respond_with(granted("entra-token-1"))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    let body = r#"{"error":"invalid_client","error_description":"no s3cr&t value here"}"#;
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(401).set_body_string(body))
        .mount(&server)
        .await;
    let entra = with_secret(&server);
    authorization(&entra).await.unwrap();
    let mut words = "entra-token-1 and s3cr&t value".to_owned();
    entra.redact(&mut words);
    assert_eq!(words, "*** and ***");
    entra.refused().await;
    let error = authorization(&entra).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Auth);
    assert!(error.to_string().contains("no *** here"), "{error}");
    assert!(!format!("{entra:?}").contains("s3cr"), "{entra:?}");
}

#[test]
fn the_settings_say_who_asks_and_what_is_missing() {
    let of = |config: &VendorConfig| Entra::of(config, RESOURCE, &Clients::default());
    assert!(of(&VendorConfig::default()).unwrap().is_none());
    // A managed identity has to be asked for: away from Azure its address is nowhere.
    assert!(of(&config(|_| {})).unwrap().is_none());
    assert!(of(&config(|config| config.managed_identity = Some(true))).unwrap().is_some());
    let error = of(&config(|config| {
        config.tenant_id = None;
        config.client_secret = Some("secret-value".into());
    }));
    assert_eq!(error.unwrap_err(), "client_secret: needs tenant_id and client_id beside it");
    let error = of(&config(|config| {
        config.client_id = None;
        config.federated_token_file = Some("token".to_owned());
    }));
    assert_eq!(error.unwrap_err(), "federated_token_file: needs tenant_id and client_id beside it");
    let error = of(&config(|config| {
        config.tenant_id = Some("a/../b".to_owned());
        config.client_secret = Some("secret-value".into());
    }));
    assert_eq!(error.unwrap_err(), "tenant_id: must be the id or the domain of a tenant");
}
