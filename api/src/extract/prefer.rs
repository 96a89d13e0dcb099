//! The `Prefer` header: whether and how long the caller waits.
//!
//! Source: RFC 7240, <https://www.rfc-editor.org/rfc/rfc7240>.

use std::{convert::Infallible, time::Duration};

use axum::extract::FromRequestParts;
use http::{HeaderMap, HeaderValue, request::Parts};

/// What the caller prefers. Preferences that are unknown or malformed are ignored, as the RFC asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prefer {
    pub respond_async: bool,
    pub wait: Option<Duration>,
}

impl Prefer {
    /// Reads all `Prefer` headers; of repeated preferences the first counts.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut prefer = Self::default();
        for value in headers.get_all("prefer") {
            let Ok(value) = value.to_str() else { continue };
            for preference in split_outside_quotes(value, ',') {
                prefer.take(preference);
            }
        }
        prefer
    }

    fn take(&mut self, preference: &str) {
        // What follows a semicolon are parameters; neither preference has any.
        let Some(token) = split_outside_quotes(preference, ';').next() else { return };
        let (name, value) = token.split_once('=').unwrap_or((token, ""));
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "respond-async" => self.respond_async = true,
            "wait" => {
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                if digits && self.wait.is_none() {
                    // More digits than a u64 holds mean "as long as you can".
                    self.wait = Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
                }
            }
            _ => {}
        }
    }

    /// The value of `Preference-Applied`, if a preference was followed.
    pub fn applied(self) -> Option<HeaderValue> {
        let wait = self.wait.map(|wait| format!("wait={}", wait.as_secs()));
        let text = match (self.respond_async, wait) {
            (true, Some(wait)) => format!("respond-async, {wait}"),
            (true, None) => "respond-async".to_owned(),
            (false, Some(wait)) => wait,
            (false, None) => return None,
        };
        HeaderValue::try_from(text).ok()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Prefer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefer(values: &[&str]) -> Prefer {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("prefer", value.parse().unwrap());
        }
        Prefer::of(&headers)
    }

    #[test]
    fn several_headers_and_lists_are_one_set_of_preferences() {
        let wait = Some(Duration::from_secs(10));
        assert_eq!(prefer(&["respond-async, wait=10"]), Prefer { respond_async: true, wait });
        assert_eq!(prefer(&["respond-async", "wait=10"]), Prefer { respond_async: true, wait });
        assert_eq!(prefer(&["Wait = \"10\"; x=1"]), Prefer { respond_async: false, wait });
        assert_eq!(prefer(&["wait=10", "wait=20"]).wait, wait);
        assert_eq!(prefer(&["foo=\"a, respond-async\", return=minimal"]), Prefer::default());
        assert_eq!(prefer(&["wait=soon, wait=-1, wait=1.5"]), Prefer::default());
        assert_eq!(prefer(&["wait=99999999999999999999"]).wait.unwrap().as_secs(), u64::MAX);
    }
}
