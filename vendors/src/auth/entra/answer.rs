//! Reads what a token endpoint answers; pure.

use chrono::{DateTime, TimeDelta, Utc};
use http::HeaderMap;
use inferq_common::error::ErrorClass;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    auth::token::Fetched,
    error::{VendorError, excerpt, shorten},
    hint,
};

/// Longer lives are a mistake; Entra's own end after a day.
const LONGEST: i64 = 7 * 24 * 60 * 60;

/// The document of a token. The metadata service writes its numbers in quotes.
#[derive(Deserialize)]
struct Granted {
    access_token: SecretString,
    expires_in: Value,
}

/// The token of an answer.
///
/// # Errors
/// `Auth` if the credential was refused; `Transient` for what may pass; `Protocol` for what is no
/// token.
pub(super) fn read(
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    now: DateTime<Utc>,
) -> Result<Fetched, VendorError> {
    if status != 200 {
        return Err(refused(status, headers, &String::from_utf8_lossy(body), now));
    }
    let granted: Option<Granted> = serde_json::from_slice(body).ok();
    let granted = granted.and_then(|granted| {
        let seconds = match granted.expires_in {
            Value::String(text) => text.trim().parse().ok()?,
            number => number.as_i64()?,
        };
        Some((granted.access_token, seconds))
    });
    match granted {
        Some((token, seconds)) if (1..=LONGEST).contains(&seconds) => {
            Ok((token, now + TimeDelta::seconds(seconds)))
        }
        _ => {
            // The body may hold a token after all: it is not shown.
            let message = "Microsoft Entra answered 200 without a token";
            Err(VendorError::new(ErrorClass::Protocol, message))
        }
    }
}

/// `{"error": "invalid_client", "error_description": "AADSTS7000215: …"}`.
fn refused(status: u16, headers: &HeaderMap, body: &str, now: DateTime<Utc>) -> VendorError {
    let document: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |key| document.get(key).and_then(Value::as_str);
    let said = excerpt(text("error_description").unwrap_or(body));
    let is_passing = matches!(text("error"), Some("temporarily_unavailable" | "server_error"));
    let class = match status {
        _ if is_passing => ErrorClass::Transient,
        // The metadata service answers 404 and 410 while it is brought up to date.
        404 | 408 | 410 | 429 | 500.. => ErrorClass::Transient,
        _ => ErrorClass::Auth,
    };
    let message = format!(
        "Microsoft Entra handed out no token ({status}): {said}; check tenant_id, client_id and \
         client_secret of vendors.azure"
    );
    let mut error = VendorError::new(class, message);
    error.error.vendor_status = Some(status);
    error.error.vendor_code = text("error").map(|code| shorten(code, 100));
    if class.is_transient() {
        error.retry_after = hint::retry_after(headers, None, "", now);
    }
    error
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn parsed(status: u16, body: &str) -> Result<(String, i64), VendorError> {
        let now = DateTime::UNIX_EPOCH;
        let (token, end) = read(status, &HeaderMap::new(), body.as_bytes(), now)?;
        Ok((token.expose_secret().to_owned(), end.timestamp()))
    }

    #[test]
    fn a_token_ends_when_it_says() {
        let body = r#"{"token_type":"Bearer","expires_in":3599,"access_token":"t"}"#;
        assert_eq!(parsed(200, body).unwrap(), ("t".to_owned(), 3599));
        let metadata = r#"{"access_token":"t","expires_in":"86399","resource":"r"}"#;
        assert_eq!(parsed(200, metadata).unwrap(), ("t".to_owned(), 86399));
    }

    #[test]
    fn what_is_no_token_is_not_shown() {
        for body in [
            "",
            "<html>",
            "{}",
            r#"{"access_token":"hunter2"}"#,
            r#"{"access_token":"hunter2","expires_in":0}"#,
            r#"{"access_token":"hunter2","expires_in":-5}"#,
            r#"{"access_token":"hunter2","expires_in":99999999999999}"#,
            r#"{"access_token":"hunter2","expires_in":"soon"}"#,
            r#"{"access_token":7,"expires_in":10}"#,
        ] {
            let error = parsed(200, body).unwrap_err();
            assert_eq!(error.class(), ErrorClass::Protocol, "{body}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn a_refusal_is_told_from_what_may_pass() {
        use ErrorClass::{Auth, Transient};
        let refused = r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided."}"#;
        for (status, body, class) in [
            (401, refused, Auth),
            (400, r#"{"error":"unauthorized_client","error_description":"x"}"#, Auth),
            (400, r#"{"error":"invalid_request","error_description":"Identity not found"}"#, Auth),
            (400, r#"{"error":"temporarily_unavailable"}"#, Transient),
            (404, "", Transient),
            (410, "", Transient),
            (429, "", Transient),
            (500, "oops", Transient),
            (503, "", Transient),
        ] {
            assert_eq!(parsed(status, body).unwrap_err().class(), class, "{status} {body}");
        }
        let error = parsed(401, refused).unwrap_err();
        assert_eq!(error.error.vendor_code.as_deref(), Some("invalid_client"));
        assert_eq!(
            error.to_string(),
            "Microsoft Entra handed out no token (401): AADSTS7000215: Invalid client secret \
             provided.; check tenant_id, client_id and client_secret of vendors.azure"
        );
    }
}
