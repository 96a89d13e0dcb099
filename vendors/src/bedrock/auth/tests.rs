use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::TimeDelta;
use http::{HeaderMap, Method, header::AUTHORIZATION};
use secrecy::SecretString;

use super::*;
use crate::error::VendorError;

fn noon() -> DateTime<Utc> {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

fn auth(config: &VendorConfig, keyring: Keyring) -> Auth {
    let place = Arc::new(Place::of(config).unwrap());
    let mut auth = Auth::of(config, place).unwrap();
    if let Proof::Signature(signer) = &mut auth.proof {
        signer.keyring = keyring;
    }
    auth
}

fn config(base_url: Option<&str>, region: Option<&str>) -> VendorConfig {
    VendorConfig {
        base_url: base_url.map(|url| url.parse().unwrap()),
        region: region.map(str::to_owned),
        ..VendorConfig::default()
    }
}

fn request(auth: &Auth) -> Request {
    Request {
        method: Method::POST,
        url: auth.place.base_url().join("/model/a/converse").unwrap(),
        headers: HeaderMap::new(),
        body: "{}".into(),
    }
}

/// Keys `ASIA1`, `ASIA2` and so on.
fn numbered() -> Keyring {
    let n_fetches = Arc::new(AtomicUsize::new(0));
    Keyring::found(Box::new(move |now| {
        let number = n_fetches.fetch_add(1, Ordering::SeqCst) + 1;
        let joined = SecretString::from(format!("ASIA{number}\nsecret-{number}\ntoken-{number}"));
        Box::pin(async move { Ok((joined, now + TimeDelta::hours(1))) })
    }))
}

fn none() -> Keyring {
    Keyring::found(Box::new(|_| {
        Box::pin(async { Err(VendorError::new(ErrorClass::Auth, "there are no keys")) })
    }))
}

fn refused(code: &str, message: &str) -> VendorError {
    let mut error = VendorError::new(ErrorClass::Auth, message);
    error.error.vendor_code = Some(code.to_owned());
    error
}

#[tokio::test]
async fn keys_that_ended_early_are_fetched_anew_for_one_more_try() {
    let auth = auth(&config(None, Some("us-east-1")), numbered());
    let mut first = request(&auth);
    auth.authorize(&mut first, noon()).await.unwrap();
    assert_eq!(key_id(&first.headers[AUTHORIZATION]), Some("ASIA1"));
    assert_eq!(first.headers["x-amz-security-token"], "token-1");
    let error = refused("ExpiredTokenException", "The security token is expired");
    let headers = HeaderMap::new();
    let authorization = first.headers.get(AUTHORIZATION);
    let refusal = Refusal { authorization, headers: &headers, error: &error, now: noon() };
    assert!(auth.is_refreshable());
    assert!(auth.learn(refusal).await);
    let mut second = request(&auth);
    auth.authorize(&mut second, noon()).await.unwrap();
    assert_eq!(key_id(&second.headers[AUTHORIZATION]), Some("ASIA2"));
}

#[tokio::test]
async fn a_missing_permission_is_no_reason_to_try_again() {
    let auth = auth(&config(None, Some("us-east-1")), numbered());
    let mut first = request(&auth);
    auth.authorize(&mut first, noon()).await.unwrap();
    let error = refused("AccessDeniedException", "You don't have access to the model");
    let authorization = first.headers.get(AUTHORIZATION);
    let headers = HeaderMap::new();
    let refusal = Refusal { authorization, headers: &headers, error: &error, now: noon() };
    assert!(!auth.learn(refusal).await);
}

#[tokio::test]
async fn without_keys_aws_is_not_called_and_another_address_is_called_without() {
    let aws = auth(&config(None, Some("us-east-1")), none());
    let error = aws.authorize(&mut request(&aws), noon()).await.unwrap_err();
    assert_eq!(error.to_string(), "there are no keys");
    let other = auth(&config(Some("http://127.0.0.1:9"), None), none());
    let mut request = request(&other);
    other.authorize(&mut request, noon()).await.unwrap();
    assert!(request.headers.is_empty());
}

#[tokio::test]
async fn an_api_key_goes_before_keys_that_are_set() {
    let with_both = VendorConfig {
        api_key: Some("bedrock-api-key".into()),
        access_key_id: Some("AKID".into()),
        secret_access_key: Some("secret".into()),
        ..config(None, Some("eu-west-1"))
    };
    let auth = Auth::of(&with_both, Arc::new(Place::of(&with_both).unwrap())).unwrap();
    let mut request = request(&auth);
    auth.authorize(&mut request, noon()).await.unwrap();
    assert_eq!(request.headers[AUTHORIZATION], "Bearer bedrock-api-key");
    assert_eq!(request.url.host_str(), Some("bedrock-runtime.eu-west-1.amazonaws.com"));
    assert!(!auth.is_refreshable());
}

#[tokio::test]
async fn each_service_is_signed_for_in_its_own_region() {
    for (url, scope) in [
        ("https://bedrock-mantle.us-west-2.api.aws", "us-west-2/bedrock-mantle/aws4_request"),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com", "eu-west-1/bedrock/aws4_request"),
        ("http://127.0.0.1:9", "us-east-1/bedrock/aws4_request"),
    ] {
        let auth = auth(&config(Some(url), Some("us-east-1")), numbered());
        let mut request = request(&auth);
        auth.authorize(&mut request, noon()).await.unwrap();
        let authorization = request.headers[AUTHORIZATION].to_str().unwrap();
        assert!(authorization.contains(scope), "{authorization}");
    }
}
