//! Signs requests to AWS (Signature Version 4), by a clock that can be set right.
//!
//! Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html>.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::SystemTime,
};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign as signature_of},
    sign::v4,
};
use chrono::{DateTime, TimeDelta, Utc};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_TYPE, DATE},
};
use inferq_common::error::ErrorClass;
use secrecy::ExposeSecret as _;

use super::aws::Keys;
use crate::{error::VendorError, remote::Request};

/// AWS lets clocks differ by five minutes; a smaller difference is not what it complains about, and
/// its `Date` has whole seconds.
const LEAST_SKEW: TimeDelta = TimeDelta::minutes(2);

/// Where a signature is good.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    pub region: &'a str,
    pub service: &'a str,
}

/// Adds `Authorization`, `x-amz-date` and, for temporary keys, `x-amz-security-token`.
///
/// The path is signed as it will go out, percent-encoded once more as AWS wants it; the body by the
/// hash of its bytes. `at` must be within five minutes of AWS's clock.
///
/// # Errors
/// `Auth` for keys that cannot be signed with.
pub fn sign(
    request: &mut Request,
    keys: &Keys,
    scope: Scope<'_>,
    at: DateTime<Utc>,
) -> Result<(), VendorError> {
    let token = keys.session_token.as_ref().map(|token| token.expose_secret().to_owned());
    let secret = keys.secret_access_key.expose_secret();
    let identity = Credentials::new(&keys.access_key_id, secret, token, None, "inferq").into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(scope.region)
        .name(scope.service)
        .time(SystemTime::from(at))
        .settings(SigningSettings::default())
        .build()
        .map_err(cannot_sign)?
        .into();
    let headers = request.headers.iter().filter(|(name, _)| is_signed(name));
    let headers = headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let signable = SignableRequest::new(
        request.method.as_str(),
        request.url.as_str(),
        headers,
        SignableBody::Bytes(&request.body),
    )
    .map_err(cannot_sign)?;
    let (instructions, _) = signature_of(signable, &params).map_err(cannot_sign)?.into_parts();
    let (headers, _) = instructions.into_parts();
    for header in headers {
        let mut value = HeaderValue::from_str(header.value()).map_err(cannot_sign)?;
        value.set_sensitive(true);
        request.headers.insert(HeaderName::from_static(header.name()), value);
    }
    Ok(())
}

/// Of the rest, what lies on the way may change any.
fn is_signed(name: &HeaderName) -> bool {
    name == CONTENT_TYPE || name.as_str().starts_with("x-amz")
}

/// The error itself may repeat what it could not use.
fn cannot_sign<E>(_: E) -> VendorError {
    let message = "the request cannot be signed with these AWS keys; check that they are whole";
    VendorError::new(ErrorClass::Auth, message)
}

/// How far AWS's clock is ahead of this machine's.
#[derive(Debug, Default)]
pub struct Skew {
    seconds: AtomicI64,
}

impl Skew {
    /// AWS's time when this machine's clock says `now`, as far as it has been told.
    pub fn corrected(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let seconds = TimeDelta::seconds(self.seconds.load(Ordering::Relaxed));
        now.checked_add_signed(seconds).unwrap_or(now)
    }

    /// Takes AWS's time from the head of an answer; whether that changes much.
    pub fn learn(&self, headers: &HeaderMap, now: DateTime<Utc>) -> bool {
        let Some(ahead) = ahead(headers, now) else { return false };
        let before = self.seconds.swap(ahead.num_seconds(), Ordering::Relaxed);
        (ahead - TimeDelta::seconds(before)).abs() >= LEAST_SKEW
    }
}

/// How far the clock of whoever answered is ahead of ours.
pub fn ahead(headers: &HeaderMap, now: DateTime<Utc>) -> Option<TimeDelta> {
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    Some(DateTime::<Utc>::from(date) - now)
}

#[cfg(test)]
mod tests {
    use http::Method;
    use secrecy::SecretString;

    use super::*;

    fn keys(token: Option<&str>) -> Keys {
        Keys {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            session_token: token.map(SecretString::from),
        }
    }

    fn signed(path: &str, token: Option<&str>) -> HeaderMap {
        let url = format!("https://bedrock-runtime.us-east-1.amazonaws.com{path}");
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("accept", HeaderValue::from_static("application/json"));
        let body = r#"{"messages":[{"role":"user","content":[{"text":"hi"}]}]}"#;
        let mut request =
            Request { method: Method::POST, url: url.parse().unwrap(), headers, body: body.into() };
        assert_eq!(request.url.path(), path);
        let scope = Scope { region: "us-east-1", service: "bedrock" };
        sign(&mut request, &keys(token), scope, noon()).unwrap();
        request.headers
    }

    fn noon() -> DateTime<Utc> {
        "2026-11-20T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_signature_is_the_one_other_implementations_compute() {
        let headers = signed("/model/us.amazon.nova-micro-v1%3A0/converse", None);
        assert_eq!(
            headers["authorization"],
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261120/us-east-1/bedrock/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=95ed122b6c7a98c550f1a649bea1e0d0648f200c45492c5db296b1c73153cb77"
        );
        assert_eq!(headers["x-amz-date"], "20261120T120000Z");
        assert!(!headers.contains_key("x-amz-security-token"));
    }

    #[test]
    fn so_is_that_of_temporary_keys_and_a_path_with_encoded_slashes() {
        let headers = signed(
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A000000000000%3Ainference-profile%2F\
             us.amazon.nova-micro-v1%3A0/converse-stream",
            Some("SESSIONTOKENEXAMPLE"),
        );
        let authorization = headers["authorization"].to_str().unwrap();
        assert!(authorization.contains(
            "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, \
             Signature=9822e536faf5d6cb2e2761ebd2f0d0eccda7a6b3e8237e36dcf3370e440d543f"
        ));
        assert_eq!(headers["x-amz-security-token"], "SESSIONTOKENEXAMPLE");
        assert!(headers.values().filter(|value| value.is_sensitive()).count() >= 2);
    }

    #[test]
    fn the_clock_is_set_by_what_aws_says() {
        let skew = Skew::default();
        let says =
            |date: &'static str| HeaderMap::from_iter([(DATE, HeaderValue::from_static(date))]);
        assert!(!skew.learn(&HeaderMap::new(), noon()));
        assert!(!skew.learn(&says("Fri, 20 Nov 2026 12:01:00 GMT"), noon()));
        assert!(skew.learn(&says("Fri, 20 Nov 2026 12:31:00 GMT"), noon()));
        assert_eq!(skew.corrected(noon()), noon() + TimeDelta::minutes(31));
        // The same again is no news.
        assert!(!skew.learn(&says("Fri, 20 Nov 2026 12:31:01 GMT"), noon()));
        assert!(skew.learn(&says("Fri, 20 Nov 2026 10:00:00 GMT"), noon()));
        assert_eq!(skew.corrected(noon()), noon() - TimeDelta::hours(2));
        assert!(!skew.learn(&says("noon"), noon()));
    }
}
