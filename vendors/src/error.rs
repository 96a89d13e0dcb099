//! Why an attempt failed, as the queue understands it.

use std::time::Duration;

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
