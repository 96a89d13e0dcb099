//! Why an attempt failed, as the queue understands it.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use inferq_common::{
    error::{ErrorClass, JobError},
    usage::Usage,
    vendor::Vendor,
};

/// A failed attempt: the error to keep, and what the vendor said about trying again.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", .error.message)]
pub struct VendorError {
    pub error: JobError,
    /// The wait the vendor asked for.
    pub retry_after: Option<Duration>,
    /// What the failed attempt consumed all the same.
    pub usage: Usage,
}

impl VendorError {
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { error: JobError::new(class, message), retry_after: None, usage: Usage::default() }
    }

    pub fn class(&self) -> ErrorClass {
        self.error.class
    }

    /// The same with the wait the vendor asked for, if another attempt can help.
    #[must_use]
    pub(crate) fn after(self, wait: Option<Duration>) -> Self {
        Self { retry_after: wait.filter(|_| self.class().is_transient()), ..self }
    }
}

/// What `x-should-retry: false` makes of a failure that would have been tried again.
const NOT_AGAIN: &str = "the vendor asked not to be asked again, though it names no fault of the \
                         request: try again later, or ask its support with the request id";

/// Lets the header `x-should-retry` win over the class, but never for what somebody has to pay or
/// allow first, nor over a body that names (`is_named`) what is wrong with the request.
pub(crate) fn obey_should_retry(
    mut failed: VendorError,
    headers: &HeaderMap,
    is_named: bool,
) -> VendorError {
    let error = &mut failed.error;
    match headers.get("x-should-retry").map(HeaderValue::as_bytes) {
        Some(b"false") if error.class.is_transient() => {
            if error.class == ErrorClass::RateLimited {
                error.class = ErrorClass::QuotaExhausted;
            } else {
                error.class = ErrorClass::InvalidRequest;
                error.hint = Some(NOT_AGAIN.to_owned());
            }
            error.message.push_str(" (the vendor says that another attempt would not help)");
        }
        Some(b"true")
            if !is_named
                && matches!(error.class, ErrorClass::InvalidRequest | ErrorClass::NotFound) =>
        {
            error.class = ErrorClass::Transient;
        }
        _ => {}
    }
    failed
}

/// What cannot be sent to the vendor at all.
pub fn invalid(message: impl Into<String>) -> VendorError {
    VendorError::new(ErrorClass::InvalidRequest, message)
}

/// An adapter cannot be made from its configuration.
#[derive(Debug, thiserror::Error)]
#[error("vendors.{vendor}: {reason}")]
pub struct BuildError {
    pub vendor: Vendor,
    /// One sentence for an operator, naming the key to change where one is at fault.
    pub reason: String,
}

/// What an HTTP status other than 2xx means where the body does not say more.
pub fn class_of_status(status: u16) -> ErrorClass {
    match status {
        401 | 403 => ErrorClass::Auth,
        402 => ErrorClass::QuotaExhausted,
        404 | 410 => ErrorClass::NotFound,
        408 | 409 | 425 => ErrorClass::Transient,
        429 => ErrorClass::RateLimited,
        503 | 529 => ErrorClass::Overloaded,
        // With 501 and 505 the server says that it will never be able to.
        400..=499 | 501 | 505 => ErrorClass::InvalidRequest,
        500.. => ErrorClass::Transient,
        // Informational answers and redirects, which no vendor documents.
        _ => ErrorClass::Protocol,
    }
}

/// Says what the vendor answered, with the beginning of its own `text`. `status` is `None` for an
/// error inside a 2xx answer.
pub(crate) fn answered(status: Option<u16>, text: &str) -> String {
    let text = excerpt(text);
    let answered = match status {
        Some(status) => format!("the vendor answered {status}"),
        None => "the vendor answered an error".to_owned(),
    };
    let code = status.and_then(|status| http::StatusCode::from_u16(status).ok());
    match (text.is_empty(), code.and_then(|code| code.canonical_reason())) {
        (false, _) => format!("{answered}: {text}"),
        (true, Some(reason)) => format!("{answered} ({reason})"),
        (true, None) => answered,
    }
}

/// How much of a vendor's text an error repeats.
const MAX_EXCERPT_CHARS: usize = 400;

/// The beginning of a vendor's text on one line, for an error message.
pub fn excerpt(text: &str) -> String {
    shorten(text, MAX_EXCERPT_CHARS)
}

/// Stands where a text was cut off.
pub(crate) const CUT: char = '…';

/// At most `max` characters of `text`, white space and control characters folded into one space.
pub(crate) fn shorten(text: &str, max: usize) -> String {
    let mut short = String::new();
    let mut n_chars = 0;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !short.is_empty() {
            short.push(' ');
            n_chars += 1;
        }
        for c in word.chars() {
            if n_chars >= max {
                short.push(CUT);
                return short;
            }
            short.push(c);
            n_chars += 1;
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_class() {
        use ErrorClass::{
            Auth, InvalidRequest, NotFound, Overloaded, Protocol, QuotaExhausted, RateLimited,
            Transient,
        };
        for (class, statuses) in [
            (InvalidRequest, [400, 405, 413, 415, 422, 501].as_slice()),
            (Auth, &[401, 403]),
            (QuotaExhausted, &[402]),
            (NotFound, &[404, 410]),
            (Transient, &[408, 409, 425, 500, 502, 504, 520, 522, 524, 599]),
            (RateLimited, &[429]),
            (Overloaded, &[503, 529]),
            (Protocol, &[101, 301, 302, 304, 307]),
        ] {
            for &status in statuses {
                assert_eq!(class_of_status(status), class, "{status}");
            }
        }
    }

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(excerpt("  a\r\n\t b\u{0} c "), "a b c");
        assert_eq!(excerpt(&"é".repeat(500)), format!("{}…", "é".repeat(400)));
        assert_eq!(excerpt(&"é".repeat(400)), "é".repeat(400));
        assert_eq!(shorten("abc def", 3), "abc …");
    }
}
