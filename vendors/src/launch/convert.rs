//! Turns arguments into tasks and tasks into replies; pure.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::HeaderMap;
use inferq_common::{error::ErrorClass, job::Route, members::each_member, usage::Usage};
use serde_json::{Value, from_str, value::RawValue};

use super::{
    Face,
    wire::{Status, Task, Wrapped},
};
use crate::{
    error::{VendorError, class_of_status, excerpt},
    json,
    openai::{self, wire::WireError},
    remote::{Failure, Parsed},
};

/// The body of a task: `args` as they are spelt.
///
/// A synchronous task is told how long the caller waits (at least a second), since the gateway's own
/// limit of 10 s is too short for a model that has to be woken; and not to try again by itself, since
/// that is the queue's. A pickled result could not be read.
pub(super) fn task(args: &str, route: Route, timeout: Duration) -> String {
    let seconds = timeout.as_secs().max(1);
    match route {
        Route::AsyncTask => format!(r#"{{"args":{args},"return_pickled":false}}"#),
        _ => format!(
            r#"{{"args":{args},"return_pickled":false,"timeout_seconds":{seconds},"num_retries":0}}"#
        ),
    }
}

/// The answer of a container: any JSON.
pub(super) fn bare(headers: &HeaderMap, text: String) -> Result<Parsed, VendorError> {
    if let Err(error) = from_str::<&RawValue>(&text) {
        return Err(if error.is_eof() && !text.trim_ascii().is_empty() {
            let message = "the vendor's answer ends in the middle of its JSON";
            VendorError::new(ErrorClass::Transient, message)
        } else {
            json::unusable(headers, &text, "it is not JSON")
        });
    }
    Ok(parsed(json::keep(text)?))
}

/// The result of a task that should have ended.
pub(super) fn finished(headers: &HeaderMap, text: &str) -> Result<Parsed, VendorError> {
    let task = read(headers, text)?;
    result(headers, &task)?
        .ok_or_else(|| json::unusable(headers, text, "it tells of a task that has not ended"))
}

pub(super) fn read<'a>(headers: &HeaderMap, text: &'a str) -> Result<Task<'a>, VendorError> {
    from_str(text).map_err(|error| {
        if error.is_eof() && text.trim_ascii_start().starts_with('{') {
            let message = "the vendor's answer ends in the middle of its JSON";
            VendorError::new(ErrorClass::Transient, message)
        } else {
            json::unusable(headers, text, "it is not a Launch task")
        }
    })
}

/// What a task has to show; `None`: it has not ended.
///
/// # Errors
/// What its failure means.
pub(super) fn result(headers: &HeaderMap, task: &Task<'_>) -> Result<Option<Parsed>, VendorError> {
    match task.status {
        Status::Unfinished => Ok(None),
        Status::Failure => Err(failed(task)),
        Status::Success => {
            let result = task.result.map_or("null", RawValue::get);
            let inner = from_str::<Wrapped<'_>>(result).map_or(result, |own| own.result.get());
            let text = match from_str::<String>(inner) {
                // Endpoints serialise their results by default: the text is the JSON.
                Ok(text) if from_str::<&RawValue>(&text).is_ok() => {
                    json::text(headers, text.into_bytes())?
                }
                _ => inner.to_owned(),
            };
            Ok(Some(parsed(json::keep(text)?)))
        }
    }
}

fn parsed(response: inferq_common::job::Json) -> Parsed {
    Parsed { response, usage: Usage::default(), request_id: None }
}

/// The error of a task whose model failed; the status is the container's.
pub(super) fn failed(task: &Task<'_>) -> VendorError {
    // The last line of a traceback is the exception; the rest is the model's own code.
    let traceback = task.traceback.as_deref().unwrap_or_default();
    let said = traceback.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let said = if said.is_empty() { "no reason given".to_owned() } else { excerpt(said) };
    let (class, message) = match task.status_code {
        Some(status) => (class_of_status(status), format!("the model answered {status}: {said}")),
        None => (ErrorClass::Transient, format!("the model failed: {said}")),
    };
    let mut error = VendorError::new(class, message);
    error.error.vendor_status = task.status_code;
    error
}

/// The error that an event of a stream holds; `None`: it holds none. LLM Engine's shape, `{"error":
/// {"status_code", "content": {"error"}}}`, is Launch's too. A container may call anything `error`
/// that does not read like one.
pub(super) fn in_stream(face: Face, text: &str, now: DateTime<Utc>) -> Option<VendorError> {
    let mut has_error = false;
    each_member(text, |member| has_error |= member.key == "error" && !member.is_null()).ok()?;
    let document: Value = has_error.then(|| from_str(text).ok())??;
    let error = document.get("error")?;
    if let Some(status) = error.get("status_code").and_then(Value::as_u64) {
        let status = u16::try_from(status).ok()?;
        let said = error.pointer("/content/error").and_then(Value::as_str).unwrap_or_default();
        let message = format!("the vendor broke the stream off: {}", excerpt(said));
        let mut failed = VendorError::new(class_of_status(status), message);
        failed.error.vendor_status = Some(status);
        return Some(failed);
    }
    let reads_like_one = error.get("message").is_some_and(Value::is_string);
    let is_gateways =
        face == Face::Gateway && error.is_string() && document.get("status").is_none();
    let wire = WireError::of(&document).filter(|_| reads_like_one || is_gateways)?;
    Some(openai::classify::in_stream(&openai::OPENAI, &wire, now))
}

/// The error of an answer that is not 2xx. The gateway's have FastAPI's shape or
/// `{"error": "text"}`, which OpenAI-compatible servers use too.
pub(super) fn failure(failure: Failure<'_>, now: DateTime<Utc>) -> VendorError {
    let mut error = openai::classify::error(&openai::OPENAI, failure, now);
    if error.class() == ErrorClass::Auth {
        error.error.message.push_str(" (check LAUNCH_API_KEY or vendors.launch.api_key)");
    }
    error
}
