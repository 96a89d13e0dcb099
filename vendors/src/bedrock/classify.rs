//! What a failure means to the queue; pure.
//!
//! Source: <https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html>.
//! Where Bedrock tells two failures apart in its text alone, this reads the text.

use chrono::{DateTime, Utc};
use http::HeaderMap;
use inferq_common::{
    error::{ErrorClass, JobError},
    usage::Usage,
};
use serde_json::Value;

use crate::{
    auth::sigv4,
    error::{VendorError, class_of_status, excerpt, shorten},
    hint,
    openai::{self, OPENAI},
    remote::Failure,
};

/// What would help against a refused credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The time in the signature.
    Time,
    /// Other keys.
    Keys,
}

const CONTEXT_LENGTH: &[&str] = &[
    "input is too long",
    "input tokens exceeded",
    "number of input tokens exceeds",
    "maximum context length",
    "exceeds the maximum number of tokens",
    "prompt is too long",
    "too many input tokens",
    "context window",
];
const NO_MODEL: &[&str] =
    &["model identifier is invalid", "could not resolve the foundation model"];
const BLOCKED: &[&str] =
    &["blocked by our content filter", "content filtering policy", "responsible ai policy"];
const TIME: &[&str] = &["signature expired", "signature not yet current", "requesttimetooskewed"];
/// Words for keys that ended, were taken back or never were; other refusals are about permissions.
const BAD_KEYS: &[&str] = &[
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

/// The error to keep of an answer that is not 2xx, or of a 2xx answer that holds an error.
pub(super) fn error(failure: Failure<'_>, now: DateTime<Utc>) -> VendorError {
    let document: Value = serde_json::from_str(failure.body).unwrap_or_default();
    if document.get("error").is_some() {
        return told(openai::classify::error(&OPENAI, failure, now), failure.headers, now);
    }
    let wire = Wire::of(&document, failure.headers);
    let text = wire.message.as_deref().unwrap_or(failure.body);
    let class = class(failure.status, wire.code.as_deref(), text);
    let said = match &wire.of_model {
        Some(model) => format!("{} (the model: {})", excerpt(text), excerpt(model)),
        None => excerpt(text),
    };
    let message = match failure.status {
        Some(status) if said.is_empty() => format!("the vendor answered {status}"),
        Some(status) => format!("the vendor answered {status}: {said}"),
        None => format!("the vendor answered an error: {said}"),
    };
    let retry_after = hint::retry_after(failure.headers, Some(&document), text, now);
    let error = VendorError {
        error: JobError {
            class,
            message,
            vendor_status: failure.status,
            vendor_code: wire.code.map(|code| shorten(&code, 100)),
            vendor_request_id: None,
            hint: None,
        },
        retry_after: retry_after.filter(|_| class.is_transient()),
        usage: Usage::default(),
    };
    told(error, failure.headers, now)
}

/// The error of an exception inside a stream; its kind begins with a small letter there.
pub(super) fn exception(kind: &str, payload: &str, now: DateTime<Utc>) -> VendorError {
    let document: Value = serde_json::from_str(payload).unwrap_or_default();
    let wire = Wire::of(&document, &HeaderMap::new());
    in_stream(kind, wire.message.as_deref().unwrap_or(payload), now)
}

/// The error of a stream that broke off, by its code and its words.
pub(super) fn in_stream(code: &str, words: &str, now: DateTime<Utc>) -> VendorError {
    let class = class(None, Some(code), words);
    let words = excerpt(words);
    let reason = if words.is_empty() { "no reason given" } else { &words };
    let message = format!("the vendor broke the stream off: {reason}");
    let mut error = VendorError::new(class, message);
    error.error.vendor_code = Some(shorten(code, 100)).filter(|code| !code.is_empty());
    let hint = hint::retry_after(&HeaderMap::new(), None, reason, now);
    error.retry_after = hint.filter(|_| class.is_transient());
    error
}

/// The error that a model's vendor put into a chunk: `{"type":"error","error":{"type","message"}}`.
pub(super) fn of_model(chunk: &str, now: DateTime<Utc>) -> VendorError {
    let document: Value = serde_json::from_str(chunk).unwrap_or_default();
    let error = document.get("error").unwrap_or(&document);
    let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
    in_stream(text("type"), text("message"), now)
}

/// What would help against the refusal, if anything but a person does.
pub(super) fn refused(error: &VendorError) -> Option<Refused> {
    let code = error.error.vendor_code.as_deref().unwrap_or_default();
    let message = error.error.message.as_str();
    if contains(message, TIME) {
        Some(Refused::Time)
    } else if BAD_KEYS.contains(&code)
        // Sessions of a role that were ended are denied everything.
        || contains(message, &["security token", "explicit deny"])
    {
        Some(Refused::Keys)
    } else {
        None
    }
}

/// What AWS's documents say about an error.
struct Wire {
    code: Option<String>,
    message: Option<String>,
    /// What the model itself answered, of a `ModelErrorException`.
    of_model: Option<String>,
}

impl Wire {
    /// The kind is in a header, with an address behind a colon, or in the body, with a namespace
    /// before a `#`.
    fn of(document: &Value, headers: &HeaderMap) -> Self {
        let text = |name: &str| document.get(name)?.as_str().map(str::to_owned);
        let header = headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
        let code = header.map(str::to_owned).or_else(|| text("__type")).or_else(|| text("code"));
        let code = code.map(|code| {
            let code = code.split(':').next().unwrap_or_default();
            code.rsplit('#').next().unwrap_or_default().to_owned()
        });
        Self {
            code: code.filter(|code| !code.is_empty()),
            message: text("message").or_else(|| text("Message")),
            of_model: text("originalMessage"),
        }
    }
}

fn class(status: Option<u16>, code: Option<&str>, text: &str) -> ErrorClass {
    if contains(text, CONTEXT_LENGTH) && !matches!(status, Some(429 | 500..)) {
        return ErrorClass::ContextLength;
    }
    let code = code.map(capitalised).unwrap_or_default();
    match code.as_str() {
        "ValidationException" | "BadRequestException" | "Invalid_request_error" => validation(text),
        "ServiceQuotaExceededException" => ErrorClass::QuotaExhausted,
        "ThrottlingException" | "TooManyRequestsException" | "Rate_limit_error" => throttled(text),
        "AccessDeniedException"
        | "MissingAuthenticationTokenException"
        | "MissingAuthenticationToken"
        | "NotAuthorized"
        | "OptInRequired"
        | "IncompleteSignature"
        | "Authentication_error"
        | "Permission_error" => ErrorClass::Auth,
        code if BAD_KEYS.contains(&code) => ErrorClass::Auth,
        "ResourceNotFoundException" | "UnknownOperationException" | "Not_found_error" => {
            ErrorClass::NotFound
        }
        "ModelNotReadyException"
        | "ServiceUnavailableException"
        | "ServiceUnavailable"
        | "Overloaded_error" => ErrorClass::Overloaded,
        "ModelTimeoutException"
        | "ModelErrorException"
        | "ModelStreamErrorException"
        | "InternalServerException"
        | "InternalFailure"
        | "InternalServerError"
        | "ConflictException"
        | "RequestTimeoutException"
        | "Api_error" => ErrorClass::Transient,
        _ => by_status(status, text),
    }
}

fn by_status(status: Option<u16>, text: &str) -> ErrorClass {
    match status {
        Some(400) => validation(text),
        Some(429) => throttled(text),
        // The model failed, which need not happen again; or what broke had begun, or has no name.
        Some(424) | None => ErrorClass::Transient,
        Some(status) => class_of_status(status),
    }
}

fn validation(text: &str) -> ErrorClass {
    if contains(text, NO_MODEL) {
        ErrorClass::NotFound
    } else if contains(text, BLOCKED) {
        ErrorClass::Blocked
    } else {
        ErrorClass::InvalidRequest
    }
}

fn throttled(text: &str) -> ErrorClass {
    if contains(text, &["tokens per day"]) {
        ErrorClass::QuotaExhausted
    } else {
        ErrorClass::RateLimited
    }
}

/// Adds what a person can do.
fn told(mut error: VendorError, headers: &HeaderMap, now: DateTime<Utc>) -> VendorError {
    let code = error.error.vendor_code.as_deref().unwrap_or_default();
    let message = error.error.message.as_str();
    let advice = match (error.class(), refused(&error)) {
        (ErrorClass::Auth, Some(Refused::Time)) => clock(headers, now),
        (ErrorClass::Auth, Some(Refused::Keys)) => {
            "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, the same keys under \
             vendors.bedrock, the profile, or the role"
                .to_owned()
        }
        (ErrorClass::Auth, None) if code == "AccessDeniedException" => {
            "check that the account has access to the model in this region, and that the caller may \
             bedrock:InvokeModel"
                .to_owned()
        }
        (ErrorClass::Auth, None) => {
            "check AWS_BEARER_TOKEN_BEDROCK or vendors.bedrock.api_key, or the AWS keys".to_owned()
        }
        (ErrorClass::InvalidRequest, _) if contains(message, &["on-demand throughput"]) => {
            "name an inference profile, such as us. in front of the model's id".to_owned()
        }
        _ => return error,
    };
    error.error.message = format!("{} ({advice})", error.error.message);
    error
}

fn clock(headers: &HeaderMap, now: DateTime<Utc>) -> String {
    let Some(ahead) = sigv4::ahead(headers, now) else {
        return "set this machine's clock".to_owned();
    };
    let (seconds, side) =
        (ahead.num_seconds().abs(), if ahead.num_seconds() < 0 { "ahead of" } else { "behind" });
    format!("set this machine's clock: it is {seconds} s {side} the vendor's")
}

fn capitalised(code: &str) -> String {
    let mut letters = code.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn contains(text: &str, words: &[&str]) -> bool {
    let text = text.to_ascii_lowercase();
    words.iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests;
